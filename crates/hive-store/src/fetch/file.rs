//! One file: its ranges over several connections at once, and its checksum behind the first of them.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, Semaphore};

use super::limit::Limit;
use super::progress::{Meter, Wait};
use super::range::{End, Sink, Source};
use crate::backoff::Backoff;
use crate::beside::beside;
use crate::cache::lock::Lock;
use crate::cache::partial::Partial;
use crate::cache::{Presence, Repository};
use crate::checksum::{Check, Checksum};
use crate::error::HubError;
use crate::hub::request::host;
use crate::hub::{Hub, Listing, RemoteFile};

/// Connections of a fetch. One brings from a distant server what its window allows; eight fill most lines.
pub(crate) const CONNECTIONS: usize = 8;
/// Bytes checked at once.
const CHECK: u64 = 4 << 20;

/// Why a file did not come.
#[derive(Debug)]
pub(crate) enum Failure {
    Hub(HubError),
    Disk(io::Error),
    Checksum,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// What all files of a fetch share.
pub(crate) struct Job<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) listing: &'a Listing,
    pub(crate) repository: &'a Repository,
    pub(crate) meter: &'a Meter<'a>,
    pub(crate) limit: &'a Limit,
    pub(crate) files: &'a Semaphore,
    pub(crate) connections: &'a Semaphore,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// What is missing of the segment that ends there.
    SegmentBefore(u64),
    /// The file from its start to its end.
    Whole,
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
        (file, self.fetch_now(file).await)
    }

    async fn fetch_now(&self, file: &RemoteFile) -> Result<(), Failure> {
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
            // Bytes from an earlier process may have been lost with the power; those of this one came damaged.
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

    /// Brings all bytes, and says whether they are the right ones.
    async fn fill(&self, file: &RemoteFile, partial: &Arc<Partial>) -> Result<Arrived, Failure> {
        let (model, what) =
            (self.listing.model.repository(), format!("{} of {}", file.name, self.listing.model.repository()));
        let source = Source {
            line: self.hub.line(),
            address: self.hub.address(self.listing, &file.name),
            place: Mutex::new(None),
            commit: &self.listing.commit,
            bytes: file.bytes,
            model: &model,
            what: &what,
        };
        let bring = async {
            if !self.in_ranges(&source, partial).await? {
                self.in_one(&source, partial).await?;
            }
            Ok(())
        };
        let ((), is_right) = futures_util::try_join!(bring, check(&file.checksum, file.bytes, partial))?;
        Ok(if is_right { Arrived::Whole } else { Arrived::Damaged })
    }

    /// Brings the missing ranges, several at once. `false` if the server knows no ranges.
    async fn in_ranges(&self, source: &Source<'_>, partial: &Arc<Partial>) -> Result<bool, Failure> {
        let aims = partial.missing().into_iter().map(|range| Aim::SegmentBefore(range.end));
        let mut all: FuturesUnordered<_> = aims.map(|aim| self.persist(source, partial, aim)).collect();
        while let Some(brought) = all.next().await {
            match brought {
                Ok(()) => {}
                Err(None) => return Ok(false),
                Err(Some(failure)) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Brings the file from its start to its end.
    async fn in_one(&self, source: &Source<'_>, partial: &Arc<Partial>) -> Result<(), Failure> {
        let no_hub =
            || HubError::NotAHub { host: host(&source.address), why: "its answers contradict each other".to_owned() };
        let brought = self.persist(source, partial, Aim::Whole).await;
        brought.map_err(|failure| failure.unwrap_or_else(|| Failure::Hub(no_hub())))
    }

    /// Repeats an attempt until it succeeds, or several in a row bring nothing. `None` if the server knows no ranges.
    async fn persist(&self, source: &Source<'_>, partial: &Arc<Partial>, aim: Aim) -> Result<(), Option<Failure>> {
        let sink = Sink { partial, meter: self.meter, limit: self.limit };
        let mut backoff = Backoff::new(self.hub.line().patience());
        loop {
            let before = partial.done();
            let permit = self.connections.acquire().await.expect("nobody closes the semaphore");
            let ended = match aim {
                Aim::Whole => source.take_whole(sink).await,
                Aim::SegmentBefore(end) => match partial.missing_before(end) {
                    range if range.is_empty() => Ok(()),
                    range => source.take(range, sink).await,
                },
            };
            drop(permit);
            let trouble = match ended {
                Ok(()) => return Ok(()),
                Err(End::IgnoresRanges) => return Err(None),
                Err(End::Disk(error)) => return Err(Some(Failure::Disk(error))),
                Err(End::Trouble(trouble)) => trouble,
            };
            if partial.done() > before {
                backoff.progress();
            }
            let error = trouble.error().clone();
            let after = backoff.after(trouble).map_err(|error| Some(Failure::Hub(error)))?;
            self.meter.wait(Wait::NextAttempt { error, after });
            tokio::time::sleep(after).await;
        }
    }
}

/// Reads the contents behind the front, as it moves on, and compares their checksum at the end.
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
