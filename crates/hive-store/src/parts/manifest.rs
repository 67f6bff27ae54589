//! The manifest of a model: where it comes from, and its files with their sizes.
//!
//! Two machines that hold equal manifests mean the same bytes: an origin names a commit, and a model that has none is told
//! from others by its digest.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::file_name::FileName;
use crate::name::ModelName;

/// Ten times the files of the largest models.
const MOST_FILES: usize = 10_000;
/// Bytes of a name: with the folder before it, no system takes much more.
const LONGEST_NAME: usize = 512;
/// Bytes of all files together: far above the largest model, and far below where sums overflow.
const MOST_BYTES: u64 = 1 << 44;
/// Names the encoding that a key is made of.
const ENCODING: &[u8] = b"hivemind manifest 1\n";
/// Bytes of the hash that make up a key: no two models meet by chance, and none is found that meets a given one.
const KEY: usize = 16;

/// The files of a model, by which two machines mean the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where it comes from on a hub, if it does.
    pub origin: Option<Origin>,
    /// The digest of a model that is on no hub: it tells apart models whose files have equal names and sizes.
    #[serde(default)]
    pub digest: Option<String>,
    /// Its files: relative names and sizes, sorted by name.
    pub files: Vec<ManifestFile>,
    /// The file that is the model, if it is GGUF: the first of a split one.
    pub gguf: Option<FileName>,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name, relative to the model's folder.
    pub name: FileName,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A model on a hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The repository, as `owner/name`.
    pub repository: String,
    /// The commit, in 40 hexadecimal digits.
    pub commit: String,
}

/// Why a manifest is none of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It has more files than any model.
    #[error("the model has {0} files; no more than {MOST_FILES} are taken")]
    TooManyFiles(usize),
    /// A name is longer than a path may be.
    #[error("the model has a file with a name of {0} bytes; no more than {LONGEST_NAME} are taken")]
    LongName(usize),
    /// A name occurs twice.
    #[error("the model has two files with the name {0}")]
    Twice(FileName),
    /// A file is where another one needs a folder.
    #[error("{0} is both a file of the model and the folder of another one")]
    Folder(FileName),
    /// More bytes than any model has.
    #[error("the model claims to have more than {MOST_BYTES} bytes")]
    TooLarge,
    /// The file that is said to be the model is not one of its files.
    #[error("{0} is not among the model's files")]
    NoSuchFile(FileName),
    /// It is no digest.
    #[error("{0:?} is not a model's digest")]
    Digest(String),
    /// No repository has this name, or no commit this id.
    #[error("{0:?} is not a commit of a repository, owner/name@commit")]
    Origin(String),
}

impl Manifest {
    /// Checks a manifest from another machine or a file, and sorts its files.
    pub fn checked(mut self) -> Result<Self, ManifestError> {
        if self.files.len() > MOST_FILES {
            return Err(ManifestError::TooManyFiles(self.files.len()));
        }
        self.files.sort_by(|one, other| one.name.cmp(&other.name));
        let names: BTreeSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let mut sum = 0_u64;
        for (index, file) in self.files.iter().enumerate() {
            if index > 0 && self.files[index - 1].name == file.name {
                return Err(ManifestError::Twice(file.name.clone()));
            }
            if file.name.as_str().len() > LONGEST_NAME {
                return Err(ManifestError::LongName(file.name.as_str().len()));
            }
            let folders = file.name.as_str().match_indices('/').map(|(end, _)| &file.name.as_str()[..end]);
            if let Some(folder) = folders.filter(|folder| names.contains(folder)).find_map(FileName::new) {
                return Err(ManifestError::Folder(folder));
            }
            sum = sum.saturating_add(file.bytes);
        }
        if sum > MOST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        if let Some(gguf) = self.gguf.as_ref().filter(|gguf| !names.contains(gguf.as_str())) {
            return Err(ManifestError::NoSuchFile(gguf.clone()));
        }
        let is_digest = |digest: &String| digest.len() <= 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Some(digest) = self.digest.as_ref().filter(|digest| !is_digest(digest)) {
            return Err(ManifestError::Digest(digest.chars().take(64).collect()));
        }
        if let Some(origin) = self.origin.as_ref().filter(|origin| origin.model().is_none()) {
            return Err(ManifestError::Origin(origin.text()));
        }
        Ok(self)
    }

    /// A key for folders: 32 hexadecimal digits of SHA-256 over everything in the manifest.
    pub fn key(&self) -> String {
        let mut hash = Context::new(&SHA256);
        hash.update(ENCODING);
        // A count before each text and each list: no two manifests have the same encoding.
        let text = |hash: &mut Context, text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        let origin = self.origin.iter().flat_map(|origin| [origin.repository.as_str(), origin.commit.as_str()]);
        for part in origin {
            text(&mut hash, part);
        }
        if self.origin.is_none() {
            hash.update(&u64::MAX.to_le_bytes());
        }
        if let Some(digest) = &self.digest {
            text(&mut hash, digest);
        }
        hash.update(&(self.files.len() as u64).to_le_bytes());
        let mut files: Vec<&ManifestFile> = self.files.iter().collect();
        files.sort_by(|one, other| one.name.cmp(&other.name));
        for file in files {
            text(&mut hash, file.name.as_str());
            hash.update(&file.bytes.to_le_bytes());
        }
        // No file has an empty name.
        text(&mut hash, self.gguf.as_ref().map_or("", FileName::as_str));
        HEXLOWER.encode(&hash.finish().as_ref()[..KEY])
    }

    /// The place of a file among all, if the model has it. The manifest must be a checked one.
    pub(crate) fn index_of(&self, file: &FileName) -> Option<usize> {
        self.files.binary_search_by(|known| known.name.cmp(file)).ok()
    }

    /// The size of a file in bytes, if the model has it. The manifest must be a checked one.
    pub fn size_of(&self, file: &FileName) -> Option<u64> {
        self.index_of(file).map(|index| self.files[index].bytes)
    }
}

impl Origin {
    /// The name to ask a hub for, if it is one.
    pub(crate) fn model(&self) -> Option<ModelName> {
        let is_commit = self.commit.len() == 40 && self.commit.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let model: ModelName = self.text().parse().ok()?;
        (is_commit && model.repository() == self.repository && model.revision() == self.commit).then_some(model)
    }

    fn text(&self) -> String {
        format!("{}@{}", self.repository, self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    fn manifest(files: &[(&str, u64)]) -> Manifest {
        let files = files.iter().map(|(file, bytes)| ManifestFile { name: name(file), bytes: *bytes }).collect();
        Manifest { origin: None, digest: None, files, gguf: None }
    }

    fn from(repository: &str, commit: &str) -> Manifest {
        let origin = Origin { repository: repository.to_owned(), commit: commit.to_owned() };
        Manifest { origin: Some(origin), ..manifest(&[("config.json", 2)]) }
    }

    #[test]
    fn a_manifest_that_cannot_be_laid_out_or_overflows_is_refused() {
        let refused = |manifest: Manifest| manifest.checked().unwrap_err();
        assert_eq!(refused(manifest(&[("a", 1), ("b", 1), ("a", 2)])), ManifestError::Twice(name("a")));
        // "a-b" sorts between a folder and what is in it.
        assert_eq!(refused(manifest(&[("a/b/c", 1), ("a-b", 1), ("a", 2)])), ManifestError::Folder(name("a")));
        assert_eq!(refused(manifest(&[("a", MOST_BYTES + 1)])), ManifestError::TooLarge);
        assert_eq!(refused(manifest(&[("a", MOST_BYTES), ("b", 1)])), ManifestError::TooLarge);
        assert_eq!(refused(manifest(&[("a", u64::MAX), ("b", u64::MAX)])), ManifestError::TooLarge);
        let many: Vec<String> = (0..=MOST_FILES).map(|index| index.to_string()).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|name| (name.as_str(), 1)).collect();
        assert_eq!(refused(manifest(&many)), ManifestError::TooManyFiles(MOST_FILES + 1));
        manifest(&many[1..]).checked().unwrap();
        let deep = "a/".repeat(LONGEST_NAME / 2) + "a";
        assert_eq!(refused(manifest(&[(&deep, 1)])), ManifestError::LongName(LONGEST_NAME + 1));
        let other = Manifest { gguf: Some(name("m.gguf")), ..manifest(&[("config.json", 2)]) };
        assert_eq!(refused(other), ManifestError::NoSuchFile(name("m.gguf")));
    }

    #[test]
    fn an_origin_is_a_repository_and_a_whole_commit() {
        let commit = "c0ffee00".repeat(5);
        from("owner/name", &commit).checked().unwrap();
        for bad in
            ["", "owner", "../name", "owner/name/more", "owner/na me", "owner/name@main", "https://hf.co/owner/name"]
        {
            assert!(matches!(from(bad, &commit).checked(), Err(ManifestError::Origin(_))), "{bad}");
        }
        for bad in ["", "main", &commit[1..], &commit.to_uppercase(), &format!("{commit}/m.gguf")] {
            assert!(matches!(from("owner/name", bad).checked(), Err(ManifestError::Origin(_))), "{bad}");
        }
    }

    #[test]
    fn a_key_tells_any_two_manifests_apart_and_stays_the_same() {
        let commit = "c0ffee00".repeat(5);
        let all = [
            manifest(&[]),
            manifest(&[("a", 1)]),
            manifest(&[("a", 2)]),
            manifest(&[("a", 1), ("b", 1)]),
            manifest(&[("ab", 1)]),
            from("owner/name", &commit),
            from("owner/nam", &commit),
            from("owner/name", &commit.replace('c', "d")),
            manifest(&[("config.json", 2)]),
            Manifest { gguf: Some(name("a")), ..manifest(&[("a", 1)]) },
        ];
        let keys: BTreeSet<String> = all.iter().map(Manifest::key).collect();
        assert_eq!(keys.len(), all.len());
        assert!(keys.iter().all(|key| key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert_eq!(manifest(&[("b", 1), ("a", 1)]).key(), all[3].key(), "the order of files means nothing");
        // Machines of other versions must find the same: this value never changes.
        assert_eq!(all[5].key(), "4289cee78f0c96a45001cf1033c91400");
    }

    #[test]
    fn a_manifest_with_an_unsafe_name_is_not_read() {
        for bad in ["../a", "/a", "a\\u0000b", "a/../b", ""] {
            let text = format!(r#"{{"origin":null,"files":[{{"name":"{bad}","bytes":1}}],"gguf":null}}"#);
            assert!(serde_json::from_str::<Manifest>(&text).is_err(), "{bad}");
        }
        let good = from("owner/name", &"c0ffee00".repeat(5));
        assert_eq!(serde_json::from_slice::<Manifest>(&serde_json::to_vec(&good).unwrap()).unwrap(), good);
    }
}
