//! A file that is written in any order, and whose progress survives `kill -9`.
//!
//! The file has its full length; behind the contents, it stores the number of bytes written in each segment. Contents
//! are written before their count, so a count never covers missing bytes. After a power failure it may; the checksum of
//! the whole file detects that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::lock::Lock;

/// Bytes that one request asks for. A connection of 10 MB/s delivers it in 3 s, which hides the request's own time.
pub(crate) const SEGMENT: u64 = 32 << 20;
/// Marks the counts behind the contents, and their form.
const MAGIC: &[u8; 16] = b"hivemind part 1\n";
/// Bytes of a count.
const COUNT: u64 = 8;

/// An unfinished file. Only one is open per blob: it holds the blob's lock until its last write has ended.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    size: u64,
    /// How many bytes from its start each segment has.
    counts: Vec<AtomicU64>,
    /// The first segment that is not complete.
    first: Mutex<usize>,
    /// How many bytes from its start the file has.
    front: watch::Sender<u64>,
    was_begun: bool,
    _lock: Lock,
}

impl Partial {
    /// Opens the file at `path` for contents of `size` bytes, with the bytes of earlier processes. If there are none,
    /// the first bytes are taken from `left_over`, if that exists.
    pub(crate) fn open(path: &Path, size: u64, left_over: &Path, lock: Lock) -> io::Result<Self> {
        let adopted = !path.exists() && fs::rename(left_over, path).is_ok();
        // In a folder that others can write, a link there could lead to any file of ours.
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(no_link);
        let file = options.open(path)?;
        let segments = size.div_ceil(SEGMENT);
        let mut partial = Self {
            file,
            path: path.to_owned(),
            size,
            counts: (0..segments).map(|_| AtomicU64::new(0)).collect(),
            first: Mutex::new(0),
            front: watch::Sender::new(0),
            was_begun: false,
            _lock: lock,
        };
        let length = partial.file.metadata()?.len();
        let from_start = match partial.read_counts(length) {
            Some(counts) => {
                partial.counts = counts.into_iter().map(AtomicU64::new).collect();
                None
            }
            // All of it, checked, but not renamed any more; or the start of it.
            None if length == size || (adopted && length < size) => Some(length),
            None => Some(0),
        };
        if let Some(length) = from_start {
            partial.begin(length)?;
        }
        partial.was_begun = partial.done() > 0;
        partial.advance();
        Ok(partial)
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Whether some bytes were there before.
    pub(crate) fn was_begun(&self) -> bool {
        self.was_begun
    }

    /// Bytes that are there.
    pub(crate) fn done(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    /// How many bytes from its start the file has; changes wake the receiver.
    pub(crate) fn front(&self) -> watch::Receiver<u64> {
        self.front.subscribe()
    }

    /// The missing range of each segment.
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        let missing = (0..self.counts.len()).map(|index| self.missing_of(index));
        missing.filter(|range| !range.is_empty()).collect()
    }

    /// The missing range of the segment that ends there.
    pub(crate) fn missing_before(&self, end: u64) -> Range<u64> {
        self.missing_of((end.saturating_sub(1) / SEGMENT) as usize)
    }

    /// Writes bytes at an offset, and returns how many of them are new. Bytes already present are skipped; bytes behind
    /// a gap are an error.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<u64> {
        let (mut at, mut rest, mut new) = (at, bytes, 0);
        while !rest.is_empty() {
            let index = (at / SEGMENT) as usize;
            let range = self.segment(index);
            let (here, after) = rest.split_at((range.end.saturating_sub(at) as usize).min(rest.len()));
            let next = self.missing_of(index).start;
            if here.is_empty() || at > next {
                return Err(io::Error::other("bytes came for a place that was not asked for"));
            }
            let fresh = &here[((next - at) as usize).min(here.len())..];
            if !fresh.is_empty() {
                self.file.write_all_at(fresh, next)?;
                let count = next - range.start + fresh.len() as u64;
                self.file.write_all_at(&count.to_le_bytes(), self.place_of_count(index))?;
                self.counts[index].fetch_max(count, Ordering::AcqRel);
                new += fresh.len() as u64;
            }
            at += here.len() as u64;
            rest = after;
        }
        self.advance();
        Ok(new)
    }

    /// Reads contents that are there.
    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// Makes the complete file the blob.
    pub(crate) fn finish(&self, blob: &Path) -> io::Result<()> {
        self.file.set_len(self.size)?;
        self.file.sync_all()?;
        fs::rename(&self.path, blob)
    }

    fn segment(&self, index: usize) -> Range<u64> {
        let start = (index as u64 * SEGMENT).min(self.size);
        start..(start + SEGMENT).min(self.size)
    }

    fn missing_of(&self, index: usize) -> Range<u64> {
        let range = self.segment(index);
        let count = self.counts.get(index).map_or(0, |count| count.load(Ordering::Acquire));
        range.start + count..range.end
    }

    fn place_of_count(&self, index: usize) -> u64 {
        self.size + MAGIC.len() as u64 + index as u64 * COUNT
    }

    /// The counts behind the contents, if the file has them and they can be.
    fn read_counts(&self, length: u64) -> Option<Vec<u64>> {
        let mut tail = vec![0; MAGIC.len() + self.counts.len() * COUNT as usize];
        if length != self.size + tail.len() as u64 {
            return None;
        }
        self.file.read_exact_at(&mut tail, self.size).ok()?;
        let counts = tail.strip_prefix(MAGIC)?.chunks_exact(COUNT as usize);
        let counts: Vec<u64> =
            counts.map(|count| count.try_into().map(u64::from_le_bytes)).collect::<Result<_, _>>().ok()?;
        let fits = |(index, count): (usize, &u64)| *count <= self.segment(index).end - self.segment(index).start;
        counts.iter().enumerate().all(fits).then_some(counts)
    }

    /// Gives the file its length and its counts, with the first `length` bytes there.
    fn begin(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length.min(self.size))?;
        self.file.set_len(self.size)?;
        let mut tail = MAGIC.to_vec();
        for (index, count) in self.counts.iter().enumerate() {
            let range = self.segment(index);
            let there = length.clamp(range.start, range.end) - range.start;
            count.store(there, Ordering::Release);
            tail.extend_from_slice(&there.to_le_bytes());
        }
        self.file.write_all_at(&tail, self.size)
    }

    fn advance(&self) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        while *first < self.counts.len() && self.missing_of(*first).is_empty() {
            *first += 1;
        }
        let front = if *first < self.counts.len() { self.missing_of(*first).start } else { self.size };
        self.front.send_if_modified(|known| std::mem::replace(known, front) != front);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk {
        folder: tempfile::TempDir,
        size: u64,
    }

    impl Disk {
        fn new(size: u64) -> Self {
            Self { folder: tempfile::tempdir().unwrap(), size }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        async fn open(&self) -> Partial {
            let lock = Lock::take(&self.path("lock"), || ()).await.unwrap();
            Partial::open(&self.path("part"), self.size, &self.path("left"), lock).unwrap()
        }
    }

    const SIZE: u64 = 2 * SEGMENT + 5;

    #[tokio::test]
    async fn what_has_arrived_is_known_after_the_process_died() {
        let disk = Disk::new(SIZE);
        let partial = disk.open().await;
        assert_eq!(partial.missing(), [0..SEGMENT, SEGMENT..2 * SEGMENT, 2 * SEGMENT..SIZE]);
        assert_eq!(partial.write(SEGMENT, b"bcd").unwrap(), 3);
        assert_eq!(partial.write(2 * SEGMENT, b"vwxyz").unwrap(), 5);
        assert_eq!(*partial.front().borrow(), 0);
        assert_eq!(partial.write(0, b"a").unwrap(), 1);
        assert_eq!(*partial.front().borrow(), 1);
        drop(partial);

        let partial = disk.open().await;
        assert!(partial.was_begun());
        assert_eq!(partial.missing(), [1..SEGMENT, SEGMENT + 3..2 * SEGMENT]);
        assert_eq!(partial.done(), 9);
        assert_eq!(*partial.front().borrow(), 1);
        // Only new bytes are written, across segments too.
        assert_eq!(partial.write(SEGMENT + 1, b"??!").unwrap(), 1);
        assert!(partial.write(2, b"gap").is_err());
        assert!(partial.write(SIZE, b"behind").is_err());
        let rest = vec![7; (2 * SEGMENT) as usize];
        assert_eq!(partial.write(0, &rest).unwrap(), 2 * SEGMENT - 5);
        assert_eq!(*partial.front().borrow(), SIZE);
        partial.finish(&disk.path("blob")).unwrap();
        let blob = fs::read(disk.path("blob")).unwrap();
        assert_eq!(blob.len() as u64, SIZE);
        assert_eq!(
            (&blob[..2], &blob[SEGMENT as usize..][..5], &blob[blob.len() - 6..]),
            (&b"a\x07"[..], &b"bcd!\x07"[..], &b"\x07vwxyz"[..])
        );
        assert!(!disk.path("part").exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_counts_for_nothing_unless_it_is_whole() {
        for (length, done) in [(0, 0), (1000, 0), (SIZE, SIZE), (SIZE + 40, 0), (SIZE + 41, 0)] {
            let disk = Disk::new(SIZE);
            File::create(disk.path("part")).unwrap().set_len(length).unwrap();
            let partial = disk.open().await;
            assert_eq!(partial.done(), done, "{length}");
            drop(partial);
            assert_eq!(disk.open().await.done(), done, "{length}");
        }
    }

    #[tokio::test]
    async fn what_another_program_began_is_continued() {
        for (length, done) in [(SEGMENT + 7, SEGMENT + 7), (SIZE, SIZE), (SIZE + 1, 0)] {
            let disk = Disk::new(SIZE);
            File::create(disk.path("left")).unwrap().set_len(length).unwrap();
            let partial = disk.open().await;
            assert_eq!((partial.done(), partial.was_begun()), (done, done > 0), "{length}");
            assert!(!disk.path("left").exists());
        }
    }

    #[tokio::test]
    async fn an_empty_file_is_complete_at_once() {
        let disk = Disk::new(0);
        let partial = disk.open().await;
        assert_eq!((partial.missing(), *partial.front().borrow()), (vec![], 0));
        partial.finish(&disk.path("blob")).unwrap();
        assert_eq!(fs::read(disk.path("blob")).unwrap(), b"");
    }
}
