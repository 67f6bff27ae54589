//! A repository's place in the cache, in the layout of Hugging Face's.
//!
//! ```text
//! models--owner--name/blobs/<checksum>                      contents, each once
//!                     snapshots/<commit>/config.json        relative links to blobs
//!                     refs/main                             the commit that a branch pointed to
//! .locks/models--owner--name/<checksum>.lock                held while a blob is written
//! ```
//!
//! Files appear in it whole or not at all: unfinished ones are in `blobs/<checksum>.hivemind.incomplete`, a name of our
//! own, because older versions of `huggingface_hub` treat a partial `<checksum>.incomplete` as complete.

pub(crate) mod lock;
pub(crate) mod partial;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checksum::Checksum;
use crate::file_name::FileName;
use crate::hub::RemoteFile;
use crate::name::ModelName;

/// Bytes that a download leaves free on the disk: a full disk breaks other programs.
pub(crate) const LEFT_FREE: u64 = 64 << 20;

/// The state of a file in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is in the snapshot.
    Linked,
    /// Its contents are there, from another revision or an interrupted fetch.
    Blob,
    /// It must be fetched.
    Missing,
}

/// A model repository in a cache.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub(crate) fn new(cache: &Path, model: &ModelName) -> Self {
        let name = format!("models--{}--{}", model.owner, model.name);
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The folder of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file with these contents.
    pub(crate) fn blob(&self, checksum: &Checksum) -> PathBuf {
        self.folder.join("blobs").join(checksum.blob())
    }

    /// The file that is to have these contents.
    pub(crate) fn incomplete(&self, checksum: &Checksum) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.hivemind.incomplete", checksum.blob()))
    }

    /// The first bytes of it, as an older `huggingface_hub` left them.
    pub(crate) fn left_over(&self, checksum: &Checksum) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", checksum.blob()))
    }

    pub(crate) fn lock(&self, checksum: &Checksum) -> PathBuf {
        self.locks.join(format!("{}.lock", checksum.blob()))
    }

    /// The state of a file. A file of the wrong size counts as missing.
    pub(crate) fn presence(&self, commit: &str, file: &RemoteFile) -> Presence {
        let is_there =
            |path: PathBuf| fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == file.bytes);
        if is_there(file.name.below(&self.snapshot(commit))) {
            Presence::Linked
        } else if is_there(self.blob(&file.checksum)) {
            Presence::Blob
        } else {
            Presence::Missing
        }
    }

    /// Makes the folders for blobs and locks.
    pub(crate) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("blobs"))?;
        fs::create_dir_all(&self.locks)
    }

    /// Shows a blob in the snapshot of a commit.
    pub(crate) fn link(&self, commit: &str, name: &FileName, checksum: &Checksum) -> io::Result<()> {
        let pointer = name.below(&self.snapshot(commit));
        let up = "../".repeat(name.depth() + 2);
        let target = format!("{up}blobs/{}", checksum.blob());
        if fs::read_link(&pointer).is_ok_and(|found| found.as_os_str() == target.as_str()) {
            return Ok(());
        }
        let parent = pointer.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent)?;
        replace(&pointer, |new| std::os::unix::fs::symlink(&target, new))
    }

    /// Notes the commit of a branch or tag.
    pub(crate) fn refer(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.folder.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        replace(&path, |new| fs::write(new, commit))
    }
}

/// Makes a file beside another and puts it in its place, so that readers see the old one or the new one.
pub(crate) fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => make(&new)?,
    }
    fs::rename(&new, path)
}

/// Bytes that may be written to the disk of a folder, which need not exist yet.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(there)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(cache: &Path) -> Repository {
        Repository::new(cache, &"owner/name".parse().unwrap())
    }

    #[test]
    fn a_snapshot_links_to_blobs_relatively_and_replaces_what_is_in_the_way() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(cache.path());
        repository.make().unwrap();
        let checksum = Checksum::of_etag("abc").unwrap();
        fs::write(repository.blob(&checksum), "contents").unwrap();
        for name in ["config.json", "Q4/deep/a.gguf"] {
            let name = FileName::new(name).unwrap();
            let file = RemoteFile { name: name.clone(), bytes: 8, checksum: checksum.clone() };
            assert_eq!(repository.presence("c0", &file), Presence::Blob);
            let pointer = name.below(&repository.snapshot("c0"));
            fs::create_dir_all(pointer.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink("nowhere", &pointer).unwrap();
            for _ in 0..2 {
                repository.link("c0", &name, &checksum).unwrap();
                assert_eq!(repository.presence("c0", &file), Presence::Linked);
            }
            assert!(fs::read_link(&pointer).unwrap().starts_with(".."));
            assert_eq!(fs::read_to_string(&pointer).unwrap(), "contents");
            let other = RemoteFile { bytes: 9, ..file };
            assert_eq!(repository.presence("c0", &other), Presence::Missing);
        }
        // Links hold where the cache is moved to.
        let moved = cache.path().join("moved");
        fs::rename(cache.path().join("models--owner--name"), &moved).unwrap();
        assert_eq!(fs::read_to_string(moved.join("snapshots/c0/config.json")).unwrap(), "contents");
    }

    #[test]
    fn a_branch_is_noted_with_its_commit() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(cache.path());
        for commit in ["c0", "c1", "c1"] {
            repository.refer("refs/pr/1", commit).unwrap();
            let noted = cache.path().join("models--owner--name/refs/refs/pr/1");
            assert_eq!(fs::read_to_string(noted).unwrap(), commit);
        }
        repository.refer("c2", "c2").unwrap();
        assert!(!cache.path().join("models--owner--name/refs/c2").exists());
    }
}
