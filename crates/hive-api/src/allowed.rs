//! Origins and host names that the owner lets use the API, in addition to this machine's own.
//!
//! A browser page has an **origin**, such as `https://chat.example.org` or `app://obsidian.md`. A program reaches the
//! API through a **host**, such as `host.docker.internal` from inside a container. Both are compared in full: there are
//! no patterns, because one wrong character in a pattern opens the API to the whole web. A client admitted here still
//! needs a token.

/// Origins and hosts that the owner allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    origins: Vec<String>,
    hosts: Vec<Host>,
}

/// An allowed host. Without a port, it matches requests with the API's port or with none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

/// The origin of pages that have none: local files and sandboxed frames.
const NO_ORIGIN: &str = "null";

/// Characters that never occur in an origin, only in paths, lists and patterns.
const NOT_IN_ORIGINS: [char; 8] = ['/', '?', '#', '@', '*', ',', '\\', '"'];

/// Why an origin or host is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// A wildcard.
    #[error(
        "\"{0}\" would let every page that a browser here opens use this API, once it learns a token; name the origins or \
         hosts one by one"
    )]
    Everybody(String),
    /// Not an origin.
    #[error(
        "\"{0}\" is no origin; write it as browsers send it, like https://chat.example.org or app://obsidian.md, without a path"
    )]
    Origin(String),
    /// Not a host.
    #[error(
        "\"{0}\" is no host; write its name, like host.docker.internal, and a port behind it where that is another one"
    )]
    Host(String),
}

impl Allowed {
    /// Parses the owner's lists.
    pub fn new(origins: &[String], hosts: &[String]) -> Result<Self, AllowError> {
        Ok(Self {
            origins: origins.iter().map(|text| origin(text)).collect::<Result<_, _>>()?,
            hosts: hosts.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        })
    }

    /// A warning to the owner about a risky entry.
    pub fn warning(&self) -> Option<&'static str> {
        self.origins.iter().any(|origin| origin == NO_ORIGIN).then_some(
            "the origin \"null\" is that of every page that is opened from a file, and of any website's shut-in frames: all of \
             them may use this API once they learn a token",
        )
    }

    /// Whether pages of this origin may use the API.
    pub(crate) fn has_origin(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|known| known.as_bytes() == origin)
    }

    /// Whether requests for this host are accepted by an API that listens on `api_port`.
    pub(crate) fn has_host(&self, asked: &str, api_port: u16) -> bool {
        let Some((name, port)) = parts(asked) else { return false };
        let fits = |known: &Host| match known.port {
            None => port.is_none_or(|port| port == api_port),
            known => known == port,
        };
        self.hosts.iter().any(|known| known.name.eq_ignore_ascii_case(name) && fits(known))
    }
}

/// Normalizes an origin to the form that browsers send.
fn origin(text: &str) -> Result<String, AllowError> {
    let text = text.trim();
    if text == NO_ORIGIN {
        return Ok(NO_ORIGIN.to_owned());
    }
    let refused = || AllowError::Origin(text.to_owned());
    if is_everybody(text) {
        return Err(AllowError::Everybody(text.to_owned()));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(refused)?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let is_host = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !NOT_IN_ORIGINS.contains(&c));
    if !is_scheme || !is_host {
        return Err(refused());
    }
    let scheme = scheme.to_ascii_lowercase();
    // For http and https, browsers send lower case and omit the default port. Other schemes' hosts stay as written.
    let usual_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return Ok(format!("{scheme}://{rest}")),
    };
    let rest = rest.to_ascii_lowercase();
    Ok(format!("{scheme}://{}", rest.strip_suffix(usual_port).unwrap_or(&rest)))
}

fn host(text: &str) -> Result<Host, AllowError> {
    let text = text.trim();
    if is_everybody(text) {
        return Err(AllowError::Everybody(text.to_owned()));
    }
    let refused = || AllowError::Host(text.to_owned());
    let (name, port) = parts(text).ok_or_else(refused)?;
    let in_brackets = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let is_name = match in_brackets {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    if is_name { Ok(Host { name: name.to_owned(), port }) } else { Err(refused()) }
}

/// Whether the text is `*`, or has `*` as its host.
fn is_everybody(text: &str) -> bool {
    text == "*" || text.split_once("://").is_some_and(|(_, host)| host == "*")
}

/// Splits a host into name and port; `None` if the text after the colon is not a port.
fn parts(host: &str) -> Option<(&str, Option<u16>)> {
    match host.rsplit_once(':') {
        // An IPv6 address has its colons inside brackets.
        Some((name, port)) if !port.ends_with(']') => Some((name, Some(port.parse().ok()?))),
        _ => Some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &[&str], hosts: &[&str]) -> Result<Allowed, AllowError> {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Allowed::new(&texts(origins), &texts(hosts))
    }

    #[test]
    fn an_origin_is_let_in_as_a_whole_or_not_at_all() {
        let named =
            allowed(&["app://obsidian.md", "HTTPS://Chat.Example.org:443", "http://localhost:3000"], &[]).unwrap();
        for origin in ["app://obsidian.md", "https://chat.example.org", "http://localhost:3000"] {
            assert!(named.has_origin(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "",
            "null",
            "*",
            "app://obsidian.md.evil.example",
            "app://obsidian.m",
            "xapp://obsidian.md",
            "http://chat.example.org",
            "https://chat.example.org:8443",
            "https://evil.chat.example.org",
            "https://chat.example.org/",
            "http://localhost:30000",
            "http://localhost",
        ] {
            assert!(!named.has_origin(origin.as_bytes()), "{origin}");
        }
        let null = allowed(&["null"], &[]).unwrap();
        assert!(null.has_origin(b"null") && null.warning().is_some() && named.warning().is_none());
    }

    #[test]
    fn a_host_is_let_in_at_the_apis_port_or_at_its_own() {
        let named = allowed(&[], &["host.docker.internal", "hive.local:8080", "[fd00::1]"]).unwrap();
        for host in
            ["host.docker.internal:4483", "HOST.docker.internal", "hive.local:8080", "[fd00::1]:4483", "[fd00::1]"]
        {
            assert!(named.has_host(host, 4483), "{host}");
        }
        for host in [
            "host.docker.internal:80",
            "host.docker.internal.evil.example:4483",
            "docker.internal",
            "hive.local",
            "hive.local:4483",
            "[fd00::1]:x",
            "host.docker.internal:",
            "",
        ] {
            assert!(!named.has_host(host, 4483), "{host}");
        }
    }

    #[test]
    fn what_names_everybody_or_nobody_is_refused_in_words() {
        for everybody in ["*", "https://*"] {
            let why = allowed(&[everybody], &[]).unwrap_err();
            assert!(matches!(why, AllowError::Everybody(_)) && why.to_string().contains("every page"), "{why}");
        }
        assert!(matches!(allowed(&[], &["*"]), Err(AllowError::Everybody(_))));
        for origin in [
            "",
            "obsidian.md",
            "https://",
            "https://*.example.org",
            "https://a.example/b",
            "https://a.example/",
            "file:///",
            "a b://c",
        ] {
            assert!(matches!(allowed(&[origin], &[]), Err(AllowError::Origin(_))), "{origin}");
        }
        for host in ["", "http://a.example", "*.example.org", "a.example/b", "a.example:port", "a:b:1", "[nonsense]"] {
            assert!(matches!(allowed(&[], &[host]), Err(AllowError::Host(_))), "{host}");
        }
    }
}
