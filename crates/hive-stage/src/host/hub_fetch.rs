//! Fetches from a model's hub: its outline, so that plans can include the model, and the bytes that no machine has.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use hive_store::{
    FetchError, FetchOptions, FileName, Hub, HubError, Known, Listing, MAIN, Manifest, ModelName, PartCopy, fetch_parts,
};
use hive_worker::text::Model;

use super::StageHost;
use super::fetching::in_files;
use super::peer_fetch::{LARGEST_OUTLINE, uncovered};
use super::serve_parts::whole_blocks;
use crate::fetching::FetchFailure;
use crate::fetching::held::is_weights;
use crate::models::{self, FindError};
use crate::runtime::aside;

/// The longest header of a safetensors file that is fetched, in bytes; the largest real ones have ten megabytes.
const LONGEST_HEADER: u64 = 128 << 20;
/// How much of a GGUF file's beginning is fetched to find its header, in bytes. Vocabularies make up most of it.
const GGUF_HEADERS: [u64; 3] = [8 << 20, 32 << 20, 128 << 20];

impl StageHost {
    /// Opens a model for people and programs here. If it is only on a hub, fetches its outline.
    pub async fn open_model(&self, name: Option<&str>) -> Result<Model, FindError> {
        let unknown = match self.catalogue().open_model(name).await {
            Err(unknown @ FindError::Unknown { .. }) => unknown,
            opened => return opened,
        };
        let Some(wanted) = name.and_then(|name| name.parse().ok()) else { return Err(unknown) };
        match self.outline_from_hub(&wanted).await {
            Ok(Some(model)) => Ok(model.quantized(self.catalogue().at_load())),
            Ok(None) => Err(unknown),
            Err(FetchFailure::Denied(why)) => Err(FindError::Denied { name: wanted.to_string(), why }),
            Err(why) => Err(FindError::Unfetched { name: wanted.to_string(), why: why.to_string() }),
        }
    }

    /// Fetches these ranges from the model's hub where no machine has them. `wanted` is everything that is needed of
    /// the model: a file that is needed whole is checked against the hub's checksum.
    pub(super) async fn fetch_from_hub(
        &self,
        manifest: &Manifest,
        copy: &PartCopy,
        wanted: Vec<(FileName, Range<u64>)>,
        is_own: bool,
        report: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), FetchFailure> {
        let (hub, listing) = self.listed_at_hub(manifest, is_own).await?;
        let there = Manifest::of(&listing);
        let is_there = |(file, _): &(FileName, Range<u64>)| {
            let known = manifest.files.iter().find(|known| known.name == *file);
            known.is_some_and(|known| there.files.contains(known))
        };
        if !wanted.iter().all(is_there) {
            let repository = listing.model.repository();
            return Err(FetchFailure::Other(format!("{repository} has other files on the hub")));
        }
        let (told, mut heard) = tokio::sync::watch::channel(0);
        let options = FetchOptions {
            on_event: Some(Box::new(move |event| {
                if let hive_store::Event::Progress(progress) = event {
                    told.send_replace(progress.bytes_total.saturating_sub(progress.bytes_done));
                }
            })),
            limit: self.inner.fetching.hub_limit().clone(),
            ..FetchOptions::default()
        };
        let fetching = fetch_parts(&hub, &listing, copy, &wanted, &options);
        tokio::pin!(fetching);
        loop {
            tokio::select! {
                fetched = &mut fetching => {
                    fetched.map_err(|error| match error {
                        FetchError::Hub(why) => FetchFailure::hub(why),
                        why => FetchFailure::other(why),
                    })?;
                    break;
                }
                Ok(()) = heard.changed() => report(*heard.borrow_and_update()),
            }
        }
        match aside(|| copy.known()) {
            Some(known) if !hub.has_token() && !known.is_public => {
                aside(|| copy.settle(&Known { is_public: true, ..known })).map_err(FetchFailure::other)
            }
            _ => Ok(()),
        }
    }

    /// A model's hub, if it may be asked, with its listing of the model.
    async fn listed_at_hub(&self, manifest: &Manifest, is_own: bool) -> Result<(Arc<Hub>, Listing), FetchFailure> {
        let origin = manifest.origin.as_ref().ok_or(FetchFailure::Away)?;
        let no_hub = || {
            FetchFailure::Hub(format!(
                "no machine here has all of these layers of {0}, and this one may not download; run `hivemind models get {0}` \
                 on a machine that may",
                origin.repository
            ))
        };
        // The owner's token is used for the owner only: a gated model is not for the machine that asks.
        let hub = if is_own { self.inner.fetching.hub() } else { self.inner.fetching.hub_for_all() };
        let hub = hub.ok_or_else(no_hub)?.map_err(FetchFailure::hub)?;
        let listing = hub.listing_at(origin, manifest.gguf.as_ref()).await.map_err(FetchFailure::hub)?;
        Ok((hub, listing))
    }

    /// Whether the hub can be asked for a model that no machine has.
    pub(super) async fn check_hub_has(&self, manifest: &Manifest) -> Result<(), FetchFailure> {
        self.listed_at_hub(manifest, true).await.map(|_| ())
    }

    /// Fetches the outline of a model from the hub, so that it can be opened and planned with, and its layers fetched by
    /// the machines that compute them.
    async fn outline_from_hub(&self, name: &ModelName) -> Result<Option<Model>, FetchFailure> {
        let Some(hub) = self.inner.fetching.hub() else { return Ok(None) };
        let hub = hub.map_err(FetchFailure::other)?;
        if hub.is_offline() {
            return Ok(None);
        }
        let listing = hub.find(name).await.map_err(|error| match error {
            hive_store::FindError::Hub(why @ (HubError::Gated { .. } | HubError::Unauthorized { .. })) => {
                FetchFailure::Denied(why)
            }
            why => FetchFailure::other(why),
        })?;
        let manifest = Manifest::of(&listing);
        // Whoever asks for the same model meanwhile waits for this outline.
        let turn = self.inner.fetching.turn(&manifest.key());
        let _turn_lock = turn.lock().await;
        if let Ok(model) = self.catalogue().open_model(Some(&name.to_string())).await {
            return Ok(Some(model));
        }
        let copy = aside(|| self.inner.fetching.store().open(&manifest)).map_err(FetchFailure::other)?;
        let _in_use = aside(|| copy.in_use());
        let before = aside(|| copy.was_known());
        let largest = manifest.files.iter().map(|file| file.bytes).sum::<u64>().min(LARGEST_OUTLINE);
        let needed = if before.is_some() { 0 } else { largest };
        let _room = aside(|| self.inner.fetching.make_room(&copy, needed, 0, |other| self.remove_parts(other)))?;
        let is_confirmed = aside(|| copy.known()).is_some_and(|known| known.revision.is_some());
        // One commit may have several names. The shortest stays.
        let is_main = before.as_ref().is_some_and(|known| known.revision.as_deref() == Some(MAIN));
        let was_public = before.as_ref().is_some_and(|known| known.is_public);
        let _confirming = if is_confirmed { None } else { Some(aside(|| copy.confirming())) };
        let hub_ranges = HubRanges::default();
        let fetch = async |wanted: Vec<(FileName, Range<u64>)>| {
            if !is_confirmed {
                // The bytes here may be another machine's, and may not belong to this model.
                aside(|| hub_ranges.forget_others(&copy, &wanted)).map_err(FetchFailure::other)?;
            }
            let options = FetchOptions { limit: self.inner.fetching.hub_limit().clone(), ..FetchOptions::default() };
            let fetched = fetch_parts(&hub, &listing, &copy, &wanted, &options).await;
            hub_ranges.add(wanted);
            fetched.map_err(FetchFailure::other)
        };
        let files = || manifest.files.iter();
        let small = files().filter(|file| !is_weights(&file.name)).map(|file| (file.name.clone(), 0..file.bytes));
        let starts = files().filter(|file| is_weights(&file.name));
        if manifest.gguf.is_none() {
            // A safetensors file begins with the length of its header.
            let lengths = starts.clone().map(|file| (file.name.clone(), 0..file.bytes.min(8)));
            fetch(small.chain(lengths).collect()).await?;
            let mut headers = Vec::new();
            for file in starts {
                let length = aside(|| copy.read(&file.name, 0..file.bytes.min(8))).map_err(FetchFailure::other)?;
                let length = length.try_into().map_or(0, u64::from_le_bytes);
                headers.push((file.name.clone(), 0..length.saturating_add(8).min(file.bytes).min(LONGEST_HEADER)));
            }
            fetch(headers).await?;
        } else {
            fetch(small.collect()).await?;
            for most in GGUF_HEADERS {
                fetch(starts.clone().map(|file| (file.name.clone(), 0..file.bytes.min(most))).collect()).await?;
                if models::open_at(&copy.path()).await.is_ok() {
                    break;
                }
            }
        }
        let model = models::open_at(&copy.path()).await.map_err(FetchFailure::other)?;
        let outline = model.outline().await.map_err(FetchFailure::other)?;
        fetch(in_files(&manifest, &outline)?).await?;
        if !is_confirmed {
            let now = models::open_at(&copy.path()).await.map_err(FetchFailure::other)?;
            // The model was never known, and another machine has sent part of an outline.
            if before.is_none_or(|before| before.digest != now.card().digest) {
                tracing::debug!("the bytes of {name} that were here are not the hub's");
                let all: Vec<_> = manifest.files.iter().map(|file| (file.name.clone(), 0..file.bytes)).collect();
                aside(|| hub_ranges.forget_others(&copy, &all)).map_err(FetchFailure::other)?;
            }
        }
        let revision = if is_main { MAIN } else { name.revision() };
        let settled = self.settled(&copy, None, Some(revision), was_public || !hub.has_token());
        settled.await.map(Some).map_err(FetchFailure::Other)
    }
}

/// The ranges that came from the hub itself.
#[derive(Default)]
struct HubRanges(Mutex<Vec<(FileName, Range<u64>)>>);

impl HubRanges {
    fn add(&self, ranges: Vec<(FileName, Range<u64>)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ranges);
    }

    /// Discards bytes in these ranges that came from elsewhere.
    fn forget_others(&self, copy: &PartCopy, ranges: &[(FileName, Range<u64>)]) -> std::io::Result<()> {
        let hub_ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (file, range) in ranges {
            let size = copy.manifest().size_of(file).unwrap_or(0);
            let own = hub_ranges.iter().filter(|(of, _)| of == file).map(|(_, range)| range.clone());
            let [own, range] = [whole_blocks(own, size), whole_blocks(std::iter::once(range.clone()), size)];
            for range in range.into_iter().flat_map(|range| uncovered(range, &own)) {
                if !copy.present(file, range.clone()).is_empty() {
                    copy.forget(file, range)?;
                }
            }
        }
        Ok(())
    }
}
