//! A client for one hub of models, Hugging Face or a mirror: from a name to a pinned commit and its files.
//!
//! [`Hub::find`] asks the hub's API once and fetches no weights. Whatever a branch points to later, a
//! [`Listing`] means the commit it was made of.

mod answers;
pub(crate) mod failure;
pub(crate) mod request;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use reqwest::header::{CONTENT_LENGTH, ETAG};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode, Url};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::Semaphore;

use crate::backoff::{Backoff, SHORT_WAIT};
use crate::checksum::Checksum;
use crate::choose::{Entry, choose};
use crate::error::{FindError, HubError};
use crate::file_name::FileName;
use crate::name::ModelName;
use crate::settings::Settings;
use answers::Repository;
use failure::{RequestFailure, of_connection};
use request::{Answer, Line, Question, host, is_loopback, silence};

/// How long a machine may take to answer the call. Those that answer do so within a second.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest answer of the API in bytes: ten thousand files are 3 MB.
const LONGEST_ANSWER: usize = 64 << 20;
/// Far above the largest file of a model, in bytes.
const LARGEST_FILE: u64 = 1 << 44;
/// Files asked about at once.
const AT_ONCE: usize = 8;

/// One hub and one cache.
#[derive(Debug)]
pub struct Hub {
    line: Line,
    cache: PathBuf,
    is_offline: bool,
}

/// A model's files at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// The name that was asked for.
    pub model: ModelName,
    /// The new name of the repository, if it was renamed since. The files still lie under the name that was asked for.
    pub moved_to: Option<String>,
    /// The commit, in hexadecimal digits.
    pub commit: String,
    /// The files. What makes a folder a model comes last.
    pub files: Vec<RemoteFile>,
    /// The file that is the model, if it is GGUF.
    pub gguf: Option<FileName>,
}

/// A file on a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository.
    pub name: FileName,
    /// Its size in bytes.
    pub bytes: u64,
    /// The checksum of its contents.
    pub checksum: Checksum,
}

impl Listing {
    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Where the files are on the hub.
    pub(crate) fn repository(&self) -> String {
        self.moved_to.clone().unwrap_or_else(|| self.model.repository())
    }
}

impl Hub {
    /// This hub, and a cache in the layout of Hugging Face's.
    pub fn new(cache: PathBuf, settings: &Settings) -> Result<Self, HubError> {
        let invalid = |why: &str| HubError::NotAHub { host: "the hub".to_owned(), why: why.to_owned() };
        let endpoint: Url = settings.endpoint.trim().parse().map_err(|_| invalid("HF_ENDPOINT is not an address"))?;
        if !["http", "https"].contains(&endpoint.scheme()) || !endpoint.has_host() {
            return Err(invalid("HF_ENDPOINT must start with http:// or https://"));
        }
        let client = client(&endpoint)?;
        let line = Line::new(client, endpoint, settings.token.as_ref(), settings.retry_policy.clone());
        Ok(Self { line, cache, is_offline: settings.offline })
    }

    /// The folder of the cache.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether it is asked in somebody's name.
    pub fn has_token(&self) -> bool {
        self.line.has_token()
    }

    /// Whether the environment says that nothing is to be asked of it.
    pub fn is_offline(&self) -> bool {
        self.is_offline
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// The machine that is asked, for messages.
    pub(crate) fn host(&self) -> String {
        host(self.line.endpoint())
    }

    /// Fails if nothing may be fetched.
    pub(crate) fn allowed(&self) -> Result<(), HubError> {
        if self.is_offline { Err(HubError::Offline) } else { Ok(()) }
    }

    /// Finds a model: the commit its revision points to now, and the files it needs.
    pub async fn find(&self, model: &ModelName) -> Result<Listing, FindError> {
        self.allowed()?;
        let name = model.repository();
        let (repository, moved_to) = self.repository(model).await?;
        let commit = repository.commit().map(str::to_owned);
        let commit = commit.ok_or_else(|| self.not_a_hub("it names no commit"))?;
        let is_gated = repository.is_gated();
        let chosen = choose(model, repository.entries(&name)?)?;
        let mut listing = Listing { model: model.clone(), moved_to, commit, files: Vec::new(), gguf: chosen.gguf };
        if let Some(entry) = chosen.files.first().filter(|_| is_gated) {
            // The list is for everybody; only files are not.
            self.describe(&listing, entry).await?;
        }
        let at_once = Semaphore::new(AT_ONCE);
        let files = chosen.files.into_iter().map(|entry| self.complete(&listing, entry, &at_once));
        let files = try_join_all(files).await?;
        listing.files = files;
        Ok(listing)
    }

    /// The address of a file, at the commit.
    pub(crate) fn address(&self, listing: &Listing, file: &FileName) -> Url {
        let repository = listing.repository();
        let parts = repository.split('/').chain(["resolve", &listing.commit]).chain(file.as_str().split('/'));
        self.line.below(parts)
    }

    /// The repository as the API describes it, and its new name if it was renamed.
    async fn repository(&self, model: &ModelName) -> Result<(Repository, Option<String>), HubError> {
        let mut url = self.line.below(["api", "models", &model.owner, &model.name, "revision", model.revision()]);
        url.set_query(Some("blobs=true"));
        let (name, what) = (model.repository(), format!("{}@{}", model.repository(), model.revision()));
        let what = if model.revision.is_some() { &what } else { &name };
        let question = Question { method: Method::GET, url, range: None, model: &name, what, stay_on_hub: false };
        let (body, moved_to) = self.ask_in_full(&question).await?;
        match serde_json::from_slice(&body) {
            Ok(repository) => Ok((repository, moved_to)),
            Err(_) if body.trim_ascii_start().starts_with(b"<") => {
                Err(HubError::CaptivePortal { host: host(self.line.endpoint()) })
            }
            Err(error) => Err(self.not_a_hub(&format!("its answer is not the expected JSON: {error}"))),
        }
    }

    /// A file of the list with its size and checksum.
    async fn complete(&self, listing: &Listing, entry: Entry, at_once: &Semaphore) -> Result<RemoteFile, HubError> {
        if let (Some(bytes), Some(checksum)) = (entry.bytes, &entry.checksum) {
            self.plausible(bytes)?;
            return Ok(RemoteFile { bytes, checksum: checksum.clone(), name: entry.name });
        }
        let _permit = at_once.acquire().await;
        self.describe(listing, &entry).await
    }

    /// Size and checksum of a file that the list does not give, from the headers of the file itself.
    async fn describe(&self, listing: &Listing, entry: &Entry) -> Result<RemoteFile, HubError> {
        let (model, what) = (listing.model.repository(), format!("{} of {}", entry.name, listing.model.repository()));
        let url = self.address(listing, &entry.name);
        let question =
            Question { method: Method::HEAD, url, range: None, model: &model, what: &what, stay_on_hub: true };
        let head = self.ask(&question).await?;
        if head.header("x-repo-commit").is_some_and(|commit| commit != listing.commit) {
            return Err(self.not_a_hub("asked for one commit, it gives another"));
        }
        let is_file = head.response.status().is_success();
        let length = |answer: &Answer| answer.header(CONTENT_LENGTH.as_str())?.parse().ok();
        let linked = head.header("x-linked-size").and_then(|size| size.parse().ok());
        let known = entry.bytes.or(linked).or_else(|| length(&head).filter(|_| is_file));
        let bytes = if let Some(bytes) = known {
            bytes
        } else {
            let first = Question { method: Method::GET, range: Some(0..1), stay_on_hub: false, ..question.clone() };
            let answer = self.ask(&first).await?;
            let is_part = answer.response.status() == StatusCode::PARTIAL_CONTENT;
            let bytes = if is_part { total(&answer) } else { length(&answer) };
            bytes.ok_or_else(|| self.not_a_hub(&format!("it does not say how large {what} is")))?
        };
        self.plausible(bytes)?;
        let tag = head.header("x-linked-etag").or_else(|| head.header(ETAG.as_str()));
        let checksum = entry.checksum.clone().or_else(|| Checksum::of_etag(tag?));
        let checksum = checksum.ok_or_else(|| self.not_a_hub(&format!("it gives no tag for {what}")))?;
        Ok(RemoteFile { name: entry.name.clone(), bytes, checksum })
    }

    /// Asks again while that may help.
    async fn ask(&self, question: &Question<'_>) -> Result<Answer, HubError> {
        let wait = self.line.quiet_for();
        if wait > SHORT_WAIT {
            let host = host(self.line.endpoint());
            return Err(HubError::Busy { host, status: StatusCode::TOO_MANY_REQUESTS.as_u16(), again_in: Some(wait) });
        }
        let mut backoff = Backoff::short(self.line.retry_policy());
        loop {
            match self.line.ask(question).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tokio::time::sleep(backoff.after(failure)?).await,
            }
        }
    }

    /// [`Self::ask`], with the whole of a short answer, and the repository's new name if it was renamed.
    async fn ask_in_full(&self, question: &Question<'_>) -> Result<(Vec<u8>, Option<String>), HubError> {
        let mut backoff = Backoff::short(self.line.retry_policy());
        loop {
            let mut answer = self.ask(question).await?;
            match self.body(&mut answer).await {
                Ok(body) => return Ok((body, answer.moved_to)),
                Err(failure) => tokio::time::sleep(backoff.after(failure)?).await,
            }
        }
    }

    /// The whole of a short answer.
    async fn body(&self, answer: &mut Answer) -> Result<Vec<u8>, RequestFailure> {
        let mut body = Vec::new();
        let host = host(&answer.url);
        loop {
            match tokio::time::timeout(self.line.retry_policy().idle, answer.response.chunk()).await {
                Ok(Ok(Some(bytes))) if body.len() + bytes.len() <= LONGEST_ANSWER => body.extend_from_slice(&bytes),
                Ok(Ok(Some(_))) => return Err(RequestFailure::Permanent(self.not_a_hub("its answer does not end"))),
                Ok(Ok(None)) => return Ok(body),
                Ok(Err(error)) => return Err(of_connection(&host, error)),
                Err(_) => return Err(silence(&host)),
            }
        }
    }

    /// Refuses a size that no file has: it would size an allocation, and sums of such sizes overflow.
    fn plausible(&self, bytes: u64) -> Result<(), HubError> {
        if bytes <= LARGEST_FILE { Ok(()) } else { Err(self.not_a_hub(&format!("a file of {bytes} bytes"))) }
    }

    fn not_a_hub(&self, why: &str) -> HubError {
        HubError::NotAHub { host: host(self.line.endpoint()), why: why.to_owned() }
    }
}

/// The size of the whole file in an answer that holds a part of it.
pub(crate) fn total(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.rsplit_once('/')?.1.parse().ok()
}

/// A client that trusts the system's certificates, so that a company's own certificates count.
fn client(endpoint: &Url) -> Result<Client, HubError> {
    let failed = |why: String| HubError::Certificate { host: host(endpoint), why };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| failed(error.to_string()))?
        .with_no_client_auth();
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("hivemind/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(CONNECT);
    // No proxy leads to this machine itself.
    let builder = if is_loopback(endpoint) { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| failed(error.without_url().to_string()))
}
