//! Fetches the layers of a model that this machine lacks, before it loads them.
//!
//! First comes the outline, from the machine that asks for the layers: with it, the model can be opened, and its digest
//! and the byte ranges of its layers are known. The ranges are fetched from every machine that has them, several at
//! once, and the rest from the model's hub.
//!
//! An outline contains samples of every tensor. A machine that sends other bytes than these is not asked again.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hive_net::{Channel, PeerAddr, PeerId};
use hive_protocol::{ModelSource, Reply, Request};
use hive_store::{FileName, InUse, Known, Manifest, PartCopy};
use hive_weights::Extent;
use hive_worker::text::Model;
use tokio::time::MissedTickBehavior;

use super::StageHost;
use crate::fetching::message::STOPPED;
use crate::fetching::{FetchFailure, Sources};
use crate::locate::{NotLocated, locate};
use crate::models;
use crate::runtime::aside;

/// A machine that sends nothing for this long is abandoned.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// The same for a machine that fetches and reports its progress: its disk may be slow.
const FETCH_SILENCE: Duration = Duration::from_mins(2);
/// Requests in flight to a machine: while one is answered, the next is on its way.
const REQUESTS: usize = 2;
/// Layers fetched for a plan are protected for this long until they are loaded: other machines may still be fetching.
const LOAD_TIMEOUT: Duration = Duration::from_mins(10);
/// How often progress is reported.
const REPORTS: Duration = Duration::from_millis(250);
/// Bytes left free on the disk when another machine requests layers here.
pub(super) const LEFT_TO_OWNER: u64 = 2 << 30;

impl StageHost {
    /// The model that another machine asks for layers of; its outline is fetched from there if it is not here.
    pub(super) async fn located_for(
        &self,
        asker: PeerId,
        source: &ModelSource,
        is_own: bool,
    ) -> Result<Model, NotLocated> {
        let located = locate(source, is_own, self.catalogue()).await;
        let (Err(NotLocated::Missing | NotLocated::AnotherVersion), ModelSource::Named(_, digest)) = (&located, source)
        else {
            return located;
        };
        if asker == self.membership().id() || !self.membership().profile().fetches || digest.is_empty() {
            return located;
        }
        match self.outline_from(asker, digest).await {
            Ok(model) => Ok(model),
            Err(why @ (FetchFailure::Disk { .. } | FetchFailure::Cap { .. })) => Err(NotLocated::NoRoom(why)),
            Err(why) => {
                tracing::info!("a model that is asked for is not here, and was not fetched: {why}");
                located
            }
        }
    }

    /// Opens a model whose outline is complete, and adds it to the catalogue. `revision` is what a hub was asked for,
    /// if it
    /// has confirmed the files; `is_public` says that it did so without a token.
    pub(super) async fn settled(
        &self,
        copy: &PartCopy,
        digest: Option<&str>,
        revision: Option<&str>,
        is_public: bool,
    ) -> Result<Model, String> {
        let model = models::open_at(&copy.path()).await.map_err(|error| error.to_string())?;
        let found = model.card().digest.clone();
        if digest.is_some_and(|digest| digest != found) {
            // If it was known as that model, what told so is gone: the next attempt takes the outline again.
            let _ = aside(|| copy.unsettle());
            return Err("it is another model than was asked for".to_owned());
        }
        let known = Known { digest: found, revision: revision.map(str::to_owned), is_public };
        aside(|| copy.sync().and_then(|()| copy.settle(&known))).map_err(|error| error.to_string())?;
        // The catalogue reads it now, so that other machines find it here.
        self.catalogue().nature(&copy.path()).await.map_err(|error| error.to_string())?;
        self.catalogue().look_again();
        // It has its name only now.
        models::open_at(&copy.path()).await.map_err(|error| error.to_string())
    }

    /// Brings the bytes of these layers to the disk, if the model is not whole here.
    pub(super) async fn complete(
        &self,
        model: &Model,
        layers: Range<usize>,
        asker: PeerId,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), FetchFailure> {
        let Some(copy) = aside(|| self.inner.fetching.copy_at(model.path())) else { return Ok(()) };
        let _in_use = aside(|| copy.in_use());
        let outline = model.outline().await.map_err(FetchFailure::other)?;
        let extents = model.extents(layers).await.map_err(FetchFailure::other)?;
        let wanted = joined([in_files(copy.manifest(), &extents)?, in_files(copy.manifest(), &outline)?].concat());
        let of = bytes(&wanted);
        let lacking =
            || wanted.iter().flat_map(|(file, range)| missing(&copy, file, range.clone())).collect::<Vec<_>>();
        let first = aside(lacking);
        if first.is_empty() {
            return Ok(());
        }
        if !self.membership().profile().fetches {
            return Err(FetchFailure::Lacks);
        }
        let needed = bytes(&first);
        let left = if asker == self.membership().id() { 0 } else { LEFT_TO_OWNER };
        let digest = &model.card().digest;
        if self.holders(digest, asker).is_empty() && aside(|| self.inner.fetching.would_remove(&copy, needed, left)) {
            // Nothing of the owner's makes room for what cannot come.
            self.check_hub_has(copy.manifest()).await?;
        }
        let mut coming =
            aside(|| self.inner.fetching.make_room(&copy, needed, left, |other| self.remove_parts(other)))?;
        progress(of.saturating_sub(needed), of);
        let sources = Sources::new(first);
        let mut reported = Instant::now();
        {
            let asked: Vec<PeerId> =
                self.holders(digest, asker).into_iter().flat_map(|peer| [peer; REQUESTS]).collect();
            let (sources, copy) = (&sources, &copy);
            let mut asking: FuturesUnordered<_> =
                asked.into_iter().map(|peer| self.fetch_chunks(peer, digest, copy, sources)).collect();
            let mut timer = tokio::time::interval(REPORTS);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    ended = asking.next() => match ended {
                        None => break,
                        Some(Ok(())) => {}
                        Some(Err(error)) => return Err(FetchFailure::other(error)),
                    },
                    _ = timer.tick() => {
                        reported = Instant::now();
                        let left = bytes(&aside(lacking));
                        coming.left(left);
                        progress(of.saturating_sub(left), of);
                    }
                }
            }
        }
        let left = sources.left();
        tracing::debug!(needed, hub_bytes = bytes(&left), "layers of a model are fetched");
        if !left.is_empty() {
            let is_own = asker == self.membership().id();
            let mut report = |left: u64| {
                if reported.elapsed() >= REPORTS {
                    reported = Instant::now();
                    coming.left(left);
                    progress(of.saturating_sub(left), of);
                }
            };
            match self.fetch_from_hub(copy.manifest(), &copy, wanted.clone(), is_own, &mut report).await {
                Err(FetchFailure::Hub(why)) if !is_own => {
                    // The machine that asks may have access, and then passes on the bytes it fetched.
                    tracing::info!("layers that another machine asks for cannot be had from the hub here: {why}");
                    return Err(FetchFailure::Lacks);
                }
                taken => taken?,
            }
        }
        aside(|| copy.sync()).map_err(FetchFailure::other)?;
        let left = bytes(&aside(lacking));
        progress(of.saturating_sub(left), of);
        if left == 0 {
            Ok(())
        } else {
            Err(FetchFailure::Other("part of the model did not arrive; try again".to_owned()))
        }
    }

    /// Whether some bytes of these layers would have to be fetched.
    pub(super) async fn lacks_bytes(&self, model: &Model, layers: Range<usize>) -> bool {
        let Some(copy) = aside(|| self.inner.fetching.copy_at(model.path())) else { return false };
        let Ok(extents) = model.extents(layers).await else { return true };
        let Ok(wanted) = in_files(copy.manifest(), &extents) else { return true };
        aside(|| wanted.iter().any(|(file, range)| !copy.missing(file, range.clone()).is_empty()))
    }

    /// Machines that may have bytes of a model: the one that asks for the layers first.
    fn holders(&self, digest: &str, asker: PeerId) -> Vec<PeerId> {
        let member = self.membership();
        let has =
            |copies: &[hive_protocol::ModelCopy]| copies.iter().any(|copy| copy.digest.as_deref() == Some(digest));
        let present = member.peers().present().into_iter();
        let others = present.filter(|(_, profile)| profile.copies.as_deref().is_some_and(has)).map(|(peer, _)| peer);
        let asker = Some(asker).filter(|asker| *asker != member.id());
        let others: Vec<PeerId> = others.filter(|peer| Some(*peer) != asker && *peer != member.id()).collect();
        asker.into_iter().chain(others).collect()
    }

    /// Has a machine fetch the layers that it lacks; `progress` gets the bytes present and their total.
    pub async fn fetch_on(
        &self,
        machine: &PeerAddr,
        source: &ModelSource,
        layers: Range<usize>,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<(), FetchFailure> {
        let member = self.membership();
        if machine.id() == member.id() {
            // Loading reports the error.
            let Ok(model) = self.located_for(member.id(), source, true).await else { return Ok(()) };
            return self.complete(&model, layers, member.id(), &mut progress).await;
        }
        if !member.peers().profile_of_present(machine.id()).is_some_and(|profile| profile.fetches) {
            return Ok(());
        }
        self.gives(machine.id(), source);
        match self.order_fetch(machine, source, layers.clone(), &mut progress).await {
            Err(FetchFailure::Lacks) => {}
            done => return done,
        }
        // It may not ask the hub, or has no token for this model. This machine fetches the layers in its place.
        let Ok(model) = self.located_for(member.id(), source, true).await else { return Err(FetchFailure::Lacks) };
        if !self.lacks_bytes(&model, layers.clone()).await {
            return Err(FetchFailure::Lacks);
        }
        let _kept_until_given = aside(|| self.keep_parts(model.path()));
        self.complete(&model, layers.clone(), member.id(), &mut progress).await.map_err(|why| {
            FetchFailure::Other(format!("no machine could give it these layers, and {} neither: {why}", member.name()))
        })?;
        self.order_fetch(machine, source, layers, &mut progress).await
    }

    /// Orders another machine to fetch the layers that it lacks.
    async fn order_fetch(
        &self,
        machine: &PeerAddr,
        source: &ModelSource,
        layers: Range<usize>,
        progress: &mut (impl FnMut(u64, u64) + Send),
    ) -> Result<(), FetchFailure> {
        let request = Request::Fetch(source.clone(), layers);
        let mut channel = self.open_channel(machine, &request).await.map_err(FetchFailure::Other)?;
        loop {
            let reply = tokio::time::timeout(FETCH_SILENCE, channel.read_message::<Reply>()).await;
            let silent =
                || FetchFailure::Other(format!("it said nothing for {} s while fetching", FETCH_SILENCE.as_secs()));
            match reply.map_err(|_| silent())?.map_err(FetchFailure::other)?.map(Reply::at_the_border) {
                Some(Reply::Fetched { done, of }) => progress(done, of),
                Some(Reply::Done) => return Ok(()),
                Some(Reply::Lacks) => return Err(FetchFailure::Lacks),
                Some(Reply::Declined(why) | Reply::Refused(why)) => return Err(FetchFailure::Other(why)),
                _ => return Err(FetchFailure::Other(STOPPED.to_owned())),
            }
        }
    }

    /// Protects layers fetched for another machine from eviction until that machine has them loaded.
    fn keep_until_loaded(&self, kept: Option<InUse>) {
        let Some(kept) = kept else { return };
        let member = self.membership().clone();
        self.membership().spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(LOAD_TIMEOUT) => {}
                () = member.stopping() => {}
            }
            drop(kept);
        });
    }

    /// Fetches the missing parts of layers that another machine will ask this one to load.
    pub(super) async fn answer_fetch(
        &self,
        asker: PeerId,
        source: &ModelSource,
        layers: Range<usize>,
        mut channel: Channel,
    ) {
        let hung_up = channel.hung_up();
        let (told, mut heard) = tokio::sync::watch::channel((0, 0));
        let fetching = async {
            if !self.profile_for(asker).sharing {
                return Reply::Declined("it does not share".to_owned());
            }
            let model = match self.located_for(asker, source, self.inner.trust_paths).await {
                Ok(model) => model,
                Err(NotLocated::NoRoom(why)) => return Reply::Declined(why.to_string()),
                Err(_) => return Reply::Lacks,
            };
            let kept = aside(|| self.keep_parts(model.path()));
            let mut progress = |done, of| _ = told.send_replace((done, of));
            match self.complete(&model, layers, asker, &mut progress).await {
                Ok(()) => {
                    self.keep_until_loaded(kept);
                    Reply::Done
                }
                Err(FetchFailure::Lacks) => Reply::Lacks,
                Err(why @ (FetchFailure::Disk { .. } | FetchFailure::Cap { .. } | FetchFailure::Away)) => {
                    Reply::Declined(why.to_string())
                }
                // The cause may name folders of this machine.
                Err(why) => {
                    tracing::warn!("layers of {} were not fetched: {why}", source.name());
                    Reply::Declined("it could not fetch the layers; its log says why".to_owned())
                }
            }
        };
        tokio::pin!(fetching, hung_up);
        // Said even if nothing has changed, so that the asker knows that this machine is at it.
        let mut alive = tokio::time::interval(SILENCE / 4);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reply = loop {
            tokio::select! {
                reply = &mut fetching => break reply,
                Ok(()) = heard.changed() => {}
                _ = alive.tick() => {}
                () = &mut hung_up => return,
            }
            let (done, of) = *heard.borrow_and_update();
            if channel.write_message(&Reply::Fetched { done, of }).await.is_err() {
                return;
            }
        };
        if channel.write_message(&reply).await.is_ok() {
            channel.finish();
        }
    }

    /// Removes a copy that makes room for another, unless somebody has begun to use it.
    pub(super) fn remove_parts(&self, copy: &PartCopy) -> std::io::Result<()> {
        let name = models::name_of_parts(copy).unwrap_or_else(|| "an unfinished model".to_owned());
        if self.inner.fetching.store().remove_unused(copy)? {
            tracing::info!("{name} was removed: it was used least recently, and another model needs its disk space");
            self.catalogue().look_again();
        }
        Ok(())
    }
}

/// Extents of a model's files, by their names in its manifest.
pub(super) fn in_files(manifest: &Manifest, extents: &[Extent]) -> Result<Vec<(FileName, Range<u64>)>, FetchFailure> {
    let named = |extent: &Extent| {
        let is_it = |name: &&FileName| name.as_str().rsplit('/').next() == Some(extent.file.as_str());
        let mut names = manifest.files.iter().map(|file| &file.name).filter(is_it);
        match (names.next(), names.next()) {
            (Some(name), None) => Ok((name.clone(), extent.bytes.clone())),
            _ => Err(FetchFailure::Other(format!("{} is not one file of the model", extent.file))),
        }
    };
    extents.iter().map(named).collect()
}

/// Ranges in order of file and offset, joined where they overlap.
fn joined(mut ranges: Vec<(FileName, Range<u64>)>) -> Vec<(FileName, Range<u64>)> {
    ranges.sort_by(|(a, x), (b, y)| (a, x.start).cmp(&(b, y.start)));
    let mut joined: Vec<(FileName, Range<u64>)> = Vec::new();
    for (file, range) in ranges {
        match joined.last_mut() {
            Some((last, before)) if *last == file && range.start <= before.end => {
                before.end = before.end.max(range.end);
            }
            _ => joined.push((file, range)),
        }
    }
    joined
}

fn missing(copy: &PartCopy, file: &FileName, range: Range<u64>) -> Vec<(FileName, Range<u64>)> {
    copy.missing(file, range).into_iter().map(|range| (file.clone(), range)).collect()
}

fn bytes(ranges: &[(FileName, Range<u64>)]) -> u64 {
    ranges.iter().map(|(_, range)| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_store::ManifestFile;

    fn file(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    #[test]
    fn ranges_of_a_file_that_overlap_are_fetched_once() {
        let ranges =
            vec![(file("b"), 0..5), (file("a"), 4..9), (file("a"), 0..4), (file("a"), 6..7), (file("a"), 20..21)];
        assert_eq!(joined(ranges), [(file("a"), 0..9), (file("a"), 20..21), (file("b"), 0..5)]);
    }

    #[test]
    fn an_extent_of_no_file_or_of_two_is_refused() {
        let manifest = |names: &[&str]| {
            let files = names.iter().map(|name| ManifestFile { name: file(name), bytes: 9 }).collect();
            Manifest { origin: None, digest: None, files, gguf: None }
        };
        let extents = [Extent { file: "m.gguf".to_owned(), bytes: 0..9 }];
        assert_eq!(in_files(&manifest(&["Q8/m.gguf"]), &extents).unwrap(), [(file("Q8/m.gguf"), 0..9)]);
        assert!(in_files(&manifest(&["other"]), &extents).is_err());
        assert!(in_files(&manifest(&["m.gguf", "x/m.gguf"]), &extents).is_err());
    }
}
