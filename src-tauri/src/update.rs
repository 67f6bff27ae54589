//! App updates: checked for on request, downloaded, verified against the publisher's key, and run after a restart.
//! Without a request, the network is not used.
//!
//! The version installed is the version shown: the offer found by a check is kept, and nothing else is downloaded. The
//! publisher's key signs the version along with the file (`requireSignedVersion` in `tauri.conf.json`), so that the
//! host of the index cannot offer an old build as a newer one. `tauri build` does so by itself; for manual signing, use
//! `tauri signer sign --app-version`.

use hive_view::{Next, Update};
use tauri::{AppHandle, Manager, Url};
use tauri_plugin_updater::UpdaterExt;

use crate::end::end;
use crate::problem::Problem;
use crate::shell::Shell;
use crate::words::{Words, words};

/// URL of the update index, and the publisher's key; set when a release is built.
const PLACE: Option<&str> = option_env!("HIVEMIND_UPDATE_URL");
const KEY: Option<&str> = option_env!("HIVEMIND_UPDATE_KEY");

/// Takes the update's next step.
pub(crate) async fn go_on(app: &AppHandle) {
    let shell = app.state::<Shell>();
    let now = shell.shown().borrow().update.clone();
    let failed = |why: Problem| Update::Failed { why: why.message };
    match (now.next(), &now) {
        (Next::Look, _) => {
            shell.set_update(Update::Looking);
            shell.set_update(look(app).await.unwrap_or_else(failed));
        }
        (Next::Fetch, Update::Found { version, .. }) => {
            shell.set_update(Update::Fetching { version: version.clone(), percent: 0 });
            shell.set_update(fetch(app, version).await.unwrap_or_else(failed));
        }
        (Next::Restart, _) => end(app, true),
        _ => {}
    }
}

fn words_of(app: &AppHandle) -> &'static Words {
    words(app.state::<Shell>().shown().borrow().language)
}

fn updater(app: &AppHandle) -> Result<tauri_plugin_updater::Updater, Problem> {
    let problem = |error: tauri_plugin_updater::Error| Problem::new("update", error);
    // Release builds use only the built-in values; debug builds let tests override them.
    let for_tests = |name| std::env::var(name).ok().filter(|_| cfg!(debug_assertions));
    let place = for_tests("HIVEMIND_UPDATE_URL").or(PLACE.map(str::to_owned));
    let key = for_tests("HIVEMIND_UPDATE_KEY").or(KEY.map(str::to_owned));
    let (Some(place), Some(key)) = (place, key) else {
        return Err(Problem::new("update", words_of(app).no_updates));
    };
    let place = Url::parse(&place).map_err(Problem::of("update"))?;
    let mut builder = app.updater_builder().pubkey(key).endpoints(vec![place]).map_err(problem)?;
    if let Some(over) = for_tests("HIVEMIND_UPDATE_OVER") {
        builder = builder.executable_path(over);
    }
    builder.build().map_err(problem)
}

async fn look(app: &AppHandle) -> Result<Update, Problem> {
    let found = updater(app)?.check().await;
    let found = found.map_err(|error| Problem::new("update", (words_of(app).not_checked)(&error.to_string())))?;
    let shown = found.as_ref().map_or(Update::Current, |update| Update::Found {
        version: update.version.clone(),
        notes: update.body.clone().unwrap_or_default(),
    });
    *app.state::<Shell>().offer() = found;
    Ok(shown)
}

async fn fetch(app: &AppHandle, version: &str) -> Result<Update, Problem> {
    let failed = |error: tauri_plugin_updater::Error| {
        Problem::new("update", (words_of(app).not_installed)(version, &error.to_string()))
    };
    let (shell, mut here) = (app.state::<Shell>(), 0);
    let offer = shell.offer().take().filter(|update| update.version == version);
    let Some(update) = offer else {
        return Err(Problem::new("update", (words_of(app).not_offered)(version)));
    };
    let progress = |bytes: usize, all: Option<u64>| {
        here += bytes as u64;
        let percent = all.filter(|all| *all > 0).map_or(0, |all| (here * 100 / all).min(100) as u32);
        shell.set_update(Update::Fetching { version: version.to_owned(), percent });
    };
    // Fails unless the publisher signed the file as this version.
    let bytes = update.download(progress, || ()).await.map_err(failed)?;
    update.install(bytes).map_err(failed)?;
    Ok(Update::Ready { version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_signature_has_to_name_the_version() {
        let settings: serde_json::Value = serde_json::from_str(include_str!("../tauri.conf.json")).unwrap();
        let updater = &settings["plugins"]["updater"];
        assert_eq!(updater["requireSignedVersion"], true);
        assert!(updater["allowDowngrades"].is_null());
    }
}
