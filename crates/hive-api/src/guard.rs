//! Who may ask: programs of this machine that can read the token.
//!
//! Loopback alone is no protection: any web page can make a browser send requests to it, and a name that resolves to
//! 127.0.0.1 makes the page's own origin reach it (DNS rebinding). So the Host must be this machine's, an Origin is
//! refused unless it is local, and the token is needed by everyone.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hive_host::SecretError;
use hive_host::secret::{FileSecrets, SecretStore};
use sha2::{Digest, Sha256};

use crate::error::Refusal;

/// The file in the data folder.
const FILE: &str = "api-token";

/// What a program shows to be served.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token of a data folder, made at the first start.
    pub(crate) fn keep(folder: &Path) -> Result<Self, SecretError> {
        // A file on every platform: other programs read it, and the Keychain would ask the owner about each.
        let store = FileSecrets::new(folder);
        if let Some(token) = store.read(FILE)?.filter(|token| !token.trim().is_empty()) {
            return Ok(Self(token.trim().to_owned()));
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| SecretError::File {
            path: folder.join(FILE),
            error: std::io::Error::other(error.to_string()),
        })?;
        let token = format!("hive-{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase());
        store.write(FILE, &token)?;
        Ok(Self(token))
    }

    /// Reads the token of a data folder, to ask a running node.
    pub fn read(folder: &Path) -> Result<Option<Self>, SecretError> {
        Ok(FileSecrets::new(folder).read(FILE)?.map(|token| Self(token.trim().to_owned())))
    }

    /// As it stands in a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug)]
pub(crate) struct Guard {
    /// A digest, so that comparing tells nothing about the token by its time.
    token: [u8; 32],
    hosts: [String; 3],
    origins: [String; 3],
}

impl Guard {
    pub(crate) fn new(token: &Token, port: u16) -> Self {
        let names = ["127.0.0.1", "localhost", "[::1]"];
        Self {
            token: Sha256::digest(token.as_str()).into(),
            hosts: names.map(|name| format!("{name}:{port}")),
            origins: names.map(|name| format!("http://{name}:{port}")),
        }
    }

    fn judge(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return Err(Refusal::forbidden(
                "host",
                "this API is asked as 127.0.0.1 or localhost only",
                "use the address that `hivemind status` shows",
            ));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && !self.origins.iter().any(|known| origin.as_bytes() == known.as_bytes())
        {
            return Err(Refusal::forbidden(
                "origin",
                "web pages of other origins may not use this API",
                "ask from a program on this machine",
            ));
        }
        let shown = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(shown.trim()).into();
        if digest == self.token {
            Ok(())
        } else {
            Err(Refusal::unauthorized(
                "the API token is missing or wrong",
                "send \"Authorization: Bearer TOKEN\"; the token is in the file api-token of HiveMind's data folder",
            ))
        }
    }
}

pub(crate) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.judge(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn judged(pairs: &[(&'static str, &str)]) -> Option<&'static str> {
        let guard = Guard::new(&Token("secret".to_owned()), 4483);
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        guard.judge(&headers).err().map(|refusal| refusal.code)
    }

    #[test]
    fn only_local_programs_with_the_token_are_served() {
        let (host, token) = (("host", "127.0.0.1:4483"), ("authorization", "Bearer secret"));
        assert_eq!(judged(&[host, token]), None);
        assert_eq!(judged(&[("host", "LOCALHOST:4483"), token]), None);
        assert_eq!(judged(&[host]), Some("unauthorized"));
        assert_eq!(judged(&[host, ("authorization", "Bearer wrong")]), Some("unauthorized"));
        assert_eq!(judged(&[host, ("authorization", "Basic secret")]), Some("unauthorized"));
        // A name that was made to point here.
        assert_eq!(judged(&[("host", "evil.example:4483"), token]), Some("host"));
        assert_eq!(judged(&[("host", "127.0.0.1:9999"), token]), Some("host"));
        assert_eq!(judged(&[token]), Some("host"));
        assert_eq!(judged(&[host, token, ("origin", "https://evil.example")]), Some("origin"));
        assert_eq!(judged(&[host, token, ("origin", "null")]), Some("origin"));
        assert_eq!(judged(&[host, token, ("origin", "http://localhost:4483")]), None);
    }

    #[test]
    fn a_token_is_made_once_and_kept_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::keep(folder.path()).unwrap();
        assert!(token.as_str().len() > 40);
        assert_eq!(Token::keep(folder.path()).unwrap(), token);
        assert_eq!(Token::read(folder.path()).unwrap(), Some(token));
    }
}
