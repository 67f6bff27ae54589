//! One model's parts on the disk: its files at full length with holes, and a map of what is there.
//!
//! The maps on the disk are the only memory. Whoever asks reads them, so all clones, threads and processes agree at any
//! moment. Whoever writes holds the copy's lock for that one write, and others wait for it; readers wait for nobody.
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
    /// Bytes that are being fetched, and not there yet.
    pending: AtomicU64,
    /// The number of those who have the hub confirm it. Counted under `writing`.
    confirming: AtomicU64,
}

/// Keeps a copy from making room for others, in this process. Whoever computes with it, or fetches into it, holds this.
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

/// Keeps other machines from writing into a copy while the hub confirms what is in it.
#[derive(Debug)]
pub struct Confirming(PartCopy);

impl Drop for Confirming {
    fn drop(&mut self) {
        self.0.0.confirming.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are about to come into a copy, counted until they are there or this is dropped.
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

/// What a model is known as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its digest.
    pub digest: String,
    /// The revision that was asked for, if the hub itself said that these are the model's files: then it may be called by
    /// its repository's name. Another machine may say anything.
    pub revision: Option<String>,
    /// Whether the hub gave some of it to this machine without a token, so that anybody may have it.
    #[serde(default)]
    pub is_public: bool,
}

/// What is held while a copy is changed.
struct Changing<'a> {
    _lock: Lock,
    _here: MutexGuard<'a, ()>,
}

/// What this process has open, by folder.
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

    /// What is missing of a range of a file, widened to whole blocks (the file's end ends the last one), merged.
    ///
    /// All of the range, as it is, of a file that the model does not have.
    pub fn missing(&self, file: &FileName, range: Range<u64>) -> Vec<Range<u64>> {
        let Some(size) = self.0.manifest.size_of(file) else { return vec![range] };
        let blocks = touched(&range, size);
        let missing = self.file(file, size).runs(&blocks, false).unwrap_or_else(|_| vec![blocks]);
        missing.iter().map(|blocks| bytes(blocks, size)).filter(|range| !range.is_empty()).collect()
    }

    /// What is there of a range of a file: whole blocks, merged.
    pub fn present(&self, file: &FileName, range: Range<u64>) -> Vec<Range<u64>> {
        let Some(size) = self.0.manifest.size_of(file) else { return Vec::new() };
        let present = self.file(file, size).runs(&touched(&range, size), true).unwrap_or_default();
        present.iter().map(|blocks| bytes(blocks, size)).collect()
    }

    /// Bytes that are there, of all files.
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
        // On a disk that keeps no times, it may make room for others sooner.
        let _ =
            disk::open(&self.0.folder, MANIFEST, Access::Read).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Refuses what other machines send, until the result is dropped.
    pub fn confirming(&self) -> Confirming {
        let _here = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.confirming.fetch_add(1, Ordering::Relaxed);
        Confirming(self.clone())
    }

    /// Bytes that are being fetched, and not there yet.
    pub fn pending(&self) -> u64 {
        self.0.pending.load(Ordering::Relaxed)
    }

    /// Counts bytes that are about to come, before they are there.
    pub fn expect(&self, bytes: u64) -> Coming {
        let mut coming = Coming { copy: self.clone(), left: 0 };
        coming.left(bytes);
        coming
    }

    /// What it takes, and whether it may go.
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

    /// When it was last used, or something of it came.
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

    /// The same with what another machine has sent. An error of the kind `ResourceBusy` while the hub confirms what is here.
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
        let size = self.size_of(file)?;
        if range.start > range.end || range.end > size {
            let why = format!("{file} ends at {size}, before {}", range.end);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if let Some(missing) = self.missing(file, range.clone()).first() {
            let why = format!("bytes {} to {} of {file} are not on this machine", missing.start, missing.end);
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file(file, size).read(&mut bytes, range.start)?;
        Ok(bytes)
    }

    /// Forgets the blocks that a range touches: they were wrong.
    pub fn forget(&self, file: &FileName, range: Range<u64>) -> io::Result<()> {
        self.forget_if(file, range, || Ok(()))
    }

    /// The same, unless the hub confirms what is here, or the model is known by now: an error of the kind `ResourceBusy`.
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

    /// Waits until everything that was written outlasts a power cut. Without it, at most the last gigabyte does not.
    pub fn sync(&self) -> io::Result<()> {
        let _changing = self.change()?;
        self.journal().settle(&self.0.manifest)
    }

    /// Notes what the model is known as, once enough is here to tell it.
    pub fn settle(&self, known: &Known) -> io::Result<()> {
        let text = serde_json::to_vec(known)?;
        let _changing = self.change()?;
        replace(&self.0.folder.join(KNOWN), |new| {
            fs::write(new, &text)?;
            File::open(new)?.sync_all()
        })?;
        self.forget_known(WAS_KNOWN)
    }

    /// Forgets what the model is known as: what told it is not here any more.
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

    /// What the model is known as, if enough is here to tell it.
    pub fn known(&self) -> Option<Known> {
        self.known_by(KNOWN)
    }

    /// The same, or what it was known as before a power cut took some of it.
    pub fn was_known(&self) -> Option<Known> {
        self.known().or_else(|| self.known_by(WAS_KNOWN))
    }

    fn known_by(&self, file: &str) -> Option<Known> {
        let file = disk::open(&self.0.folder, file, Access::Read).ok()?;
        let known: Known = serde_json::from_reader(io::Read::take(file, LONGEST_KNOWN)).ok()?;
        (!known.digest.is_empty() && known.digest.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(known)
    }

    /// Deletes everything. What ends half-way is an empty copy, which can be deleted again.
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
        // Without its map, nothing counts as there.
        gone(fs::remove_dir_all(self.0.folder.join("map")))?;
        gone(fs::remove_dir_all(self.0.folder.join("model")))?;
        gone(fs::remove_dir_all(&self.0.folder))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// The lock of whoever fetches into the copy, so that nobody fetches what another is bringing.
    pub(crate) fn fetch_lock(&self) -> PathBuf {
        self.0.folder.with_extension("fetch.lock")
    }

    /// Makes what is not there yet.
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
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::parts::{ManifestFile, NoRoom, PartStore, Space};

    const SIZE: u64 = 10 * BLOCK + 7;

    fn name(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    /// A model of two files.
    fn manifest() -> Manifest {
        let file = |file: &str, bytes| ManifestFile { name: name(file), bytes };
        let files = vec![file("config.json", 5), file("deep/er/m.gguf", SIZE)];
        Manifest { origin: None, digest: None, files, gguf: Some(name("deep/er/m.gguf")) }
    }

    fn gguf() -> FileName {
        name("deep/er/m.gguf")
    }

    /// A store in a folder that ends with it.
    fn store() -> (tempfile::TempDir, PartStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = PartStore::new(folder.path().join("new/parts"));
        (folder, store)
    }

    /// What this process would find after a start: nothing is shared with what is open.
    fn reopened(store: &PartStore) -> PartCopy {
        OPEN.lock().unwrap().clear();
        store.open(&manifest()).unwrap()
    }

    fn blocks(range: Range<u64>) -> Vec<u8> {
        (range.start * BLOCK..(range.end * BLOCK).min(SIZE)).map(|at| (at / 100 % 251) as u8).collect()
    }

    #[test]
    fn what_was_written_is_there_and_the_rest_is_missing() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        assert_eq!(copy.missing(&gguf(), 1..2), [0..BLOCK]);
        assert_eq!(copy.missing(&gguf(), 0..u64::MAX), [0..SIZE]);
        copy.write(&gguf(), 2 * BLOCK, &blocks(2..4)).unwrap();
        copy.write(&gguf(), 10 * BLOCK, &blocks(10..11)).unwrap();
        copy.write(&gguf(), 4 * BLOCK, &blocks(4..5)).unwrap();
        let check = |copy: &PartCopy| {
            assert_eq!(copy.missing(&gguf(), 0..SIZE), [0..2 * BLOCK, 5 * BLOCK..10 * BLOCK]);
            assert_eq!(copy.present(&gguf(), 0..SIZE), [2 * BLOCK..5 * BLOCK, 10 * BLOCK..SIZE]);
            assert_eq!(copy.present(&gguf(), 3 * BLOCK + 1..9 * BLOCK), [3 * BLOCK..5 * BLOCK]);
            assert_eq!(copy.missing(&gguf(), 4 * BLOCK..5 * BLOCK), []);
            assert_eq!(copy.read(&gguf(), 2 * BLOCK + 9..5 * BLOCK).unwrap(), blocks(2..5)[9..]);
            assert_eq!((copy.bytes(), copy.is_whole()), (3 * BLOCK + 7, false));
        };
        check(&copy);
        check(&copy.clone());
        check(&reopened(&store));
        copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
        copy.write(&name("config.json"), 0, b"{   }").unwrap();
        assert!(copy.is_whole());
        assert_eq!(fs::read(copy.path()).unwrap(), blocks(0..11), "readers see the whole file");
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_coming_counts_until_it_is_there() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        copy.write(&gguf(), 0, &blocks(0..2)).unwrap();
        let space = Space { free: 1 << 40, cap: Some(4 * BLOCK) };
        let leaving = |needed| store.leaving(needed, space).map(|copies| copies.len());
        assert_eq!((leaving(2 * BLOCK), leaving(2 * BLOCK + 1)), (Ok(0), Ok(1)));
        let in_use = store.open(&manifest()).unwrap().in_use();
        let refused = |available| Err(NoRoom::Cap { cap: 4 * BLOCK, available });
        assert_eq!(leaving(2 * BLOCK + 1), refused(2 * BLOCK));
        let [mut one, other] = [copy.expect(BLOCK / 2), copy.expect(BLOCK / 2)];
        assert_eq!(leaving(2 * BLOCK), refused(BLOCK));
        one.left(0);
        assert_eq!(leaving(2 * BLOCK), refused(BLOCK + BLOCK / 2));
        drop((one, other));
        assert_eq!(leaving(2 * BLOCK), Ok(0));
        assert!(!store.remove_unused(&copy).unwrap() && copy.bytes() == 2 * BLOCK);
        let long_ago = SystemTime::now() - Duration::from_hours(24);
        File::open(copy.folder().join(MANIFEST)).unwrap().set_modified(long_ago).unwrap();
        drop(in_use);
        assert!(copy.kept().used > long_ago, "it was used until now");
        assert_eq!(leaving(2 * BLOCK + 1), Ok(1));
        assert!(store.remove_unused(&copy).unwrap() && copy.bytes() == 0);
    }

    #[test]
    fn a_copy_without_a_name_is_left_over_once_nothing_of_it_has_come_for_a_week() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        copy.write(&gguf(), 0, &blocks(0..2)).unwrap();
        let days = |days: u64| SystemTime::now() - Duration::from_hours(24 * days);
        let set = |path: PathBuf, to| fs::File::open(path).unwrap().set_modified(to).unwrap();
        let stays = |used, came| {
            set(copy.folder().join(MANIFEST), days(used));
            for file in &manifest().files {
                set(file.name.below(&copy.folder().join("map")), days(came));
            }
            store.tidy();
            store.copies().len() == 1
        };
        // A fetch that began long ago, and was stopped by a power cut just now.
        assert!(stays(30, 1) && stays(6, 6));
        copy.settle(&Known { digest: "ab".to_owned(), revision: None, is_public: false }).unwrap();
        assert!(stays(30, 30));
        copy.unsettle().unwrap();
        let in_use = copy.in_use();
        assert!(stays(30, 30));
        drop(in_use);
        assert!(!stays(8, 8));
    }

    #[test]
    fn holes_are_never_read_as_bytes() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        copy.write(&gguf(), 2 * BLOCK, &blocks(2..4)).unwrap();
        for hole in [0..1, 2 * BLOCK - 1..2 * BLOCK + 1, 3 * BLOCK..4 * BLOCK + 1, 0..SIZE, SIZE - 1..SIZE] {
            assert_eq!(copy.read(&gguf(), hole.clone()).unwrap_err().kind(), io::ErrorKind::NotFound, "{hole:?}");
        }
        assert_eq!(copy.read(&gguf(), 0..SIZE + 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(fs::metadata(copy.path()).unwrap().len(), SIZE);
        copy.forget(&gguf(), 2 * BLOCK + 5..2 * BLOCK + 6).unwrap();
        assert_eq!(copy.present(&gguf(), 0..SIZE), [3 * BLOCK..4 * BLOCK]);
        copy.read(&gguf(), 2 * BLOCK..2 * BLOCK + 1).unwrap_err();
    }

    #[test]
    fn only_whole_blocks_of_the_models_files_are_written() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        for (at, length) in [(1, 4096), (0, 4095), (0, 1), (10 * BLOCK, 6), (10 * BLOCK, 8), (u64::MAX - 9, 20)] {
            let error = copy.write(&gguf(), at, &vec![1; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{at} {length}");
        }
        assert_eq!(copy.bytes(), 0);
        let other = name("other.json");
        copy.write(&other, 0, &[]).unwrap_err();
        copy.read(&other, 0..0).unwrap_err();
        assert_eq!((copy.missing(&other, 3..9), copy.present(&other, 3..9)), (vec![3..9], vec![]));
    }

    #[test]
    fn a_file_or_a_map_of_the_wrong_length_counts_as_empty() {
        for (folder, length) in [("model", 0), ("model", SIZE - 1), ("model", SIZE + 1), ("map", 0), ("map", 3)] {
            let (_folder, store) = store();
            let copy = store.open(&manifest()).unwrap();
            copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
            copy.write(&name("config.json"), 0, b"{   }").unwrap();
            let damaged = copy.folder().join(folder).join("deep/er/m.gguf");
            File::options().write(true).open(damaged).unwrap().set_len(length).unwrap();
            assert_eq!(copy.missing(&gguf(), 0..SIZE), [0..SIZE], "{folder} {length}");
            assert_eq!(copy.bytes(), 5, "{folder} {length}");
            copy.read(&gguf(), 0..1).unwrap_err();
            assert_eq!(reopened(&store).bytes(), 5, "{folder} {length}");
            copy.write(&gguf(), BLOCK, &blocks(1..2)).unwrap();
            assert_eq!(copy.present(&gguf(), 0..SIZE), [BLOCK..2 * BLOCK], "{folder} {length}");
            assert_eq!(fs::metadata(copy.path()).unwrap().len(), SIZE);
        }
    }

    #[test]
    fn what_a_power_cut_may_have_lost_is_forgotten_and_nothing_else() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        let journal = copy.folder().join("unsynced");
        let power_cut = || {
            let noted = fs::read_to_string(&journal).unwrap();
            let (_, regions) = noted.split_once('\n').unwrap();
            fs::write(&journal, format!("another start\n{regions}")).unwrap();
            OPEN.lock().unwrap().clear();
            store.at(&copy.path()).unwrap()
        };
        copy.write(&name("config.json"), 0, b"{   }").unwrap();
        copy.sync().unwrap();
        copy.write(&gguf(), 0, &blocks(0..4)).unwrap();
        assert_eq!(reopened(&store).bytes(), 5 + 4 * BLOCK, "the process died, and the system did not");
        assert_eq!(power_cut().bytes(), 5);
        copy.write(&gguf(), 0, &blocks(0..4)).unwrap();
        copy.sync().unwrap();
        assert_eq!(power_cut().bytes(), 5 + 4 * BLOCK);
    }

    #[test]
    fn who_confirmed_a_model_is_known_after_a_power_cut_too() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        let known = Known { digest: "d1".to_owned(), revision: Some("main".to_owned()), is_public: true };
        copy.write(&gguf(), 0, &blocks(0..4)).unwrap();
        copy.settle(&known).unwrap();
        assert_eq!((copy.known(), copy.was_known()), (Some(known.clone()), Some(known.clone())));
        let journal = copy.folder().join("unsynced");
        let noted = fs::read_to_string(&journal).unwrap();
        fs::write(&journal, format!("another start\n{}", noted.split_once('\n').unwrap().1)).unwrap();
        let copy = store.at(&copy.path()).unwrap();
        assert_eq!((copy.bytes(), copy.known(), copy.was_known()), (0, None, Some(known.clone())));
        copy.settle(&known).unwrap();
        copy.unsettle().unwrap();
        assert_eq!((copy.known(), copy.was_known()), (None, None));
    }

    #[test]
    fn other_machines_write_nothing_while_the_hub_confirms() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        let confirming = copy.confirming();
        let same = store.open(&manifest()).unwrap();
        let refused = same.write_unconfirmed(&gguf(), 0, &blocks(0..1)).unwrap_err();
        assert_eq!((refused.kind(), same.bytes()), (io::ErrorKind::ResourceBusy, 0));
        same.write(&gguf(), 0, &blocks(0..1)).unwrap();
        let busy = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        busy(same.forget_unknown(&gguf(), 0..BLOCK));
        drop(confirming);
        same.write_unconfirmed(&gguf(), BLOCK, &blocks(1..2)).unwrap();
        same.write_unknown(&gguf(), 2 * BLOCK, &blocks(2..3)).unwrap();
        same.forget_unknown(&gguf(), 2 * BLOCK..3 * BLOCK).unwrap();
        assert_eq!(same.bytes(), 2 * BLOCK);
        // Nor do they begin to send another model once it is known which one this is.
        copy.settle(&Known { digest: "d1".to_owned(), revision: None, is_public: false }).unwrap();
        busy(same.write_unknown(&gguf(), 2 * BLOCK, &blocks(2..3)));
        busy(same.forget_unknown(&gguf(), 0..BLOCK));
        same.write_unconfirmed(&gguf(), 2 * BLOCK, &blocks(2..3)).unwrap();
        assert_eq!(same.bytes(), 3 * BLOCK);
    }

    #[test]
    fn no_link_is_followed_and_everything_is_private() {
        let (folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        for private in [copy.folder(), &copy.path(), copy.path().parent().unwrap()] {
            assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o077, 0, "{private:?}");
        }
        let mine = folder.path().join("mine");
        for linked in ["model/deep/er/m.gguf", "map/deep/er/m.gguf", "model/deep", "model"] {
            fs::create_dir_all(mine.join("er")).unwrap();
            fs::write(mine.join("er/m.gguf"), "keep me").unwrap();
            let path = copy.folder().join(linked);
            let target = if linked.ends_with("gguf") { mine.join("er/m.gguf") } else { mine.clone() };
            let kept = path.with_extension("kept");
            fs::rename(&path, &kept).unwrap();
            std::os::unix::fs::symlink(target, &path).unwrap();
            copy.write(&gguf(), 0, &blocks(0..11)).unwrap_err();
            store.open(&manifest()).unwrap_err();
            assert_eq!(copy.present(&gguf(), 0..SIZE), [], "{linked}");
            assert_eq!(fs::read_to_string(mine.join("er/m.gguf")).unwrap(), "keep me");
            fs::remove_file(&path).unwrap();
            fs::rename(&kept, &path).unwrap();
        }
        let kept = folder.path().join("kept");
        fs::rename(copy.folder(), &kept).unwrap();
        std::os::unix::fs::symlink(&mine, copy.folder()).unwrap();
        store.open(&manifest()).unwrap_err();
        assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
    }

    #[test]
    fn copies_are_found_by_what_they_hold_and_by_their_paths() {
        let (folder, store) = store();
        assert_eq!(store.copies().len(), 0);
        let copy = store.open(&manifest()).unwrap();
        let other = store.open(&Manifest { gguf: None, ..manifest() }).unwrap();
        assert_ne!(copy.folder(), other.folder());
        assert!(other.path().ends_with("model") && copy.path().ends_with("model/deep/er/m.gguf"));
        let damaged = folder.path().join("new/parts").join("0".repeat(32));
        fs::create_dir(&damaged).unwrap();
        fs::copy(copy.folder().join(MANIFEST), damaged.join(MANIFEST)).unwrap();
        assert_eq!(store.copies().len(), 2, "a copy under another's key is none");
        for path in [copy.path(), copy.folder().to_owned(), copy.folder().join("model")] {
            assert!(Arc::ptr_eq(&store.at(&path).unwrap().0, &copy.0));
        }
        let out = copy.folder().join("../..");
        for path in [Path::new("/"), folder.path(), &damaged, &out, Path::new("relative")] {
            assert!(store.at(path).is_none(), "{path:?}");
        }
        fs::write(other.folder().join(MANIFEST), "{").unwrap();
        assert_eq!(store.copies().len(), 1);
    }

    #[test]
    fn a_removed_copy_is_empty_for_all_who_have_it() {
        let (folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
        let elsewhere = PartStore::new(folder.path().join("else"));
        elsewhere.open(&manifest()).unwrap();
        elsewhere.remove(&copy).unwrap_err();
        store.remove(&store.copies()[0]).unwrap();
        assert_eq!((copy.bytes(), store.copies().len()), (0, 0));
        copy.write(&gguf(), 0, &blocks(0..11)).unwrap_err();
        store.remove(&copy).unwrap();
        store.open(&manifest()).unwrap();
        assert_eq!(copy.missing(&gguf(), 0..SIZE), [0..SIZE]);
        copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
    }

    #[test]
    fn two_names_of_one_file_are_refused() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        // As a disk that takes "a" and "A" for one name shows it.
        fs::remove_file(copy.folder().join("model/config.json")).unwrap();
        fs::hard_link(copy.path(), copy.folder().join("model/config.json")).unwrap();
        let error = store.open(&manifest()).unwrap_err();
        assert!(error.to_string().contains("one file"), "{error}");
    }

    #[test]
    fn whoever_writes_waits_for_another_process_and_readers_do_not() {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        copy.write(&gguf(), 0, &blocks(0..1)).unwrap();
        let other = Lock::wait(&copy.folder().with_extension("lock")).unwrap();
        std::thread::scope(|scope| {
            let write = scope.spawn(|| copy.write(&gguf(), BLOCK, &blocks(1..2)).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!write.is_finished());
            assert_eq!(copy.read(&gguf(), 0..BLOCK).unwrap(), blocks(0..1));
            drop(other);
        });
        assert_eq!(copy.present(&gguf(), 0..SIZE), [0..2 * BLOCK]);
    }

    #[test]
    fn threads_that_write_at_once_lose_no_bit() {
        let (_folder, store) = store();
        let copies = [store.open(&manifest()).unwrap(), reopened(&store)];
        assert!(!Arc::ptr_eq(&copies[0].0, &copies[1].0), "as two processes");
        std::thread::scope(|scope| {
            for block in 0..11 {
                let copy = &copies[block as usize % 2];
                scope.spawn(move || copy.write(&gguf(), block * BLOCK, &blocks(block..block + 1)).unwrap());
            }
        });
        assert_eq!(copies[0].read(&gguf(), 0..SIZE).unwrap(), blocks(0..11));
    }
}
