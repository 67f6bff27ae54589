//! One file: its ranges over several connections at once, and its checksum behind the first of them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::connections::Connections;
use super::failure::Failure;
use super::progress::{Meter, Wait};
use super::range::{Source, Target};
use crate::beside::beside;
use crate::cache::lock::Lock;
use crate::cache::partial::Partial;
use crate::cache::{Presence, Repository};
use crate::checksum::{Check, Checksum};
use crate::hub::{Hub, Listing, RemoteFile};

/// Bytes hashed at once.
const CHECK: u64 = 4 << 20;

/// The context that all files of a fetch share.
pub(crate) struct Job<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) listing: &'a Listing,
    pub(crate) repository: &'a Repository,
    pub(crate) meter: &'a Meter<'a>,
    pub(crate) files: &'a Semaphore,
    pub(crate) connections: &'a Connections<'a>,
}

/// How an attempt at all bytes of a file ended.
#[derive(Debug, PartialEq, Eq)]
enum Arrived {
    Whole,
    Damaged,
}

impl Job<'_> {
    /// Fetches a file into its blob, when its turn comes.
    pub(crate) async fn fetch<'a>(&self, file: &'a RemoteFile) -> (&'a RemoteFile, Result<(), Failure>) {
        let _permit = self.files.acquire().await;
        (file, self.fetch_file(file).await)
    }

    async fn fetch_file(&self, file: &RemoteFile) -> Result<(), Failure> {
        let waits = || self.meter.wait(Wait::OtherFetch { file: file.name.clone() });
        let mut lock = Lock::take(&self.repository.lock(&file.checksum), waits).await?;
        if self.repository.presence(&self.listing.commit, file) != Presence::Missing {
            self.meter.add(file.bytes);
            return Ok(());
        }
        loop {
            let partial = Arc::new(self.open(file, lock).await?);
            let begun = partial.done();
            self.meter.add(begun);
            let arrived = self.fill(file, &partial).await?;
            if arrived == Arrived::Whole {
                let blob = self.repository.blob(&file.checksum);
                return Ok(beside(move || partial.finish(&blob)).await?);
            }
            self.meter.take_back(partial.done());
            let was_begun = partial.was_begun();
            beside(move || partial.clear()).await?;
            // Bytes from an earlier process may have been lost in a power cut; bytes from this one arrived damaged.
            if !was_begun {
                return Err(Failure::Checksum);
            }
            lock = Lock::take(&self.repository.lock(&file.checksum), || ()).await?;
        }
    }

    async fn open(&self, file: &RemoteFile, lock: Lock) -> io::Result<Partial> {
        let (path, bytes) = (self.repository.incomplete(&file.checksum), file.bytes);
        let left_over = self.repository.left_over(&file.checksum);
        beside(move || Partial::open(&path, bytes, &left_over, lock)).await
    }

    /// Downloads all bytes and verifies their checksum.
    async fn fill(&self, file: &RemoteFile, partial: &Arc<Partial>) -> Result<Arrived, Failure> {
        let source = Source::new(self.hub, self.listing, file);
        let to: Arc<dyn Target> = Arc::<Partial>::clone(partial);
        let download = async {
            if !self.connections.in_ranges(&source, &to, partial.missing()).await? {
                self.connections.in_one(&source, &to).await?;
            }
            Ok(())
        };
        let ((), is_right) = futures_util::try_join!(download, check(&file.checksum, file.bytes, partial))?;
        Ok(if is_right { Arrived::Whole } else { Arrived::Damaged })
    }
}

impl Target for Partial {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<u64> {
        Self::write(self, at, bytes)
    }

    fn next(&self, segment: &Range<u64>) -> Option<Range<u64>> {
        Some(self.missing_before(segment.end)).filter(|range| !range.is_empty())
    }

    fn done(&self) -> u64 {
        Self::done(self)
    }

    fn unit(&self) -> usize {
        1
    }
}

/// Hashes the contents as they become contiguous, and compares the checksum at the end.
async fn check(checksum: &Checksum, bytes: u64, partial: &Arc<Partial>) -> Result<bool, Failure> {
    let mut front = partial.front();
    let mut check = Check::new(checksum, bytes);
    let mut at = 0;
    while at < bytes {
        let there = *front.wait_for(|front| *front > at).await.map_err(io::Error::other)?;
        let length = (there - at).min(CHECK) as usize;
        let partial = Arc::clone(partial);
        check = beside(move || {
            let mut read = vec![0; length];
            partial.read(at, &mut read)?;
            check.update(&read);
            Ok(check)
        })
        .await?;
        at += length as u64;
    }
    Ok(check.holds())
}
