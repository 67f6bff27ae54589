//! The hub's checksum of a file, and the check of the contents.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A file's checksum, which is also the name of its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256 of the contents, in hexadecimal digits: all large files have one.
    Sha256(String),
    /// The id that git gives the contents, in hexadecimal digits: small files have only this.
    Git(String),
    /// A hub that gives neither, as mirrors do: nothing can be checked but the size.
    Unknown {
        /// The tag that the hub gives this version of the file.
        etag: String,
    },
}

impl Checksum {
    /// The checksum in an entity tag, as a header or the hub's list gives it. `None` if it cannot be a file's name.
    pub(crate) fn of_etag(tag: &str) -> Option<Self> {
        let tag = tag.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        let is_hex = !tag.is_empty() && tag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_name = tag.len() <= 128
            && tag.starts_with(|c: char| c.is_ascii_alphanumeric())
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        match tag.len() {
            64 if is_hex => Some(Self::Sha256(tag.to_owned())),
            40 if is_hex => Some(Self::Git(tag.to_owned())),
            _ => is_name.then(|| Self::Unknown { etag: tag.to_owned() }),
        }
    }

    /// The name of the file's blob in the cache.
    pub(crate) fn blob(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::Git(name) | Self::Unknown { etag: name } => name,
        }
    }
}

/// Checks contents as they are read, from the first byte to the last.
pub(crate) struct Check {
    context: Option<Context>,
    expected: String,
}

impl Check {
    /// Begins with a file of `size` bytes.
    pub(crate) fn new(checksum: &Checksum, size: u64) -> Self {
        let context = match checksum {
            Checksum::Sha256(_) => Some(Context::new(&SHA256)),
            Checksum::Git(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Some(context)
            }
            Checksum::Unknown { .. } => None,
        };
        Self { context, expected: checksum.blob().to_owned() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(bytes);
        }
    }

    /// Whether the contents match the hub's checksum.
    pub(crate) fn holds(self) -> bool {
        self.context.is_none_or(|context| HEXLOWER.encode(context.finish().as_ref()) == self.expected)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("expected", &self.expected).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_checksums_are_checked() {
        // `printf hello | sha256sum`, `printf hello | git hash-object --stdin`
        for tag in [
            "\"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\"",
            "W/\"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0\"",
        ] {
            let checksum = Checksum::of_etag(tag).unwrap();
            for (contents, holds) in [("hello", true), ("hellO", false)] {
                let mut check = Check::new(&checksum, 5);
                check.update(&contents.as_bytes()[..2]);
                check.update(&contents.as_bytes()[2..]);
                assert_eq!(check.holds(), holds, "{tag} {contents}");
            }
        }
    }

    #[test]
    fn a_tag_that_cannot_name_a_file_is_refused() {
        assert_eq!(Checksum::of_etag("\"abc-1\""), Some(Checksum::Unknown { etag: "abc-1".into() }));
        for bad in ["", "\"\"", "\"../x\"", "\"a/b\"", "\".hidden\"", "\"a\\b\"", &"a".repeat(200)] {
            assert_eq!(Checksum::of_etag(bad), None, "{bad}");
        }
    }
}
