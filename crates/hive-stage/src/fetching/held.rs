//! A model on this machine's disk, whole or in parts, as other machines can have it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use hive_store::{FileName, Manifest, ManifestFile, Origin, PartCopy, PartStore};
use hive_text::split::files_of;

/// Above the number of files in any model's folder.
const MOST_ENTRIES: usize = 10_000;

/// A model on this machine's disk.
#[derive(Debug)]
pub(crate) enum Held {
    /// All of it.
    Whole {
        /// The folder that the names in the manifest are relative to.
        folder: PathBuf,
        /// Its files.
        manifest: Box<Manifest>,
    },
    /// Parts of it.
    Parts(PartCopy),
}

impl Held {
    /// The model at a path, which has this digest.
    pub(crate) fn at(store: &PartStore, path: &Path, digest: &str) -> io::Result<Self> {
        if let Some(copy) = store.at(path) {
            return Ok(Self::Parts(copy));
        }
        let path = std::path::absolute(path)?;
        let snapshot = snapshot_of(&path);
        let folder = match &snapshot {
            Some((folder, _)) => folder.clone(),
            None if path.is_dir() => path.clone(),
            None => path.parent().unwrap_or(&path).to_owned(),
        };
        let relative = |file: &Path| file.strip_prefix(&folder).ok()?.to_str().and_then(FileName::new);
        let files = if path.is_dir() { files_in(&path)? } else { files_of(&path) };
        let files = files.into_iter().filter_map(|file| {
            let bytes = fs::metadata(&file).ok().filter(fs::Metadata::is_file)?.len();
            Some(ManifestFile { name: relative(&file)?, bytes })
        });
        let gguf = if path.is_dir() { None } else { files_of(&path).first().and_then(|file| relative(file)) };
        let origin = snapshot.map(|(_, origin)| origin);
        let digest = if origin.is_none() { Some(digest.to_owned()) } else { None };
        let manifest = Manifest { origin, digest, files: files.collect(), gguf };
        let manifest = Box::new(manifest.checked().map_err(io::Error::other)?);
        Ok(Self::Whole { folder, manifest })
    }

    /// Its files.
    pub(crate) fn manifest(&self) -> &Manifest {
        match self {
            Self::Whole { manifest, .. } => manifest,
            Self::Parts(copy) => copy.manifest(),
        }
    }

    /// Whether it is this file that the model has under this name.
    pub(crate) fn has(&self, name: &FileName, bytes: u64) -> bool {
        self.manifest().files.iter().any(|file| file.name == *name && file.bytes == bytes)
    }

    /// What is here of a range of a file.
    pub(crate) fn present(&self, file: &FileName, range: Range<u64>) -> Vec<Range<u64>> {
        match self {
            Self::Whole { .. } => vec![range],
            Self::Parts(copy) => copy.present(file, range),
        }
    }

    /// Reads as many bytes as `bytes` is long, which are here, from `at` on.
    pub(crate) fn read(&self, file: &FileName, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Whole { folder, .. } => File::open(folder.join(file.as_str()))?.read_exact_at(bytes, at),
            Self::Parts(copy) => copy.read_into(file, at, bytes),
        }
    }
}

/// Whether a file holds tensors, of which a machine needs a part; every other file is needed whole.
pub(crate) fn is_weights(file: &FileName) -> bool {
    [".safetensors", ".gguf"].iter().any(|kind| file.as_str().ends_with(kind))
}

/// The files in a folder that belong to a model, by their usual names: nothing else that somebody keeps there is given away.
fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let belongs = |name: &str| {
        let beginnings = ["tokenizer", "vocab.", "merges.", "chat_template.", "spiece."];
        let names = ["config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json"];
        [".safetensors", ".safetensors.index.json", ".tiktoken"].iter().any(|end| name.ends_with(end))
            || beginnings.iter().any(|start| name.starts_with(start))
            || names.contains(&name)
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)?.take(MOST_ENTRIES) {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && belongs(name)) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The snapshot in a cache of models that a path lies in, and where it comes from.
fn snapshot_of(path: &Path) -> Option<(PathBuf, Origin)> {
    let names: Vec<&str> = path
        .components()
        .map(|part| if let Component::Normal(name) = part { name.to_str() } else { Some("") })
        .collect::<Option<_>>()?;
    let at = names.iter().rposition(|name| *name == "snapshots")?;
    let (repository, commit) = (names.get(at.checked_sub(1)?)?.strip_prefix("models--")?, names.get(at + 1)?);
    let (owner, name) = repository.split_once("--")?;
    let origin = Origin { repository: format!("{owner}/{name}"), commit: (*commit).to_owned() };
    let is_commit = commit.len() == 40 && commit.bytes().all(|digit| digit.is_ascii_hexdigit());
    let folder: PathBuf = path.components().take(at + 2).collect();
    is_commit.then_some((folder, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(held: &Held) -> Vec<&str> {
        held.manifest().files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn a_folder_of_ones_own_has_no_origin_and_gives_no_programs_away() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "config.json",
            "model.safetensors",
            "modeling.py",
            ".hidden.json",
            "weights.bin",
            "passwords.txt",
            "train.json",
        ] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let store = PartStore::new(folder.path().join("parts"));
        let held = Held::at(&store, folder.path(), "d1635e").unwrap();
        assert_eq!(names(&held), ["config.json", "model.safetensors"]);
        assert_eq!((&held.manifest().origin, &held.manifest().gguf), (&None, &None));
        let tuned = Held::at(&store, folder.path(), "0de").unwrap();
        assert_ne!(tuned.manifest().key(), held.manifest().key(), "files of equal names and sizes, tuned again");
        let file = FileName::new("model.safetensors").unwrap();
        assert!(held.has(&file, 17) && !held.has(&file, 18));
        let mut bytes = [0; 11];
        held.read(&file, 6, &mut bytes).unwrap();
        assert_eq!(&bytes, b"safetensors");
    }

    #[test]
    fn a_model_in_a_cache_says_which_commit_of_which_repository_it_is() {
        let cache = tempfile::tempdir().unwrap();
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let snapshot = cache.path().join("models--owner--some-name/snapshots").join(commit);
        fs::create_dir_all(snapshot.join("Q8_0")).unwrap();
        for part in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] {
            fs::write(snapshot.join("Q8_0").join(part), "GGUF").unwrap();
        }
        let store = PartStore::new(cache.path().join("parts"));
        let held = Held::at(&store, &snapshot.join("Q8_0/m-00001-of-00002.gguf"), "d1635e").unwrap();
        assert_eq!(names(&held), ["Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"]);
        assert_eq!(held.manifest().gguf.as_ref().unwrap().as_str(), "Q8_0/m-00001-of-00002.gguf");
        let origin = held.manifest().origin.clone().unwrap();
        assert_eq!((origin.repository.as_str(), origin.commit.as_str()), ("owner/some-name", commit));
    }
}
