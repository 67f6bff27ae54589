//! Fetches a model's bytes from other machines: its outline, and chunks of its layers.

use std::ops::Range;
use std::time::Duration;

use hive_net::{Channel, PeerAddr, PeerId, Protocol, border};
use hive_protocol::{Request, WantedBytes};
use hive_store::{FileName, PartCopy};
use hive_worker::text::Model;

use super::StageHost;
use super::fetching::{LEFT_TO_OWNER, SILENCE, in_files};
use super::serve_parts::whole_blocks;
use crate::fetching::held::is_weights;
use crate::fetching::message::{STOPPED, TransferMessage};
use crate::fetching::{Chunk, FetchFailure, Sources};
use crate::models;
use crate::runtime::aside;

/// Ranges separated by less than this are requested as one. The gap's bytes are already here, so they also verify that
/// the other machine has the same model.
const GAP_BYTES: u64 = 64 << 10;
/// The largest outline in bytes: a tokenizer of 30 MB, headers of 100 MB, and three blocks for each of 20,000 tensors.
pub(super) const LARGEST_OUTLINE: u64 = 1 << 30;

/// Time-out for an outline.
const OUTLINE_TIMEOUT: Duration = Duration::from_mins(10);
/// Time-out for a chunk, plus one second per `SLOWEST_BYTES_PER_S` bytes.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_S: u64 = 64 << 10;

/// Failed attempts in a row before a machine is abandoned, and the pause between them. A broken connection recovers
/// within this time or not soon.
const FAILURES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// Why a machine that was asked for bytes is not usable.
enum SourceFailure {
    /// It left, or does not have the model.
    Gone(String),
    /// It sent bytes that are not the model's.
    Wrong,
    /// This machine's disk cannot store the bytes.
    Disk(std::io::Error),
}

impl StageHost {
    /// Fetches the outline of a model from a machine that has it.
    pub(super) async fn outline_from(&self, peer: PeerId, digest: &str) -> Result<Model, FetchFailure> {
        let other = |why: &str| FetchFailure::Other(why.to_owned());
        let addr = self.membership().peers().addr(peer);
        let opened = self.open_channel(&addr, &Request::Outline(digest.to_owned())).await;
        let mut channel = opened.map_err(FetchFailure::Other)?;
        let mut buffer = Vec::new();
        let first = next(&mut channel, &mut buffer).await.map_err(FetchFailure::Other)?;
        let TransferMessage::Manifest(manifest) = first else {
            return Err(other("it was not sent"));
        };
        let manifest = manifest.checked().map_err(FetchFailure::other)?;
        if manifest.origin.is_none() && manifest.digest.as_deref() != Some(digest) {
            return Err(other("it is not the requested model"));
        }
        let store = self.inner.fetching.store();
        let is_new = aside(|| !store.has(&manifest));
        let copy = aside(|| store.open(&manifest)).map_err(FetchFailure::other)?;
        let in_use = aside(|| copy.in_use());
        let (known, was_known) = aside(|| (copy.known(), copy.was_known()));
        if was_known.is_some_and(|known| known.digest != digest) {
            return Err(other("files of the same names and sizes are here, of another model"));
        }
        let largest = if known.is_some() { 0 } else { manifest.files.iter().map(|file| file.bytes).sum() };
        let room = aside(|| {
            let needed = LARGEST_OUTLINE.min(largest);
            self.inner.fetching.make_room(&copy, needed, LEFT_TO_OWNER, |other| self.remove_parts(other))
        });
        let (room, taken) = match (room, known) {
            (Err(why), _) => (None, Err(why)),
            (Ok(room), Some(_)) => (Some(room), Ok(())),
            (Ok(room), None) => {
                let receiving = self.receive_outline(&mut channel, &copy, digest);
                let late = || Err("its outline did not arrive in time".to_owned());
                let taken = tokio::time::timeout(OUTLINE_TIMEOUT, receiving).await.unwrap_or_else(|_| late());
                (Some(room), taken.map_err(FetchFailure::Other))
            }
        };
        let settled = match taken {
            Ok(()) => {
                let before = aside(|| copy.was_known()).filter(|known| known.digest == digest);
                let (revision, is_public) = before.map_or((None, false), |known| (known.revision, known.is_public));
                let settled = self.settled(&copy, Some(digest), revision.as_deref(), is_public);
                settled.await.map_err(FetchFailure::Other)
            }
            Err(why) => Err(why),
        };
        drop((in_use, room));
        // Another machine may have sent it meanwhile.
        if settled.is_err() && is_new && aside(|| copy.known()).is_none() {
            let _ = aside(|| store.remove_unused(&copy));
        }
        settled
    }

    /// Writes an outline as it arrives. Unconfirmed bytes already here are kept only where they match.
    async fn receive_outline(&self, channel: &mut Channel, copy: &PartCopy, digest: &str) -> Result<(), String> {
        let (mut came, mut buffer) = (0, Vec::new());
        loop {
            match next(channel, &mut buffer).await? {
                TransferMessage::Piece { file, at, bytes } => {
                    came += bytes.len() as u64;
                    if bytes.is_empty() || came > LARGEST_OUTLINE {
                        return Err("its outline does not end".to_owned());
                    }
                    let range = at..at.saturating_add(bytes.len() as u64);
                    let written = aside(|| {
                        if write_new(copy, &file, at, bytes, PartCopy::write_unknown)? {
                            return Ok(true);
                        }
                        copy.forget_unknown(&file, range)?;
                        write_new(copy, &file, at, bytes, PartCopy::write_unknown)
                    });
                    if !written.map_err(|error| error.to_string())? {
                        return Err("another machine sends another outline of that model".to_owned());
                    }
                }
                TransferMessage::End => break,
                TransferMessage::Manifest(_) | TransferMessage::Nothing => return Err(STOPPED.to_owned()),
            }
        }
        // An outline contains no weights; those are requested separately and checked against samples.
        let model = models::open_at(&copy.path()).await.map_err(|error| error.to_string())?;
        let outline = model.outline().await.map_err(|error| error.to_string())?;
        let outline = in_files(copy.manifest(), &outline).map_err(|error| error.to_string())?;
        // After a power cut, most of the bytes fetched earlier are still here.
        if aside(|| copy.was_known()).is_some_and(|known| known.digest == digest) {
            return Ok(());
        }
        for file in copy.manifest().files.iter().filter(|file| is_weights(&file.name)) {
            let own = outline.iter().filter(|(of, _)| *of == file.name).map(|(_, range)| range.clone());
            for range in uncovered(0..file.bytes, &whole_blocks(own, file.bytes)) {
                aside(|| copy.forget_unknown(&file.name, range)).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Fetches chunks from one machine until none is left to request or the machine fails.
    pub(super) async fn fetch_chunks(
        &self,
        peer: PeerId,
        digest: &str,
        copy: &PartCopy,
        sources: &Sources,
    ) -> std::io::Result<()> {
        // A machine that has sent something is retried when its connection breaks: it may be back in a moment.
        let (mut failures, mut has_sent, mut buffer) = (0, false, Vec::new());
        while let Some(chunk) = sources.next(peer).await {
            let bytes: u64 = chunk.ranges.iter().map(|range| range.end - range.start).sum();
            let patience = CHUNK_TIMEOUT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_S);
            let asking = self.fetch_ranges(peer, digest, copy, &chunk, sources, &mut buffer);
            let asked = tokio::time::timeout(patience, asking).await;
            let still = || chunk.ranges.iter().flat_map(|range| copy.missing(&chunk.file, range.clone())).collect();
            let still: Vec<Range<u64>> = aside(still);
            let name = || self.membership().peers().name(peer);
            let Ok(asked) = asked else {
                // The hub may be faster.
                tracing::debug!("{} sends a chunk of a model too slowly", name());
                sources.put_back(chunk, peer, still);
                return Ok(());
            };
            has_sent |= still.iter().map(|range| range.end - range.start).sum::<u64>() < bytes;
            if let Err(SourceFailure::Gone(why)) = &asked {
                failures += 1;
                tracing::debug!(failures, "{} stopped sending a model: {why}", name());
                if !has_sent || failures >= FAILURES {
                    sources.put_back(chunk, peer, still);
                    return Ok(());
                }
                sources.return_unasked(chunk, still);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            sources.put_back(chunk, peer, still);
            match asked {
                Ok(()) => failures = 0,
                Err(SourceFailure::Gone(_)) => {}
                Err(SourceFailure::Wrong) => {
                    // Its earlier bytes are not trusted either.
                    for (file, range) in sources.ban(peer) {
                        aside(|| copy.forget(&file, range))?;
                    }
                    let name = name();
                    tracing::warn!("{name} sent wrong bytes of a model; they are downloaded from elsewhere");
                    self.membership().peers().notice(
                        peer,
                        format!("{name} sent wrong bytes of a model; they are downloaded from elsewhere."),
                    );
                    return Ok(());
                }
                Err(SourceFailure::Disk(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Requests a chunk from a machine, and writes the bytes as they arrive in `buffer`.
    async fn fetch_ranges(
        &self,
        peer: PeerId,
        digest: &str,
        copy: &PartCopy,
        chunk: &Chunk,
        sources: &Sources,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SourceFailure> {
        let Chunk { file, ranges, .. } = chunk;
        let gone = SourceFailure::Gone;
        let size = copy.manifest().size_of(file).unwrap_or(0);
        let asked = over_gaps(ranges);
        let (digest, name) = (digest.to_owned(), file.as_str().to_owned());
        let wanted = WantedBytes { digest, file: name, size, ranges: asked.clone() };
        let addr = self.membership().peers().addr(peer);
        let mut channel = self.open_channel(&addr, &Request::Bytes(wanted)).await.map_err(gone)?;
        let asked = whole_blocks(asked.into_iter(), size);
        let mut left: u64 = asked.iter().map(|range| range.end - range.start).sum();
        loop {
            match next(&mut channel, buffer).await.map_err(gone)? {
                TransferMessage::Piece { file: of, at, bytes } => {
                    let range = at..at.saturating_add(bytes.len() as u64);
                    if of != *file || !asked.iter().any(|asked| asked.start <= range.start && range.end <= asked.end) {
                        return Err(gone("it sends bytes that were not requested".to_owned()));
                    }
                    left = left
                        .checked_sub(bytes.len() as u64)
                        .filter(|_| !bytes.is_empty())
                        .ok_or_else(|| gone(STOPPED.to_owned()))?;
                    if whole_blocks(std::iter::once(range.clone()), size) != [range.clone()] {
                        return Err(gone("it sends parts of blocks".to_owned()));
                    }
                    // What is not read yet waits at the sender.
                    self.inner.copies.pass(bytes.len()).await;
                    // Bytes already here are not attributed to this machine, even if it sends them again.
                    if !sources.sent(peer, file, aside(|| copy.missing(file, range))) {
                        return Err(gone("it sends wrong bytes".to_owned()));
                    }
                    match aside(|| write_new(copy, file, at, bytes, PartCopy::write_unconfirmed)) {
                        Ok(true) => {}
                        Ok(false) => return Err(SourceFailure::Wrong),
                        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                            return Err(gone(error.to_string()));
                        }
                        Err(error) => return Err(SourceFailure::Disk(error)),
                    }
                }
                TransferMessage::End => return Ok(()),
                TransferMessage::Manifest(_) | TransferMessage::Nothing => {
                    return Err(gone("it does not have the model".to_owned()));
                }
            }
        }
    }

    pub(super) async fn open_channel(&self, machine: &PeerAddr, request: &Request) -> Result<Channel, String> {
        let addr = self.membership().latest_addr(machine);
        let opening = self.membership().endpoint().open(&addr, Protocol::Control);
        let mut channel = opening.await.map_err(|error| error.to_string())?;
        channel.write_message(request).await.map_err(|error| error.to_string())?;
        Ok(channel)
    }
}

async fn next<'a>(channel: &mut Channel, buffer: &'a mut Vec<u8>) -> Result<TransferMessage<&'a [u8]>, String> {
    match tokio::time::timeout(SILENCE, channel.read_part_into(buffer)).await {
        Ok(Ok(Some(given))) => Ok(given),
        Ok(Ok(None)) => Err(STOPPED.to_owned()),
        Ok(Err(error)) => Err(border::reason(&error.to_string())),
        Err(_) => Err(format!("it sent nothing for {} s", SILENCE.as_secs())),
    }
}

/// Ranges in order, joined over small gaps.
fn over_gaps(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= GAP_BYTES => last.end = last.end.max(range.end),
            _ => joined.push(range.clone()),
        }
    }
    joined
}

/// Writes those blocks that are missing. Returns `false`, and writes nothing, if a block already here differs.
fn write_new(
    copy: &PartCopy,
    file: &FileName,
    at: u64,
    bytes: &[u8],
    write: impl Fn(&PartCopy, &FileName, u64, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<bool> {
    let range = at..at.saturating_add(bytes.len() as u64);
    let within = |part: &Range<u64>| {
        let (start, end) = (part.start.max(range.start), part.end.min(range.end));
        (start, (start - at) as usize..(end - at) as usize)
    };
    for known in copy.present(file, range.clone()) {
        let (start, part) = within(&known);
        if copy.read(file, start..start + part.len() as u64)? != bytes[part] {
            return Ok(false);
        }
    }
    for missing in copy.missing(file, range.clone()) {
        let (start, part) = within(&missing);
        write(copy, file, start, &bytes[part])?;
    }
    Ok(true)
}

/// The parts of `range` that no range in `known` covers; `known` is sorted.
pub(super) fn uncovered(range: Range<u64>, known: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut start = range.start;
    let mut uncovered = Vec::new();
    for known in known.iter().filter(|known| known.start < range.end && known.end > range.start) {
        if start < known.start {
            uncovered.push(start..known.start);
        }
        start = start.max(known.end);
    }
    if start < range.end {
        uncovered.push(start..range.end);
    }
    uncovered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_ranges_are_uncovered() {
        assert_eq!(uncovered(2..20, &[0..4, 6..8, 8..10, 15..30]), [4..6, 10..15]);
        assert_eq!(uncovered(2..4, &[0..1, 4..9]).len(), 1);
        assert!(uncovered(2..4, &[0..3, 3..9]).is_empty());
    }

    #[test]
    fn small_gaps_are_asked_for_too() {
        let ranges = [0..10, 10 + GAP_BYTES..20 + GAP_BYTES, 21 + 2 * GAP_BYTES..30 + 2 * GAP_BYTES];
        assert_eq!(over_gaps(&ranges), [0..20 + GAP_BYTES, ranges[2].clone()]);
    }
}
