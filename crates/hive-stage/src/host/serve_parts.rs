//! Sends other machines a model's outline and byte ranges of its files.
//!
//! A machine learns nothing of models whose digest it does not know. It may have models whose layers this machine has
//! asked it to hold; and, if this owner has no token for the hub, models from the hub, which are public.

use std::ops::Range;

use bytes::Bytes;
use hive_net::{Channel, PeerId};
use hive_protocol::{ModelSource, WantedBytes};
use hive_store::{BLOCK, FileName};

use super::StageHost;
use crate::fetching::buffers::Buffers;
use crate::fetching::held::{Held, is_weights};
use crate::fetching::message::{PIECE_BYTES, TransferMessage};
use crate::models;
use crate::runtime::aside;

impl StageHost {
    /// Sends a model's outline: the parts of its files that identify it.
    pub(super) async fn give_outline(&self, to: PeerId, digest: &str, mut channel: Channel) {
        if let Err(why) = self.try_give_outline(to, digest, &mut channel).await {
            tracing::info!("the outline of a model was not sent: {why}");
            let _ = send(&mut channel, &TransferMessage::Nothing).await;
        }
        channel.finish();
    }

    async fn try_give_outline(&self, to: PeerId, digest: &str, channel: &mut Channel) -> Result<(), String> {
        let path = aside(|| self.catalogue().path_of(digest)).ok_or("it is not here")?;
        let held = aside(|| Held::at(self.inner.fetching.store(), &path, digest)).map_err(|error| error.to_string())?;
        self.check_may_have(to, &held, digest)?;
        let model = models::open_at(&path).await.map_err(|error| error.to_string())?;
        if model.card().digest != digest {
            return Err("its files have changed".to_owned());
        }
        let outline = model.outline().await.map_err(|error| error.to_string())?;
        let manifest = held.manifest().clone();
        send(channel, &TransferMessage::Manifest(Box::new(manifest.clone()))).await?;
        let whole = manifest.files.iter().filter(|file| !is_weights(&file.name));
        let buffers = Buffers::default();
        for file in whole {
            self.send_range(&held, &file.name, 0..file.bytes, &buffers, channel).await?;
        }
        for file in manifest.files.iter().filter(|file| is_weights(&file.name)) {
            let name = file.name.as_str().rsplit('/').next().unwrap_or_default();
            let own = outline.iter().filter(|extent| extent.file == name);
            for range in whole_blocks(own.map(|extent| extent.bytes.clone()), file.bytes) {
                self.send_range(&held, &file.name, range, &buffers, channel).await?;
            }
        }
        send(channel, &TransferMessage::End).await
    }

    /// Sends the blocks of some ranges of a model's file that are here.
    pub(super) async fn give_bytes(&self, to: PeerId, wanted: WantedBytes, mut channel: Channel) {
        if let Err(why) = self.try_give_bytes(to, wanted, &mut channel).await {
            tracing::debug!("bytes of a model were not sent: {why}");
            let _ = send(&mut channel, &TransferMessage::Nothing).await;
        }
        channel.finish();
    }

    async fn try_give_bytes(&self, to: PeerId, wanted: WantedBytes, channel: &mut Channel) -> Result<(), String> {
        let WantedBytes { digest, file, size, ranges } = wanted;
        let file = FileName::new(&file).ok_or("no file has that name")?;
        let helds = aside(|| {
            let paths = self.catalogue().paths_of(&digest).into_iter();
            let held = paths.filter_map(|path| Held::at(self.inner.fetching.store(), &path, &digest).ok());
            held.filter(|held| held.has(&file, size)).collect::<Vec<_>>()
        });
        let whole = helds.iter().find(|held| matches!(held, Held::Whole { .. }));
        let held = whole.or(helds.first()).ok_or("it is not here")?;
        self.check_may_have(to, held, &digest)?;
        channel.give_way();
        let buffers = Buffers::default();
        for range in whole_blocks(ranges.into_iter(), size) {
            for present in aside(|| held.present(&file, range)) {
                self.send_range(held, &file, present, &buffers, channel).await?;
            }
        }
        send(channel, &TransferMessage::End).await
    }

    async fn send_range(
        &self,
        held: &Held,
        file: &FileName,
        range: Range<u64>,
        buffers: &Buffers,
        channel: &mut Channel,
    ) -> Result<(), String> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + PIECE_BYTES);
            let mut buffer = buffers.take((end - at) as usize);
            self.inner.pace.pass(buffer.as_ref().len()).await;
            self.inner.copies.pass(buffer.as_ref().len()).await;
            aside(|| held.read(file, at, buffer.as_mut())).map_err(|error| error.to_string())?;
            let bytes = Bytes::from_owner(buffer);
            let head = TransferMessage::Piece { file: file.clone(), at, bytes: bytes.len() };
            channel.write_part_ending(&head, bytes).await.map_err(|error| error.to_string())?;
            at = end;
        }
        Ok(())
    }

    /// Notes that a machine is asked to hold layers of a model.
    pub fn gives(&self, machine: PeerId, source: &ModelSource) {
        if let ModelSource::Named(_, digest) = source {
            self.inner.fetching.give(machine, digest);
        }
    }

    fn check_may_have(&self, peer: PeerId, held: &Held, digest: &str) -> Result<(), String> {
        // With a token, this owner may have models that are not public.
        let is_public = || {
            let as_owner = self.inner.fetching.hub().and_then(Result::ok).is_none_or(|hub| hub.has_token());
            // A model from another machine may be for this one only, unless the hub serves it too.
            let is_of_hub = match held {
                Held::Whole { manifest, .. } => manifest.origin.is_some(),
                Held::Parts(copy) => aside(|| copy.known()).is_some_and(|known| known.is_public),
            };
            is_of_hub && !as_owner && self.membership().may_see_prompts(peer)
        };
        if self.inner.fetching.is_given(peer, digest) || is_public() {
            return Ok(());
        }
        Err("that machine was not asked to hold layers of it".to_owned())
    }
}

async fn send(channel: &mut Channel, given: &TransferMessage) -> Result<(), String> {
    channel.write_part(given).await.map_err(|error| error.to_string())
}

/// Ranges of a file, widened to whole blocks and joined where they touch.
pub(super) fn whole_blocks(ranges: impl Iterator<Item = Range<u64>>, size: u64) -> Vec<Range<u64>> {
    let widen = |Range { start, end }: Range<u64>| {
        let end = end.min(size);
        start.min(end) / BLOCK * BLOCK..end.next_multiple_of(BLOCK).min(size)
    };
    let mut widened: Vec<Range<u64>> = ranges.map(widen).filter(|range| !range.is_empty()).collect();
    widened.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in widened {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_whole_blocks_that_end_with_the_file() {
        let size = 3 * BLOCK + 10;
        let ranges =
            [2 * BLOCK + 5..2 * BLOCK + 6, 1..2, BLOCK - 1..BLOCK, size - 1..size + 100, 5..5, size + 7..size + 9];
        assert_eq!(whole_blocks(ranges.into_iter(), size), [0..BLOCK, 2 * BLOCK..size]);
    }
}
