//! Classifies failed requests: whether a retry can help, and the error for people.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use rustls::CertificateError;

use crate::error::HubError;

/// A failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestFailure {
    /// A retry would fail, too.
    Permanent(HubError),
    /// A retry may help, after the wait that the hub asks for, if it asks for one.
    Transient(HubError, Option<Duration>),
}

impl RequestFailure {
    /// The error for people.
    pub(crate) fn error(&self) -> &HubError {
        match self {
            Self::Permanent(error) | Self::Transient(error, _) => error,
        }
    }
}

/// The request that failed, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The machine that answered, or did not.
    pub(crate) host: &'a str,
    /// Repository, revision or file.
    pub(crate) what: &'a str,
    /// The repository.
    pub(crate) model: &'a str,
    /// The page of the repository.
    pub(crate) page: &'a str,
    /// The repository's new name, if the hub redirected to one.
    pub(crate) moved_to: Option<&'a str>,
    /// Whether the hub got a token.
    pub(crate) has_token: bool,
    /// Whether this is the hub, not a storage that it sent us to.
    pub(crate) is_hub: bool,
}

/// Classifies an error status.
pub(crate) fn of_status(asked: &Asked<'_>, status: StatusCode, headers: &HeaderMap) -> RequestFailure {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (host, what) = (asked.host.to_owned(), asked.what.to_owned());
    let not_found = |host, what| HubError::NotFound { host, what, did_you_mean: asked.moved_to.map(str::to_owned) };
    let refused = |host, what| HubError::Refused { host, what, status: status.as_u16() };
    if matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error() {
        let again_in = wait_asked(headers);
        return RequestFailure::Transient(HubError::Busy { host, status: status.as_u16(), again_in }, again_in);
    }
    // A link to the storage holds for an hour; the hub gives a new one.
    if !asked.is_hub {
        return RequestFailure::Transient(refused(host, what), None);
    }
    let has_token = asked.has_token;
    RequestFailure::Permanent(match (header("x-error-code"), status.as_u16()) {
        ("GatedRepo", _) => {
            HubError::Gated { model: asked.model.to_owned(), accept_at: asked.page.to_owned(), has_token }
        }
        ("RepoNotFound" | "RevisionNotFound" | "EntryNotFound", _) | (_, 404) => not_found(host, what),
        (_, 401) if has_token || header("x-error-message").contains("Invalid credentials") => {
            HubError::Unauthorized { host, what, has_token }
        }
        // The hub does not tell strangers whether a repository is private or does not exist.
        (_, 401) => not_found(host, what),
        (_, 403) => HubError::Unauthorized { host, what, has_token },
        _ => refused(host, what),
    })
}

/// The wait that the hub asks for: `Retry-After` in seconds, else the end of the rate limit's window if nothing
/// is left of it (`RateLimit: "api";r=0;t=55`).
fn wait_asked(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let limit = || {
        let fields: Vec<&str> = header("ratelimit")?.split(';').map(str::trim).collect();
        fields.contains(&"r=0").then_some(())?;
        fields.iter().find_map(|field| field.strip_prefix("t="))
    };
    header("retry-after").and_then(seconds).or_else(|| seconds(limit()?))
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Classifies a failed connection.
pub(crate) fn of_connection(host: &str, error: reqwest::Error) -> RequestFailure {
    // Links to the storage are signed: they are no one else's business.
    let error = error.without_url();
    let host = host.to_owned();
    if let Some(certificate) = certificate_error(&error) {
        return RequestFailure::Permanent(match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                HubError::Clock { host, why: "has expired" }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                HubError::Clock { host, why: "is not valid yet" }
            }
            other => HubError::Certificate { host, why: other.to_string() },
        });
    }
    let why = innermost(&error);
    if error.is_connect() {
        return RequestFailure::Transient(HubError::NoNetwork { host, why }, None);
    }
    RequestFailure::Transient(HubError::Interrupted { host, why }, None)
}

/// The error of a certificate somewhere in the chain, if there is one.
fn certificate_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(certificate)) = tls {
            return Some(certificate);
        }
        // An I/O error that holds another one gives that one's source, not that one.
        if let Some(found) = inner.and_then(|inner| certificate_error(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The message of the first cause: the others repeat it in general words.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let headers = headers.iter().map(|(name, value)| {
            (
                name.parse::<reqwest::header::HeaderName>().unwrap(),
                value.parse::<reqwest::header::HeaderValue>().unwrap(),
            )
        });
        wait_asked(&headers.collect()).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_that_the_hub_asks_for_is_read() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(7));
        assert_eq!(wait(&[("ratelimit", "\"api\";r=0;t=55")]), Some(55));
        assert_eq!(wait(&[("ratelimit", "\"api\"; r=3; t=55")]), None);
        assert_eq!(wait(&[("retry-after", "soon"), ("ratelimit", "\"resolvers\";r=0;t=9")]), Some(9));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn the_certificate_is_found_however_deep_it_lies() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let once = std::io::Error::new(std::io::ErrorKind::InvalidData, tls);
        let twice = std::io::Error::other(once);
        assert_eq!(certificate_error(&twice), Some(&CertificateError::Expired));
        assert_eq!(certificate_error(&std::io::Error::other("else")), None);
    }
}
