//! Takes a model's bytes from other machines: its outline, and chunks of its layers.

use std::ops::Range;
use std::time::Duration;

use hive_net::{Channel, PeerAddr, PeerId, Protocol, border};
use hive_protocol::{Request, WantedBytes};
use hive_store::{FileName, PartCopy};
use hive_worker::Raw;
use hive_worker::text::Model;

use super::StageHost;
use super::fetching::{LEFT_TO_OWNER, SILENCE, in_files};
use super::giving::whole_blocks;
use crate::fetching::held::is_weights;
use crate::fetching::message::{Given, STOPPED};
use crate::fetching::{FetchFailure, Sources};
use crate::models;
use crate::runtime::aside;

/// Ranges with a smaller gap between them are asked for as one. What lies in the gap is here already, and tells whether
/// the other machine has the same model.
const GAP_BYTES: u64 = 64 << 10;
/// The largest outline in bytes: a tokenizer of 30 MB, headers of 100 MB, and three blocks for each of 20,000 tensors.
pub(super) const LARGEST_OUTLINE: u64 = 1 << 30;

/// A machine must send an outline within this time.
const OUTLINE_TIMEOUT: Duration = Duration::from_mins(10);
/// And a chunk within this, and a second more for so many bytes.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_S: u64 = 64 << 10;

/// Attempts in a row to have something from a machine, and the pause between them: a line comes back within this, or is
/// gone for longer.
const FAILURES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// How a machine that was asked for bytes has disappointed.
enum Disappointment {
    /// It is gone, or does not have the model.
    Gone(String),
    /// It sent other bytes than the model has.
    Wrong,
    /// This machine's disk cannot take what came.
    Disk(std::io::Error),
}

impl StageHost {
    /// Fetches the outline of a model from a machine that has it.
    pub(super) async fn outline_from(&self, peer: PeerId, digest: &str) -> Result<Model, FetchFailure> {
        let other = |why: &str| FetchFailure::Other(why.to_owned());
        let addr = self.membership().peers().addr(peer);
        let opened = self.open_channel(&addr, &Request::Outline(digest.to_owned())).await;
        let mut channel = opened.map_err(FetchFailure::Other)?;
        let Given::Manifest(manifest) = next(&mut channel).await.map_err(FetchFailure::Other)? else {
            return Err(other("it was not given"));
        };
        let manifest = manifest.checked().map_err(FetchFailure::other)?;
        if manifest.origin.is_none() && manifest.digest.as_deref() != Some(digest) {
            return Err(other("it is another model than was asked for"));
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
                let taking = self.take_outline(&mut channel, &copy, digest);
                let late = || Err("its outline does not come".to_owned());
                let taken = tokio::time::timeout(OUTLINE_TIMEOUT, taking).await.unwrap_or_else(|_| late());
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

    /// Writes what comes of an outline. Nothing vouches for what is here of a model that is not known: it stays only as
    /// far as it is the same.
    async fn take_outline(&self, channel: &mut Channel, copy: &PartCopy, digest: &str) -> Result<(), String> {
        let mut came = 0;
        loop {
            match next(channel).await? {
                Given::Piece { file, at, bytes: Raw(bytes) } => {
                    came += bytes.len() as u64;
                    if bytes.is_empty() || came > LARGEST_OUTLINE {
                        return Err("its outline does not end".to_owned());
                    }
                    let range = at..at.saturating_add(bytes.len() as u64);
                    let written = aside(|| {
                        if write_new(copy, &file, at, &bytes, PartCopy::write_unknown)? {
                            return Ok(true);
                        }
                        copy.forget_unknown(&file, range)?;
                        write_new(copy, &file, at, &bytes, PartCopy::write_unknown)
                    });
                    if !written.map_err(|error| error.to_string())? {
                        return Err("another machine sends another outline of that model".to_owned());
                    }
                }
                Given::End => break,
                Given::Manifest(_) | Given::Nothing => return Err(STOPPED.to_owned()),
            }
        }
        // Weights come in answer to requests for them, and are checked against samples: an outline has none.
        let model = models::open_at(&copy.path()).await.map_err(|error| error.to_string())?;
        let outline = model.outline().await.map_err(|error| error.to_string())?;
        let outline = in_files(copy.manifest(), &outline).map_err(|error| error.to_string())?;
        // After a power cut, most of what was fetched of the same model is still here.
        if aside(|| copy.was_known()).is_some_and(|known| known.digest == digest) {
            return Ok(());
        }
        for file in copy.manifest().files.iter().filter(|file| is_weights(&file.name)) {
            let own = outline.iter().filter(|(of, _)| *of == file.name).map(|(_, range)| range.clone());
            for beyond in beyond(0..file.bytes, &whole_blocks(own, file.bytes)) {
                aside(|| copy.forget_unknown(&file.name, beyond)).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Takes chunks from one machine, until it has been asked for all of them, or disappoints.
    pub(super) async fn take_chunks(
        &self,
        peer: PeerId,
        digest: &str,
        copy: &PartCopy,
        sources: &Sources,
    ) -> std::io::Result<()> {
        // A machine that has sent something is asked again when its line is cut: that may be over in a moment.
        let (mut failures, mut has_sent) = (0, false);
        while let Some(chunk) = sources.next(peer).await {
            let bytes: u64 = chunk.ranges.iter().map(|range| range.end - range.start).sum();
            let patience = CHUNK_TIMEOUT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_S);
            let asking = self.take(peer, digest, copy, &chunk.file, &chunk.ranges, sources);
            let asked = tokio::time::timeout(patience, asking).await;
            let still = || chunk.ranges.iter().flat_map(|range| copy.missing(&chunk.file, range.clone())).collect();
            let still: Vec<Range<u64>> = aside(still);
            let name = || self.membership().peers().name(peer);
            let Ok(asked) = asked else {
                // The hub may be faster.
                tracing::debug!("{} is too slow to send more of a model", name());
                sources.put_back(chunk, peer, still);
                return Ok(());
            };
            has_sent |= still.iter().map(|range| range.end - range.start).sum::<u64>() < bytes;
            if let Err(Disappointment::Gone(why)) = &asked {
                failures += 1;
                tracing::debug!(failures, "{} does not send more of a model: {why}", name());
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
                Err(Disappointment::Gone(_)) => {}
                Err(Disappointment::Wrong) => {
                    // What it sent before is of the same kind.
                    for (file, range) in sources.ban(peer) {
                        aside(|| copy.forget(&file, range))?;
                    }
                    let name = name();
                    tracing::warn!("{name} sent other bytes than the model has; it is not asked any more");
                    self.membership()
                        .peers()
                        .notice(peer, format!("{name} sent wrong bytes of a model; they come from elsewhere."));
                    return Ok(());
                }
                Err(Disappointment::Disk(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks a machine for ranges of a file, and writes what comes.
    async fn take(
        &self,
        peer: PeerId,
        digest: &str,
        copy: &PartCopy,
        file: &FileName,
        ranges: &[Range<u64>],
        sources: &Sources,
    ) -> Result<(), Disappointment> {
        let gone = Disappointment::Gone;
        let size = copy.manifest().size_of(file).unwrap_or(0);
        let asked = over_gaps(ranges);
        let (digest, name) = (digest.to_owned(), file.as_str().to_owned());
        let wanted = WantedBytes { digest, file: name, size, ranges: asked.clone() };
        let addr = self.membership().peers().addr(peer);
        let mut channel = self.open_channel(&addr, &Request::Bytes(wanted)).await.map_err(gone)?;
        let asked = whole_blocks(asked.into_iter(), size);
        let mut left: u64 = asked.iter().map(|range| range.end - range.start).sum();
        loop {
            match next(&mut channel).await.map_err(gone)? {
                Given::Piece { file: of, at, bytes: Raw(bytes) } => {
                    let range = at..at.saturating_add(bytes.len() as u64);
                    if of != *file || !asked.iter().any(|asked| asked.start <= range.start && range.end <= asked.end) {
                        return Err(gone("it sends what it was not asked for".to_owned()));
                    }
                    left = left
                        .checked_sub(bytes.len() as u64)
                        .filter(|_| !bytes.is_empty())
                        .ok_or_else(|| gone(STOPPED.to_owned()))?;
                    if whole_blocks(std::iter::once(range.clone()), size) != [range.clone()] {
                        return Err(gone("it sends parts of blocks".to_owned()));
                    }
                    // What was here before did not come from there, even if it is sent again.
                    if !sources.sent(peer, file, aside(|| copy.missing(file, range))) {
                        return Err(gone("it sends wrong bytes".to_owned()));
                    }
                    match aside(|| write_new(copy, file, at, &bytes, PartCopy::write_unconfirmed)) {
                        Ok(true) => {}
                        Ok(false) => return Err(Disappointment::Wrong),
                        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                            return Err(gone(error.to_string()));
                        }
                        Err(error) => return Err(Disappointment::Disk(error)),
                    }
                }
                Given::End => return Ok(()),
                Given::Manifest(_) | Given::Nothing => return Err(gone("it does not have the model".to_owned())),
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

async fn next(channel: &mut Channel) -> Result<Given, String> {
    match tokio::time::timeout(SILENCE, channel.read_part()).await {
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

/// Writes what is new of some whole blocks. `false`, and nothing is written, if others are here already and differ.
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

/// What of a range lies in none of these, which are in order.
pub(super) fn beyond(range: Range<u64>, known: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut start = range.start;
    let mut beyond = Vec::new();
    for known in known.iter().filter(|known| known.start < range.end && known.end > range.start) {
        if start < known.start {
            beyond.push(start..known.start);
        }
        start = start.max(known.end);
    }
    if start < range.end {
        beyond.push(start..range.end);
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_ranges_is_beyond_them() {
        assert_eq!(beyond(2..20, &[0..4, 6..8, 8..10, 15..30]), [4..6, 10..15]);
        assert_eq!(beyond(2..4, &[0..1, 4..9]).len(), 1);
        assert!(beyond(2..4, &[0..3, 3..9]).is_empty());
    }

    #[test]
    fn small_gaps_are_asked_for_too() {
        let ranges = [0..10, 10 + GAP_BYTES..20 + GAP_BYTES, 21 + 2 * GAP_BYTES..30 + 2 * GAP_BYTES];
        assert_eq!(over_gaps(&ranges), [0..20 + GAP_BYTES, ranges[2].clone()]);
    }
}
