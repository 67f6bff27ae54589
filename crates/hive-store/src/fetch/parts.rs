//! Fetches the missing byte ranges of a model's files into a parts copy.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::connections::Connections;
use super::failure::{Failure, Place};
use super::progress::{FetchOptions, Meter, Wait};
use super::range::{Source, Target};
use crate::beside::beside;
use crate::cache::lock::Lock;
use crate::cache::partial::SEGMENT;
use crate::checksum::Check;
use crate::error::{FetchError, HubError};
use crate::file_name::FileName;
use crate::hub::{Hub, Listing, RemoteFile};
use crate::parts::{BLOCK, PartCopy};

/// Gaps up to this size are fetched too: that is faster than another request.
const GAP: u64 = 32 << 10;
/// Bytes hashed at once.
const CHECK: u64 = 4 << 20;

/// Fetches the missing parts of byte ranges of a model's files.
///
/// Blocks already present are not requested again. A file wanted whole is verified by checksum at the end; partial
/// files cannot be verified. Fetches into one copy run one at a time, so none downloads twice.
///
/// The listing and the copy's manifest must be of the same model: [`Hub::listing_at`](crate::Hub::listing_at).
pub async fn fetch_parts(
    hub: &Hub,
    listing: &Listing,
    copy: &PartCopy,
    wanted: &[(FileName, Range<u64>)],
    options: &FetchOptions,
) -> Result<(), FetchError> {
    match options.cancel.run_until_cancelled(run(hub, listing, copy, wanted, options)).await {
        Some(done) => done,
        None => Err(FetchError::Cancelled),
    }
}

async fn run(
    hub: &Hub,
    listing: &Listing,
    copy: &PartCopy,
    wanted: &[(FileName, Range<u64>)],
    options: &FetchOptions,
) -> Result<(), FetchError> {
    let files = file_fetches(hub, listing, copy, wanted)?;
    let place = Place { folder: copy.folder(), setting: "HF_HUB_CACHE" };
    let failed = |error| place.error(0, &error);
    let total = files.iter().map(|file| length(&file.wanted)).sum();
    let done = present(&files).await.map_err(failed)?;
    let meter = Meter::new(options, done, total);
    let Some(first) = files.first().filter(|_| done < total) else { return Ok(()) };
    hub.allowed()?;
    let waits = || meter.wait(Wait::OtherFetch { file: first.file.name.clone() });
    let _lock = Lock::take(&copy.fetch_lock(), waits).await.map_err(failed)?;
    let left = total - present(&files).await.map_err(failed)?;
    // Another fetch may have written some of it meanwhile.
    meter.add((total - done).saturating_sub(left));
    place.check_room(left).await?;
    let connections = Connections::new(hub, &meter, options);
    let job = Job { hub, listing, connections: &connections, meter: &meter };
    let mut fetches: FuturesUnordered<_> = files.iter().map(|file| job.fetch(file)).collect();
    while let Some((file, fetched)) = fetches.next().await {
        fetched.map_err(|failure| failure.of(hub, &file.file.name, place, left))?;
    }
    let of_copy = copy.clone();
    beside(move || of_copy.sync()).await.map_err(failed)
}

/// The context that all files of a fetch share.
struct Job<'a> {
    hub: &'a Hub,
    listing: &'a Listing,
    connections: &'a Connections<'a>,
    meter: &'a Meter<'a>,
}

impl Job<'_> {
    async fn fetch<'a>(&self, file: &'a Arc<FileFetch>) -> (&'a FileFetch, Result<(), Failure>) {
        (file, self.fetch_file(file).await)
    }

    async fn fetch_file(&self, file: &Arc<FileFetch>) -> Result<(), Failure> {
        loop {
            let of_file = Arc::clone(file);
            let (there, segments) = beside(move || Ok((of_file.present(), of_file.segments()))).await?;
            if segments.is_empty() {
                return Ok(());
            }
            self.download(file, segments).await?;
            if !file.is_whole() || check(file).await? {
                return Ok(());
            }
            let of_file = Arc::clone(file);
            beside(move || of_file.copy.forget(&of_file.file.name, 0..of_file.file.bytes)).await?;
            self.meter.take_back(file.file.bytes);
            // Other bytes of it came from elsewhere, or were lost in a power cut; retry once. If this fetch brought all
            // of it, the source is damaged.
            if there == 0 {
                return Err(Failure::Checksum);
            }
        }
    }

    async fn download(&self, file: &Arc<FileFetch>, segments: Vec<Range<u64>>) -> Result<(), Failure> {
        let source = Source::new(self.hub, self.listing, &file.file);
        let to: Arc<dyn Target> = Arc::<FileFetch>::clone(file);
        if self.connections.in_ranges(&source, &to, segments).await? {
            return Ok(());
        }
        if file.file.bytes > SEGMENT && !file.is_whole() {
            let why = format!("it sent the whole file {} although only a part was requested", file.file.name);
            return Err(Failure::Hub(HubError::NotAHub { host: self.hub.host(), why }));
        }
        self.connections.in_one(&source, &to).await
    }
}

/// A file being fetched into a copy.
#[derive(Debug)]
struct FileFetch {
    copy: PartCopy,
    file: RemoteFile,
    /// The wanted ranges: whole blocks, sorted and merged.
    wanted: Vec<Range<u64>>,
    /// Bytes that this fetch wrote.
    written: AtomicU64,
}

impl FileFetch {
    fn is_whole(&self) -> bool {
        length(&self.wanted) == self.file.bytes
    }

    /// Bytes of the wanted ranges that are present.
    fn present(&self) -> u64 {
        self.wanted.iter().map(|range| length(&self.copy.present(&self.file.name, range.clone()))).sum()
    }

    /// Ranges to request: the missing blocks, including short missing gaps.
    fn segments(&self) -> Vec<Range<u64>> {
        let ranges = merged(self.wanted.clone(), GAP);
        let missing = ranges.into_iter().flat_map(|range| self.copy.missing(&self.file.name, range));
        missing.flat_map(split).filter(|segment| self.wanted_in(segment) > 0).collect()
    }

    /// Bytes of a range that are wanted.
    fn wanted_in(&self, range: &Range<u64>) -> u64 {
        let first = self.wanted.partition_point(|wanted| wanted.end <= range.start);
        let those = self.wanted[first..].iter().take_while(|wanted| wanted.start < range.end);
        those.map(|wanted| wanted.end.min(range.end) - wanted.start.max(range.start)).sum()
    }
}

impl Target for FileFetch {
    /// Blocks that are already present are not overwritten.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<u64> {
        let mut new = 0;
        for run in self.copy.missing(&self.file.name, at..at + bytes.len() as u64) {
            self.copy.write(&self.file.name, run.start, &bytes[(run.start - at) as usize..(run.end - at) as usize])?;
            self.written.fetch_add(run.end - run.start, Ordering::AcqRel);
            new += self.wanted_in(&run);
        }
        Ok(new)
    }

    fn next(&self, segment: &Range<u64>) -> Option<Range<u64>> {
        self.copy.missing(&self.file.name, segment.clone()).into_iter().next()
    }

    fn done(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    fn unit(&self) -> usize {
        BLOCK as usize
    }
}

/// The files with wanted ranges, small ones first.
fn file_fetches(
    hub: &Hub,
    listing: &Listing,
    copy: &PartCopy,
    wanted: &[(FileName, Range<u64>)],
) -> Result<Vec<Arc<FileFetch>>, FetchError> {
    let mut by_file: BTreeMap<&FileName, Vec<Range<u64>>> = BTreeMap::new();
    for (file, range) in wanted {
        by_file.entry(file).or_default().push(range.clone());
    }
    let mut all = Vec::new();
    for (name, ranges) in by_file {
        let is_it = |file: &&RemoteFile| file.name == *name && copy.manifest().size_of(name) == Some(file.bytes);
        let file = listing.files.iter().find(is_it).ok_or_else(|| {
            let what = format!("{name} of the size that the model has in {}", listing.model.repository());
            HubError::NotFound { host: hub.host(), what, did_you_mean: None }
        })?;
        let in_blocks = ranges.into_iter().map(|range| {
            let end = range.end.min(file.bytes);
            range.start / BLOCK * BLOCK..end.next_multiple_of(BLOCK).min(file.bytes)
        });
        let wanted = merged(in_blocks.collect(), 0);
        let (copy, file, written) = (copy.clone(), file.clone(), AtomicU64::new(0));
        all.push(Arc::new(FileFetch { copy, file, wanted, written }));
    }
    all.sort_by_key(|file| file.file.bytes);
    Ok(all)
}

/// Bytes of all files' wanted ranges that are present.
async fn present(files: &[Arc<FileFetch>]) -> io::Result<u64> {
    let files = files.to_vec();
    beside(move || Ok(files.iter().map(|file| file.present()).sum())).await
}

/// Reads a whole file and verifies its checksum.
async fn check(file: &Arc<FileFetch>) -> io::Result<bool> {
    let bytes = file.file.bytes;
    let mut check = Check::new(&file.file.checksum, bytes);
    for at in (0..bytes).step_by(CHECK as usize) {
        let file = Arc::clone(file);
        check = beside(move || {
            check.update(&file.copy.read(&file.file.name, at..(at + CHECK).min(bytes))?);
            Ok(check)
        })
        .await?;
    }
    Ok(check.holds())
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The ranges, sorted; ranges separated by at most `gap` are merged, and empty ones dropped.
fn merged(mut ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A range in pieces of one request each.
fn split(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    (start..end).step_by(SEGMENT as usize).map(move |at| at..(at + SEGMENT).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_over_short_gaps_and_split_where_they_are_long() {
        let ranges = vec![50..60, 0..10, 8..20, 30..30, 22..25, 55..57];
        assert_eq!(merged(ranges.clone(), 0), [0..20, 22..25, 50..60]);
        assert_eq!(merged(ranges.clone(), 2), [0..25, 50..60]);
        assert_eq!(merged(ranges, 25), vec![0..60]);
        let split: Vec<_> = split(7..2 * SEGMENT + 8).collect();
        assert_eq!(split, [7..SEGMENT + 7, SEGMENT + 7..2 * SEGMENT + 7, 2 * SEGMENT + 7..2 * SEGMENT + 8]);
    }
}
