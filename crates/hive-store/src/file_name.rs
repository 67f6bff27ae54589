//! The name of a file in a repository, which a stranger chose.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The longest part of a path that file systems take, in bytes.
const LONGEST: usize = 255;

/// A relative path that stays in its folder on every system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct FileName(String);

impl FileName {
    /// Checks a path as a hub gives it, its parts separated by `/`. `None` for one that is absolute, leads upwards, or
    /// has a backslash, a NUL or another control character.
    pub fn new(path: &str) -> Option<Self> {
        let is_safe = |part: &str| {
            let names_a_file = !part.is_empty() && part != "." && part != ".." && part.len() <= LONGEST;
            names_a_file && !part.chars().any(|c| c == '\\' || c.is_control())
        };
        path.split('/').all(is_safe).then(|| Self(path.to_owned()))
    }

    /// The path, its parts separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of folders in it.
    pub(crate) fn depth(&self) -> usize {
        self.0.matches('/').count()
    }

    /// The path below a folder.
    pub(crate) fn below(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }
}

/// A text that [`FileName::new`] refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a file in a model's folder")]
pub struct UnsafeName(String);

impl TryFrom<String> for FileName {
    type Error = UnsafeName;

    fn try_from(path: String) -> Result<Self, UnsafeName> {
        Self::new(&path).ok_or(UnsafeName(path))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for good in ["config.json", "Q4_K_M/a b-00001-of-00002.gguf", "..a", "ü.json"] {
            let name = FileName::new(good).unwrap();
            assert_eq!(serde_json::to_value(&name).unwrap(), good);
            assert_eq!(serde_json::from_value::<FileName>(good.into()).unwrap(), name);
        }
        let long = "a".repeat(256);
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a/..", "a//b", "a/", ".", "a\\b", "a\0b", "a\nb", &long] {
            assert!(FileName::new(bad).is_none(), "{bad:?}");
            assert!(serde_json::from_value::<FileName>(bad.into()).is_err(), "{bad:?}");
        }
    }
}
