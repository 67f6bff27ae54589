//! One request to a hub: redirects followed, the token sent to the hub alone, and what went wrong named.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Method, Response, Url};

use super::failure::{Asked, RequestFailure, of_connection, of_status};
use crate::error::HubError;
use crate::settings::{RetryPolicy, Token};

/// Redirects followed: the hub to a renamed repository, to its storage, to a mirror of that.
const MOST_HOPS: usize = 8;

/// A connection to one hub.
#[derive(Debug)]
pub(crate) struct Line {
    client: Client,
    endpoint: Url,
    authorization: Option<HeaderValue>,
    retry_policy: RetryPolicy,
    /// Until when the hub wants no requests from us.
    quiet_until: Mutex<Option<Instant>>,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The bytes wanted; all if there are none.
    pub(crate) range: Option<Range<u64>>,
    /// The repository.
    pub(crate) model: &'a str,
    /// Repository, revision or file, for messages.
    pub(crate) what: &'a str,
    /// Whether to stop at the hub's redirect to its storage: its own headers describe the file.
    pub(crate) stay_on_hub: bool,
}

/// A successful answer, or the redirect at which the question stops.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Where it came from in the end.
    pub(crate) url: Url,
    /// The repository's new name, if the hub sent us there.
    pub(crate) moved_to: Option<String>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

impl Line {
    pub(crate) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    pub(crate) fn new(client: Client, endpoint: Url, token: Option<&Token>, retry_policy: RetryPolicy) -> Self {
        // In the clear, everybody on the way could read and use it.
        let is_private = endpoint.scheme() == "https" || is_loopback(&endpoint);
        let authorization = token.filter(|_| is_private).and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.secret())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { client, endpoint, authorization, retry_policy, quiet_until: Mutex::new(None) }
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    pub(crate) fn retry_policy(&self) -> &RetryPolicy {
        &self.retry_policy
    }

    /// Whether an address is the hub's own.
    pub(crate) fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Asks once.
    pub(crate) async fn ask(&self, question: &Question<'_>) -> Result<Answer, RequestFailure> {
        let mut url = question.url.clone();
        let mut moved_to = None;
        for _ in 0..MOST_HOPS {
            let is_hub = self.is_hub(&url);
            let response = self.send(question, &url).await?;
            let status = response.status();
            if status.is_redirection() {
                let next = target(&url, response.headers()).ok_or_else(|| no_hub(&url, "a redirect to nowhere"))?;
                if question.stay_on_hub && !self.is_hub(&next) {
                    return Ok(Answer { response, url, moved_to });
                }
                if url.scheme() == "https" && next.scheme() != "https" {
                    return Err(no_hub(&url, "a redirect to an address without encryption"));
                }
                if is_hub {
                    moved_to = self.repository(&next).filter(|name| name != question.model).or(moved_to);
                }
                url = next;
                continue;
            }
            let host = host(&url);
            if status.is_success() {
                if is_page(response.headers()) {
                    return Err(RequestFailure::Permanent(HubError::CaptivePortal { host }));
                }
                return Ok(Answer { response, url, moved_to });
            }
            let page = self.page(question.model);
            let asked = Asked {
                host: &host,
                what: question.what,
                model: question.model,
                page: &page,
                moved_to: moved_to.as_deref(),
                has_token: self.authorization.is_some(),
                is_hub,
            };
            let failure = of_status(&asked, status, response.headers());
            // A longer wait is an error; a caller that tries again may have a reason to.
            if let RequestFailure::Transient(_, Some(wait)) = failure
                && wait <= self.retry_policy.longest_wait
            {
                self.be_quiet(wait);
            }
            return Err(failure);
        }
        Err(no_hub(&url, "redirects without end"))
    }

    async fn send(&self, question: &Question<'_>, url: &Url) -> Result<Response, RequestFailure> {
        tokio::time::sleep(self.quiet_for()).await;
        let mut request = self.client.request(question.method.clone(), url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = self.authorization.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(Range { start, end }) = &question.range {
            request = request.header(RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
        }
        match tokio::time::timeout(self.retry_policy.idle, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(of_connection(&host(url), error)),
            Err(_) => Err(silence(&host(url))),
        }
    }

    /// The address below the hub's with these parts, each encoded.
    pub(crate) fn below<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        url.path_segments_mut().expect("a hub's address has a path").pop_if_empty().extend(parts);
        url
    }

    /// The page of a repository, for people: without a password that the hub's address may hold.
    fn page(&self, repository: &str) -> String {
        let mut page = self.below(repository.split('/'));
        // Neither fails on an address of the web.
        let _ = page.set_username("");
        let _ = page.set_password(None);
        page.to_string()
    }

    /// The repository that an address of the hub is about.
    fn repository(&self, url: &Url) -> Option<String> {
        let path = url.path().strip_prefix(self.endpoint.path().trim_end_matches('/'))?;
        let path = path.trim_start_matches('/');
        let mut parts = path.strip_prefix("api/models/").unwrap_or(path).split('/');
        Some(format!("{}/{}", parts.next()?, parts.next()?))
    }

    fn be_quiet(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = (*quiet).max(Some(until));
    }

    /// How long the hub still wants no requests: a limit is for all our connections.
    pub(crate) fn quiet_for(&self) -> Duration {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

fn no_hub(url: &Url, why: &str) -> RequestFailure {
    RequestFailure::Permanent(HubError::NotAHub { host: host(url), why: why.to_owned() })
}

/// Nothing came for too long.
pub(crate) fn silence(host: &str) -> RequestFailure {
    RequestFailure::Transient(
        HubError::Interrupted { host: host.to_owned(), why: "the connection was too slow".to_owned() },
        None,
    )
}

/// The machine at an address, as messages name it.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether an address is this machine's.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn target(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let next = url.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    ["http", "https"].contains(&next.scheme()).then_some(next)
}

fn is_page(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}
