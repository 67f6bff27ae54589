//! The replies of the hub's API: the fields that are used.

use serde::Deserialize;

use crate::checksum::Checksum;
use crate::choose::Entry;
use crate::error::FindError;
use crate::file_name::FileName;

/// A repository at a revision.
#[derive(Debug, Deserialize)]
pub(crate) struct Repository {
    /// The commit.
    sha: String,
    /// `false`, or how access is granted.
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Debug, Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Repository {
    /// The commit, if it is one.
    pub(crate) fn commit(&self) -> Option<&str> {
        let is_commit = self.sha.len() == 40 && self.sha.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_commit.then_some(self.sha.as_str())
    }

    /// Whether some have access and others do not.
    pub(crate) fn is_gated(&self) -> bool {
        !matches!(self.gated, serde_json::Value::Null | serde_json::Value::Bool(false))
    }

    /// All files. A single unsafe name speaks against all.
    pub(crate) fn entries(self, model: &str) -> Result<Vec<Entry>, FindError> {
        let entry = |sibling: Sibling| {
            let Some(name) = FileName::new(&sibling.name) else {
                return Err(FindError::UnsafeName { model: model.to_owned(), file: sibling.name });
            };
            let (bytes, tag) = match sibling.lfs {
                Some(large) => (large.size.or(sibling.size), large.sha256),
                None => (sibling.size, sibling.blob),
            };
            let checksum = tag.and_then(|tag| Checksum::of_etag(&tag));
            Ok(Entry { name, bytes, checksum })
        };
        self.siblings.into_iter().map(entry).collect()
    }
}
