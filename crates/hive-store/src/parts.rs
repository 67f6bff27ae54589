//! The store of parts: where a machine keeps only those byte ranges of a model's files that its layers need.
//!
//! A [`Manifest`] identifies the model, and a [`PartCopy`] holds its parts. Files are sparse and have their full
//! length, so that readers use them as if they were whole, and touch only the ranges fetched before.
//!
//! ```text
//! <key>/manifest.json     the manifest; the key is its hash
//!       model/<file>      sparse contents of full length
//!       map/<file>        a bit for each block of 4 KiB: whether it is present
//!       unsynced          where a power cut may have left bits without their contents
//! <key>.lock              held during each change
//! <key>.fetch.lock        held while something is fetched from a hub
//! ```
//!
//! The maps are right after `kill -9` at any moment. After a power cut they are right, too, except that the last
//! gigabyte is discarded unless [`PartCopy::sync`] has returned. A file that has the wrong length, or whose map has,
//! counts as
//! empty. Folders and files are the user's alone, and no link in them is followed.

mod blocks;
mod copy;
mod disk;
mod file;
mod journal;
mod manifest;
mod of_hub;
mod space;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::cache::{LEFT_FREE, free};

pub use blocks::BLOCK;
pub use copy::{Coming, Confirming, InUse, Known, PartCopy};
pub use manifest::{Manifest, ManifestError, ManifestFile, Origin};
pub use space::{NoRoom, Space};

/// A copy that has no name, and of which nothing came for this long, is left over.
const LEFT_OVER: Duration = Duration::from_hours(7 * 24);

/// All copies of parts in one folder.
#[derive(Debug, Clone)]
pub struct PartStore {
    root: PathBuf,
}

impl PartStore {
    /// The store in this folder, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The copy of this model; an empty one is made if there is none.
    pub fn open(&self, manifest: &Manifest) -> io::Result<PartCopy> {
        let invalid = |error: ManifestError| io::Error::new(io::ErrorKind::InvalidInput, error);
        let manifest = manifest.clone().checked().map_err(invalid)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        PartCopy::open(self.root.canonicalize()?.join(manifest.key()), manifest)
    }

    /// Whether there is a copy of this model.
    pub fn has(&self, manifest: &Manifest) -> bool {
        self.root.join(manifest.key()).exists()
    }

    /// Every copy on the disk, except damaged ones.
    pub fn copies(&self) -> Vec<PartCopy> {
        let Ok(root) = self.root.canonicalize() else { return Vec::new() };
        let mut folders: Vec<PathBuf> =
            fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.sort();
        folders.into_iter().filter_map(PartCopy::there).collect()
    }

    /// The copy that holds this path, if it is one of this store's.
    pub fn at(&self, path: &Path) -> Option<PartCopy> {
        let root = self.root.canonicalize().ok()?;
        let below = path.strip_prefix(&root).or_else(|_| path.strip_prefix(&self.root)).ok()?;
        let mut parts = below.components();
        let Some(Component::Normal(key)) = parts.next() else { return None };
        // A path that leads upwards may lead out of the copy.
        parts.all(|part| matches!(part, Component::Normal(_))).then(|| PartCopy::there(root.join(key)))?
    }

    /// Deletes a copy, unless somebody in this process has begun to use it. Returns whether it is gone.
    ///
    /// Processes that have its files open or mapped keep the contents; for all others they are gone.
    pub fn remove_unused(&self, copy: &PartCopy) -> io::Result<bool> {
        self.check_ours(copy)?;
        copy.delete_unused()
    }

    fn check_ours(&self, copy: &PartCopy) -> io::Result<()> {
        let is_ours = self.root.canonicalize().is_ok_and(|root| copy.folder().parent() == Some(&*root));
        if is_ours { Ok(()) } else { Err(io::Error::other("the copy is not in this store")) }
    }

    /// The copies to evict, so that there is room for `needed` bytes.
    pub fn leaving(&self, needed: u64, space: Space) -> Result<Vec<PartCopy>, NoRoom> {
        let copies = self.copies();
        let kept: Vec<_> = copies.iter().map(PartCopy::kept).collect();
        let leaving = space::leaving(&kept, needed, space)?;
        Ok(leaving.into_iter().map(|place| copies[place].clone()).collect())
    }

    /// Deletes copies without an outline whose fetch was stopped long ago: nothing can use them.
    pub fn remove_orphans(&self) {
        let is_left_over = |copy: &PartCopy| {
            copy.known().is_none() && copy.changed().elapsed().is_ok_and(|unchanged| unchanged > LEFT_OVER)
        };
        for copy in self.copies().into_iter().filter(is_left_over) {
            // It stays if the disk refuses.
            let _ = copy.delete_unused();
        }
    }

    /// Bytes that may still be written: the disk's free space, minus the reserve for other programs.
    pub fn room(&self) -> io::Result<u64> {
        Ok(free(&self.root)?.saturating_sub(LEFT_FREE))
    }
}
