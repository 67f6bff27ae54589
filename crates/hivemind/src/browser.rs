//! `hivemind browser`: a link that opens HiveMind in a browser; and the pages themselves, which are part of this program.

use std::borrow::Cow;
use std::sync::Arc;

use hive_api::{Api, BrowserAccess, Page, Pages};
use hive_node::settings::Settings;
use hive_types::BrowserLink;

use crate::client::Client;
use crate::{Failure, output};

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

pub(crate) async fn link(client: &Client, as_json: bool) -> Result<(), Failure> {
    let link: BrowserLink = client.post("/hive/v1/browsers/links", &()).await?;
    if as_json {
        output::line(serde_json::to_value(&link).unwrap_or_default());
        return Ok(());
    }
    output::line(&link.url);
    output::line(format_args!("It lets one browser in, within {} minutes.", link.valid_for_s / 60));
    if let Some(certificate) = link.certificate {
        output::line("The browser will warn that the certificate is not trusted. Continue only if it has");
        output::line(format_args!("the SHA-256 fingerprint {}", certificate.sha256));
    }
    Ok(())
}

/// Opens the pages to browsers as the settings say.
pub(crate) async fn open(api: &Api, settings: &Settings) -> Result<(), Failure> {
    let access = settings.browser.unwrap_or_default();
    if access != BrowserAccess::Off && PAGES.is_empty() {
        return Err(Failure::usage("this build of hivemind has no pages for browsers")
            .hinted(Some("build it with `./dev build` where Node.js is installed")));
    }
    let pages: Pages = Arc::new(|path| {
        let (_, bytes) = PAGES.iter().find(|(name, _)| *name == path)?;
        Some(Page { bytes: Cow::Borrowed(*bytes) })
    });
    let opened = api.open_to_browsers(access, settings.browser_bind, pages).await;
    opened.map_err(|error| Failure::new(&error).hinted(error.hint()))
}
