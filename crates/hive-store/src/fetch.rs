//! Brings a model's files into the cache: several at once, each where it was left, and shows them when all are there.
//!
//! Everything runs on the caller's task: when the future is dropped, only writes in progress still finish.

mod connections;
mod failure;
mod file;
mod limit;
mod parts;
mod progress;
mod range;

use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::beside::beside;
use crate::cache::{Presence, Repository};
use crate::error::FetchError;
use crate::hub::{Hub, Listing, RemoteFile};
use connections::Connections;
use failure::Place;
use file::Job;
use progress::Meter;

pub use limit::RateLimit;
pub use parts::fetch_parts;
pub use progress::{Event, FetchOptions, Progress, Wait};

/// Files fetched at once: while small ones wait for the hub, a large one fills the line.
const FILES: usize = 4;

/// Fetches the missing files of a model, and returns its folder, or its file if it is GGUF.
///
/// Nothing is asked of the hub, and nothing written, if all of it is in the cache.
pub async fn fetch(hub: &Hub, listing: &Listing, options: &FetchOptions) -> Result<PathBuf, FetchError> {
    match options.cancel.run_until_cancelled(run(hub, listing, options)).await {
        Some(done) => done,
        None => Err(FetchError::Cancelled),
    }
}

async fn run(hub: &Hub, listing: &Listing, options: &FetchOptions) -> Result<PathBuf, FetchError> {
    let repository = Repository::new(hub.cache(), &listing.model);
    let snapshot = repository.snapshot(&listing.commit);
    let done = listing.gguf.as_ref().map_or_else(|| snapshot.clone(), |file| file.below(&snapshot));
    let place = Place { folder: hub.cache(), setting: "HF_HUB_CACHE" };
    let failed = |error| place.error(0, &error);

    let missing = missing(&repository, listing).await.map_err(failed)?;
    let left = missing.iter().map(|(file, begun)| file.bytes - begun).sum();
    let meter =
        Meter::new(options, listing.bytes() - missing.iter().map(|(file, _)| file.bytes).sum::<u64>(), listing.bytes());
    if !missing.is_empty() {
        hub.allowed()?;
        let of_repository = repository.clone();
        beside(move || of_repository.make()).await.map_err(failed)?;
        place.check_room(left).await?;
        let connections = Connections::new(hub, &meter, options);
        let files = Semaphore::new(FILES);
        let job =
            Job { hub, listing, repository: &repository, meter: &meter, files: &files, connections: &connections };
        // Small files come first: the semaphores are fair.
        let mut fetches: FuturesUnordered<_> = missing.iter().map(|(file, _)| job.fetch(file)).collect();
        while let Some((file, fetched)) = fetches.next().await {
            fetched.map_err(|failure| failure.of(hub, &file.name, place, left))?;
        }
    }
    let of_listing = listing.clone();
    beside(move || show(&repository, &of_listing)).await.map_err(failed)?;
    Ok(done)
}

/// The files whose contents are not there, small ones first, each with the bytes of it that are.
async fn missing(repository: &Repository, listing: &Listing) -> io::Result<Vec<(RemoteFile, u64)>> {
    let (repository, listing) = (repository.clone(), listing.clone());
    beside(move || {
        let is_missing = |file: &RemoteFile| repository.presence(&listing.commit, file) == Presence::Missing;
        let mut missing: Vec<RemoteFile> = listing.files.iter().filter(|file| is_missing(file)).cloned().collect();
        missing.sort_by_key(|file| file.bytes);
        // The same contents under two names are one blob.
        let mut blobs = std::collections::BTreeSet::new();
        missing.retain(|file| blobs.insert(file.checksum.blob().to_owned()));
        let begun = |file: &RemoteFile| allocated(&repository.incomplete(&file.checksum)).min(file.bytes);
        Ok(missing.into_iter().map(|file| (begun(&file), file)).map(|(begun, file)| (file, begun)).collect())
    })
    .await
}

/// The bytes that a sparse file takes on the disk.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |file| file.blocks() * 512)
}

/// Shows all files in the snapshot, and notes which revision it is.
fn show(repository: &Repository, listing: &Listing) -> io::Result<()> {
    let mut all_were_there = true;
    for file in &listing.files {
        if repository.presence(&listing.commit, file) != Presence::Linked {
            repository.link(&listing.commit, &file.name, &file.checksum)?;
            all_were_there = false;
        }
    }
    match repository.refer(listing.model.revision(), &listing.commit) {
        // In a cache that cannot be written, a branch keeps its old meaning, and the model can be used.
        Err(_) if all_were_there => Ok(()),
        other => other,
    }
}
