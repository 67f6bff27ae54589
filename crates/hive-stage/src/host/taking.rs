//! Takes a model's bytes from other machines: its outline, and chunks of its layers.

use std::ops::Range;

use hive_net::{Channel, PeerAddr, PeerId, Protocol, border};
use hive_protocol::{Request, WantedBytes};
use hive_store::{FileName, PartCopy};
use hive_worker::Raw;
use hive_worker::text::Model;

use super::StageHost;
use super::fetching::SILENCE;
use super::giving::whole_blocks;
use crate::fetching::Sources;
use crate::fetching::message::Given;
use crate::runtime::aside;

/// Ranges with a smaller gap between them are asked for as one. What lies in the gap is here already, and tells whether
/// the other machine has the same model.
const GAP_BYTES: u64 = 64 << 10;
/// The largest outline in bytes: a tokenizer of 30 MB, headers of 100 MB, and three blocks for each of 20,000 tensors.
const LARGEST_OUTLINE: u64 = 1 << 30;

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
    pub(super) async fn outline_from(&self, peer: PeerId, digest: &str) -> Result<Model, String> {
        let addr = self.membership().peers().addr(peer);
        let mut channel = self.open_channel(&addr, &Request::Outline(digest.to_owned())).await?;
        let Given::Manifest(manifest) = next(&mut channel).await? else { return Err("it was not given".to_owned()) };
        let manifest = manifest.checked().map_err(|error| error.to_string())?;
        if manifest.origin.is_none() && manifest.digest.as_deref() != Some(digest) {
            return Err("it is another model than was asked for".to_owned());
        }
        self.check_disk(0).map_err(|error| error.to_string())?;
        let copy = aside(|| self.inner.fetching.store().open(&manifest)).map_err(|error| error.to_string())?;
        let mut came = 0;
        loop {
            match next(&mut channel).await? {
                Given::Piece { file, at, bytes: Raw(bytes) } => {
                    came += bytes.len() as u64;
                    if came > LARGEST_OUTLINE {
                        return Err("it does not end".to_owned());
                    }
                    aside(|| copy.write(&file, at, &bytes)).map_err(|error| error.to_string())?;
                }
                Given::End => break,
                Given::Manifest(_) | Given::Nothing => return Err("it broke off".to_owned()),
            }
        }
        self.settled(&copy, Some(digest)).await
    }

    /// Takes chunks from one machine, until it has been asked for all of them, or disappoints.
    pub(super) async fn take_chunks(
        &self,
        peer: PeerId,
        digest: &str,
        copy: &PartCopy,
        sources: &Sources,
    ) -> std::io::Result<()> {
        while let Some(chunk) = sources.next(peer).await {
            let asked = self.take(peer, digest, copy, &chunk.file, &chunk.ranges).await;
            let still = || chunk.ranges.iter().flat_map(|range| copy.missing(&chunk.file, range.clone())).collect();
            let still: Vec<Range<u64>> = aside(still);
            sources.put_back(chunk, peer, still);
            match asked {
                Ok(()) => {}
                Err(Disappointment::Gone(why)) => {
                    let name = self.membership().peers().name(peer);
                    tracing::debug!("{name} does not send more of a model: {why}");
                    return Ok(());
                }
                Err(Disappointment::Wrong) => {
                    let name = self.membership().peers().name(peer);
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
    ) -> Result<(), Disappointment> {
        let gone = Disappointment::Gone;
        let size = copy.manifest().files.iter().find(|known| known.name == *file).map_or(0, |known| known.bytes);
        let asked = over_gaps(ranges);
        let (digest, name) = (digest.to_owned(), file.as_str().to_owned());
        let wanted = WantedBytes { digest, file: name, size, ranges: asked.clone() };
        let addr = self.membership().peers().addr(peer);
        let mut channel = self.open_channel(&addr, &Request::Bytes(wanted)).await.map_err(gone)?;
        let asked = whole_blocks(asked.into_iter(), size);
        loop {
            match next(&mut channel).await.map_err(gone)? {
                Given::Piece { file: of, at, bytes: Raw(bytes) } => {
                    let range = at..at.saturating_add(bytes.len() as u64);
                    if of != *file || !asked.iter().any(|asked| asked.start <= range.start && range.end <= asked.end) {
                        return Err(gone("it sends what it was not asked for".to_owned()));
                    }
                    let same = aside(|| {
                        for known in copy.present(file, range.clone()) {
                            let known = known.start.max(range.start)..known.end.min(range.end);
                            let sent = &bytes[(known.start - at) as usize..(known.end - at) as usize];
                            if copy.read(file, known)? != sent {
                                return Ok(false);
                            }
                        }
                        copy.write(file, at, &bytes).map(|()| true)
                    });
                    if !same.map_err(Disappointment::Disk)? {
                        // What it sent before these bytes is of the same kind.
                        for range in ranges {
                            let _ = aside(|| copy.forget(file, range.clone()));
                        }
                        return Err(Disappointment::Wrong);
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
        Ok(Ok(None)) => Err("it broke off".to_owned()),
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
