//! The hub, the token and the retry policy. They come from the environment variables that Python's `huggingface_hub`
//! reads.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The default hub.
const HUGGING_FACE: &str = "https://huggingface.co";

/// A token for a hub. It is shown to nobody: neither `Debug` nor an error prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token as a person pasted it. `None` if nothing is left without spaces, or no header could carry it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let can_be_sent = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        can_be_sent.then(|| Self(text.to_owned()))
    }

    /// For code that stores or sends it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The settings of a [`Hub`](crate::Hub).
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address of the hub, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Sent to this hub only, and only over TLS or within this machine.
    pub token: Option<Token>,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// Time-outs and retries.
    pub retry_policy: RetryPolicy,
}

/// When a request is abandoned, and how often it is retried.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The time in which a connection must deliver `least_bytes`. Mobile networks pause for ten seconds and more.
    pub idle: Duration,
    /// The bytes that must arrive within `idle`: a slower connection is replaced, since another server is often faster.
    pub least_bytes: u64,
    /// Attempts in a row without a single new byte before a fetch fails.
    pub attempts: u32,
    /// The wait before the second attempt; doubled each time.
    pub first_wait: Duration,
    /// The longest wait, and the longest one that a hub may ask for. Rate limits of the hub are over five minutes.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            least_bytes: 16 << 10,
            attempts: 7,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_mins(6),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { endpoint: HUGGING_FACE.to_owned(), token: None, offline: false, retry_policy: RetryPolicy::default() }
    }
}

impl Settings {
    /// `HF_ENDPOINT`; `HF_TOKEN`, else the file that `hf auth login` wrote; `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Self {
        Self::of(&|name| std::env::var_os(name), hive_host::folders::hugging_face_token().as_deref())
    }

    /// The same with a token that the owner has given, which counts before that of the environment.
    pub fn with_token(token: Option<Token>) -> Self {
        let environment = Self::from_environment();
        Self { token: token.or_else(|| environment.token.clone()), ..environment }
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>, token_file: Option<&Path>) -> Self {
        let set = |name: &str| variable(name)?.into_string().ok().filter(|value| !value.trim().is_empty());
        let is_on = |name: &str| set(name).is_some_and(|value| is_true(&value));
        let of_file = || Token::new(&std::fs::read_to_string(token_file?).ok()?);
        let of_environment = || ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(set);
        let token = of_environment().and_then(|text| Token::new(&text)).or_else(of_file);
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| HUGGING_FACE.to_owned()),
            token: token.filter(|_| !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            offline: set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).is_some_and(|value| is_true(&value)),
            retry_policy: RetryPolicy::default(),
        }
    }
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], file: Option<&Path>) -> Settings {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Settings::of(&variable, file)
    }

    #[test]
    fn the_environment_says_which_hub_and_which_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_file\n").unwrap();
        let token =
            |variables: &[(&str, &str)]| of(variables, Some(&file)).token.map(|token| token.secret().to_owned());
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", " hf_one\r\n")]).as_deref(), Some("hf_one"));
        assert_eq!(token(&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "hf_two")]).as_deref(), Some("hf_two"));
        assert_eq!(token(&[("HF_TOKEN", "hf_one"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(of(&[], None).token, None);

        assert_eq!(of(&[], None).endpoint, "https://huggingface.co");
        assert_eq!(of(&[("HF_ENDPOINT", "https://mirror.example")], None).endpoint, "https://mirror.example");
        for (variables, offline) in [
            (&[][..], false),
            (&[("HF_HUB_OFFLINE", "true")], true),
            (&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")], false),
            (&[("TRANSFORMERS_OFFLINE", "1")], true),
        ] {
            assert_eq!(of(variables, None).offline, offline, "{variables:?}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let settings = of(&[("HF_TOKEN", "hf_secret")], None);
        assert!(settings.token.is_some());
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(Token::new("two words"), None);
    }
}
