//! One model's parts on the disk: sparse files of full length, and a map of the blocks that are present.
//!
//! The maps on the disk are the only state. Every query reads them, so all clones, threads and processes agree at any
//! moment. A writer holds the copy's lock for that one write, and other writers wait for it; readers wait for nobody.
//! Contents are written before their bits: a process that is killed at any byte leaves no bit without its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::blocks::{BLOCK, bytes, touched, whole};
use super::disk::{self, Access, KNOWN, WAS_KNOWN};
use super::file::PartFile;
use super::journal::Journal;
use super::manifest::Manifest;
use super::space::Kept;
use crate::cache::lock::Lock;
use crate::cache::replace;
use crate::file_name::FileName;

/// The file in a copy's folder that says which model it is of.
const MANIFEST: &str = "manifest.json";
/// Above the length of any such file, in bytes.
const LONGEST_KNOWN: u64 = 4096;
/// The longest manifest in bytes: ten thousand files with long names.
const LONGEST_MANIFEST: u64 = 16 << 20;

/// One model's parts. Clones share state, and so does everything in this process that opens the same copy.
///
/// All methods touch files: call them beside the runtime.
#[derive(Debug, Clone)]
pub struct PartCopy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    manifest: Manifest,
    /// Held with the lock, which two threads of one process would share on a file system without locks.
    writing: Mutex<()>,
    /// One more than the number of those who use it. Counted under `writing`, so that what begins to be used stays.
    users: Arc<()>,
    /// Bytes that are being fetched.
    pending: AtomicU64,
    /// The number of those who have the hub confirm it. Counted under `writing`.
    confirming: AtomicU64,
}

/// Protects a copy from eviction, in this process. Held while it is computed with or fetched into.
#[derive(Debug)]
pub struct InUse {
    copy: PartCopy,
    _user: Arc<()>,
}

impl Drop for InUse {
    /// It was used until now, however long ago that began.
    fn drop(&mut self) {
        self.copy.mark_used();
    }
}

/// Keeps other machines from writing into a copy while the hub confirms its contents.
#[derive(Debug)]
pub struct Confirming(PartCopy);

impl Drop for Confirming {
    fn drop(&mut self) {
        self.0.0.confirming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes reserved for a fetch into a copy, counted until they are written or this is dropped.
#[derive(Debug)]
pub struct Coming {
    copy: PartCopy,
    left: u64,
}

impl Coming {
    /// Notes how many bytes are still to come.
    pub fn left(&mut self, bytes: u64) {
        let pending = &self.copy.0.pending;
        pending.fetch_add(bytes, Ordering::Relaxed);
        pending.fetch_sub(std::mem::replace(&mut self.left, bytes), Ordering::Relaxed);
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.left(0);
    }
}

/// The identity of a copy's model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its digest.
    pub digest: String,
    /// The requested revision, if the hub itself confirmed that these are the model's files: only then may it have its
    /// repository's name. Another machine's word is not enough.
    pub revision: Option<String>,
    /// Whether the hub gave some of it to this machine without a token, so that anybody may have it.
    #[serde(default)]
    pub is_public: bool,
}

/// The lock held while a copy is changed.
struct Changing<'a> {
    _lock: Lock,
    _here: MutexGuard<'a, ()>,
}

/// The copies that this process has open, by folder.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

impl PartCopy {
    /// The copy in `folder`, whose parent exists; it is made if there is none.
    pub(super) fn open(folder: PathBuf, manifest: Manifest) -> io::Result<Self> {
        let copy = Self::shared(folder, manifest);
        copy.make()?;
        Ok(copy)
    }

    /// The copy that is in `folder`, if one is. The folder's name must be its manifest's key.
    pub(super) fn there(folder: PathBuf) -> Option<Self> {
        let manifest: Manifest = serde_json::from_slice(&stored(&folder)?).ok()?;
        let manifest = manifest.checked().ok()?;
        if folder.file_name()? != manifest.key().as_str() {
            return None;
        }
        let copy = Self::shared(folder, manifest);
        if copy.journal().is_stale() {
            let _changing = copy.change().ok()?;
            copy.journal().recover(copy.manifest()).ok()?;
        }
        Some(copy)
    }

    fn shared(folder: PathBuf, manifest: Manifest) -> Self {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = open.get(&folder).and_then(Weak::upgrade) {
            return Self(shared);
        }
        open.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared {
            folder: folder.clone(),
            manifest,
            writing: Mutex::new(()),
            users: Arc::default(),
            pending: AtomicU64::default(),
            confirming: AtomicU64::default(),
        });
        open.insert(folder, Arc::downgrade(&shared));
        Self(shared)
    }

    /// The model's files.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// What readers open: the folder, or the GGUF file (the first of a split one).
    pub fn path(&self) -> PathBuf {
        let folder = self.0.folder.join("model");
        self.0.manifest.gguf.as_ref().map_or_else(|| folder.clone(), |gguf| gguf.below(&folder))
    }

    /// The missing parts of a file's range, widened to whole blocks (the file's end ends the last one), merged.
    ///
    /// All of the range, as it is, of a file that the model does not have.
    pub fn missing(&self, file: &FileName, range: Range<u64>) -> Vec<Range<u64>> {
        let Some(size) = self.0.manifest.size_of(file) else { return vec![range] };
        let blocks = touched(&range, size);
        let missing = self.file(file, size).runs(&blocks, false).unwrap_or_else(|_| vec![blocks]);
        missing.iter().map(|blocks| bytes(blocks, size)).filter(|range| !range.is_empty()).collect()
    }

    /// The parts of a file's range that are present: whole blocks, merged.
    pub fn present(&self, file: &FileName, range: Range<u64>) -> Vec<Range<u64>> {
        let Some(size) = self.0.manifest.size_of(file) else { return Vec::new() };
        let present = self.file(file, size).runs(&touched(&range, size), true).unwrap_or_default();
        present.iter().map(|blocks| bytes(blocks, size)).collect()
    }

    /// Bytes present, of all files.
    pub fn bytes(&self) -> u64 {
        let files = self.0.manifest.files.iter();
        files.flat_map(|file| self.present(&file.name, 0..file.bytes)).map(|range| range.end - range.start).sum()
    }

    /// Marks the copy as used now, and keeps it until the result is dropped.
    pub fn in_use(&self) -> InUse {
        let user = {
            let _here = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.users.clone()
        };
        self.mark_used();
        InUse { copy: self.clone(), _user: user }
    }

    fn mark_used(&self) {
        // On a disk that keeps no times, it may be evicted sooner.
        let _ =
            disk::open(&self.0.folder, MANIFEST, Access::Read).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Refuses bytes from other machines until the result is dropped.
    pub fn confirming(&self) -> Confirming {
        let _here = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.confirming.fetch_add(1, Ordering::Relaxed);
        Confirming(self.clone())
    }

    /// Bytes that are being fetched.
    pub fn pending(&self) -> u64 {
        self.0.pending.load(Ordering::Relaxed)
    }

    /// Reserves space for bytes before they are written.
    pub fn expect(&self, bytes: u64) -> Coming {
        let mut coming = Coming { copy: self.clone(), left: 0 };
        coming.left(bytes);
        coming
    }

    /// Its size and use, for evictions.
    pub(super) fn kept(&self) -> Kept {
        let about = fs::metadata(self.0.folder.join(MANIFEST)).and_then(|about| about.modified());
        Kept {
            bytes: self.bytes(),
            pending: self.pending(),
            used: about.unwrap_or(SystemTime::UNIX_EPOCH),
            in_use: self.is_used(),
        }
    }

    fn is_used(&self) -> bool {
        Arc::strong_count(&self.0.users) > 1
    }

    /// When it was last used or written.
    pub(super) fn changed(&self) -> SystemTime {
        let modified = |path: PathBuf| fs::metadata(path).and_then(|about| about.modified()).ok();
        let files = self.0.manifest.files.iter();
        let maps = files.filter_map(|file| modified(file.name.below(&self.0.folder.join("map"))));
        maps.chain(modified(self.0.folder.join(MANIFEST))).max().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.0.manifest.files.iter().all(|file| self.missing(&file.name, 0..file.bytes).is_empty())
    }

    /// Writes whole blocks: `at` is a multiple of [`BLOCK`], and the end is one, too, or the file's end.
    pub fn write(&self, file: &FileName, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_if(file, at, bytes, || Ok(()))
    }

    /// The same with bytes from another machine. An error of the kind `ResourceBusy` while the hub confirms the
    /// contents.
    pub fn write_unconfirmed(&self, file: &FileName, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_if(file, at, bytes, || self.check_unconfirmed())
    }

    /// The same, and an error also if the model is known by now.
    pub fn write_unknown(&self, file: &FileName, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_if(file, at, bytes, || self.check_unknown())
    }

    fn check_unconfirmed(&self) -> io::Result<()> {
        match self.0.confirming.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::ResourceBusy, "the hub is being asked for this model")),
        }
    }

    fn check_unknown(&self) -> io::Result<()> {
        self.check_unconfirmed()?;
        match self.known() {
            None => Ok(()),
            Some(_) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "this model is known here by now")),
        }
    }

    fn write_if(&self, file: &FileName, at: u64, bytes: &[u8], may: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let size = self.size_of(file)?;
        let range = at..at.saturating_add(bytes.len() as u64);
        let blocks = whole(&range, size).ok_or_else(|| {
            let why = format!("{} to {} of {file} are not whole blocks of {BLOCK} bytes", range.start, range.end);
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        let _changing = self.change()?;
        may()?;
        let open = self.file(file, size).open()?;
        self.journal().note(&self.0.manifest, file, &range)?;
        open.contents.write_all_at(bytes, at)?;
        open.set(&blocks, true)
    }

    /// Reads bytes that are there; an error of the kind `NotFound` if some are not.
    pub fn read(&self, file: &FileName, range: Range<u64>) -> io::Result<Vec<u8>> {
        let size = self.present_within(file, &range)?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file(file, size).read(&mut bytes, range.start)?;
        Ok(bytes)
    }

    /// Reads as many bytes as `bytes` is long, from `at` on. Errors as for [`Self::read`].
    pub fn read_into(&self, file: &FileName, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let size = self.present_within(file, &(at..at.saturating_add(bytes.len() as u64)))?;
        self.file(file, size).read(bytes, at)
    }

    /// The size of a file that is here in this range.
    fn present_within(&self, file: &FileName, range: &Range<u64>) -> io::Result<u64> {
        let size = self.size_of(file)?;
        if range.start > range.end || range.end > size {
            let why = format!("{file} ends at {size}, before {}", range.end);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if let Some(missing) = self.missing(file, range.clone()).first() {
            let why = format!("bytes {} to {} of {file} are not on this machine", missing.start, missing.end);
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(size)
    }

    /// Forgets the blocks that a range touches: they were wrong.
    pub fn forget(&self, file: &FileName, range: Range<u64>) -> io::Result<()> {
        self.forget_if(file, range, || Ok(()))
    }

    /// The same, unless the hub is confirming the contents, or the model is known by now: an error of the kind
    /// `ResourceBusy`.
    pub fn forget_unknown(&self, file: &FileName, range: Range<u64>) -> io::Result<()> {
        self.forget_if(file, range, || self.check_unknown())
    }

    fn forget_if(&self, file: &FileName, range: Range<u64>, may: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let size = self.size_of(file)?;
        let _changing = self.change()?;
        may()?;
        let open = self.file(file, size).open()?;
        open.set(&touched(&range, size), false)?;
        open.map.sync_data()
    }

    /// Waits until all writes would survive a power cut. Without it, the last gigabyte may be lost.
    pub fn sync(&self) -> io::Result<()> {
        let _changing = self.change()?;
        self.journal().settle(&self.0.manifest)
    }

    /// Records the model's identity, once enough is here to determine it.
    pub fn settle(&self, known: &Known) -> io::Result<()> {
        let text = serde_json::to_vec(known)?;
        let _changing = self.change()?;
        replace(&self.0.folder.join(KNOWN), |new| {
            fs::write(new, &text)?;
            File::open(new)?.sync_all()
        })?;
        self.forget_known(WAS_KNOWN)
    }

    /// Discards the model's identity: the bytes that determined it are gone.
    pub fn unsettle(&self) -> io::Result<()> {
        let _changing = self.change()?;
        self.forget_known(KNOWN)?;
        self.forget_known(WAS_KNOWN)
    }

    fn forget_known(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.0.folder.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The model's identity, if enough is here to determine it.
    pub fn known(&self) -> Option<Known> {
        self.known_by(KNOWN)
    }

    /// The same, or its identity before a power cut destroyed some of its bytes.
    pub fn was_known(&self) -> Option<Known> {
        self.known().or_else(|| self.known_by(WAS_KNOWN))
    }

    fn known_by(&self, file: &str) -> Option<Known> {
        let file = disk::open(&self.0.folder, file, Access::Read).ok()?;
        let known: Known = serde_json::from_reader(io::Read::take(file, LONGEST_KNOWN)).ok()?;
        (!known.digest.is_empty() && known.digest.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(known)
    }

    /// Deletes everything. If that is interrupted, an empty copy remains, which can be deleted again.
    pub fn delete(&self) -> io::Result<()> {
        let _changing = self.change()?;
        self.clear()
    }

    /// Deletes everything, unless somebody has begun to use it. Returns whether it is gone.
    pub(super) fn delete_unused(&self) -> io::Result<bool> {
        let _changing = self.change()?;
        if self.is_used() {
            return Ok(false);
        }
        self.clear().map(|()| true)
    }

    fn clear(&self) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        gone(fs::remove_file(self.0.folder.join(KNOWN)))?;
        // Without its map, nothing counts as present.
        gone(fs::remove_dir_all(self.0.folder.join("map")))?;
        gone(fs::remove_dir_all(self.0.folder.join("model")))?;
        gone(fs::remove_dir_all(&self.0.folder))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// The lock of a fetch into the copy, so that nothing is downloaded twice.
    pub(crate) fn fetch_lock(&self) -> PathBuf {
        self.0.folder.with_extension("fetch.lock")
    }

    /// Creates missing files and folders.
    fn make(&self) -> io::Result<()> {
        let _changing = self.change()?;
        let Shared { folder, manifest, .. } = &*self.0;
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !fs::symlink_metadata(folder)?.is_dir() {
            return Err(io::Error::other(format!("{} is not a folder", folder.display())));
        }
        let text = serde_json::to_vec(manifest)?;
        if stored(folder).as_ref() != Some(&text) {
            replace(&folder.join(MANIFEST), |new| fs::write(new, &text))?;
        }
        let mut files = BTreeSet::new();
        for file in &manifest.files {
            let contents = self.file(&file.name, file.bytes).open()?.contents.metadata()?;
            // A disk that takes "a" and "A" for one name would mix their contents.
            if !files.insert((contents.dev(), contents.ino())) {
                return Err(io::Error::other(format!(
                    "two names, one of them {}, are one file on this disk",
                    file.name
                )));
            }
        }
        self.journal().recover(manifest)?;
        // A folder is a model even if all its files are elsewhere, as none are: readers open it.
        match fs::DirBuilder::new().mode(0o700).create(folder.join("model")) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn file<'a>(&'a self, name: &'a FileName, size: u64) -> PartFile<'a> {
        PartFile { folder: &self.0.folder, name, size }
    }

    fn journal(&self) -> Journal<'_> {
        Journal { folder: &self.0.folder }
    }

    fn size_of(&self, file: &FileName) -> io::Result<u64> {
        let no_file = || io::Error::new(io::ErrorKind::InvalidInput, format!("the model has no file {file}"));
        self.0.manifest.size_of(file).ok_or_else(no_file)
    }

    /// Waits until nobody else changes the copy.
    fn change(&self) -> io::Result<Changing<'_>> {
        let here = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Beside the folder, so that it holds while the folder is deleted and made again.
        Ok(Changing { _lock: Lock::wait(&self.0.folder.with_extension("lock"))?, _here: here })
    }
}

/// The manifest's text in a copy's folder, if it is there.
fn stored(folder: &Path) -> Option<Vec<u8>> {
    let file = disk::open(folder, MANIFEST, Access::Read).ok()?;
    let mut text = Vec::new();
    file.take(LONGEST_MANIFEST).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
// A list of one range is meant.
#[allow(clippy::single_range_in_vec_init)]
mod tests;
