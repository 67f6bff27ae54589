//! Fetches what this machine lacks of a model, before it loads layers of it.
//!
//! First comes the outline, from the machine that asks for the layers: with it, the model opens, has its digest, and says
//! which bytes its layers are. These come from every machine that has them, several at once, and what none has from the
//! hub that the model is from.
//!
//! An outline contains samples of every tensor. A machine that sends other bytes than these is not asked again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hive_model::Extent;
use hive_net::{Channel, PeerAddr, PeerId, Protocol, border};
use hive_protocol::{ModelSource, Reply, Request, WantedBytes};
use hive_store::{FetchOptions, FileName, Manifest, ModelName, PartCopy, fetch_parts};
use hive_worker::Raw;
use hive_worker::text::Model;

use super::StageHost;
use super::giving::whole_blocks;
use crate::fetching::Sources;
use crate::fetching::held::is_weights;
use crate::fetching::message::Given;
use crate::locate::{NotLocated, locate};
use crate::models::{self, FindError};
use crate::runtime::aside;

/// A machine that sends nothing for this long is not asked any more.
const SILENCE: Duration = Duration::from_secs(20);
/// The largest outline in bytes: a tokenizer of 30 MB, headers of 100 MB, and three blocks for each of 20,000 tensors.
const LARGEST_OUTLINE: u64 = 1 << 30;
/// Requests to a machine at a time: while one is answered, the next is on its way.
const REQUESTS: usize = 2;
/// Ranges with a smaller gap between them are asked for as one. What lies in the gap is here already, and tells whether
/// the other machine has the same model.
const GAP_BYTES: u64 = 64 << 10;
/// How often progress is reported.
const REPORTS: Duration = Duration::from_millis(250);
/// What is left free on the disk when another machine asks for layers here, in bytes.
const LEFT_TO_OWNER: u64 = 2 << 30;
/// How much of a GGUF file's beginning is fetched to find its header, in bytes. Vocabularies make up most of it.
const GGUF_HEADERS: [u64; 3] = [8 << 20, 32 << 20, 128 << 20];

/// Why a machine cannot have the layers that it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// The model is not here, and is not fetched.
    #[error("the model is not on this machine")]
    Lacks,
    /// The disk is too full.
    #[error("its disk has {free} bytes to spare, and the layers take {needed}")]
    Disk {
        /// What the layers take, in bytes.
        needed: u64,
        /// What may be used, in bytes.
        free: u64,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl FetchFailure {
    fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

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
            Err(why) => {
                tracing::info!("a model that is asked for is not here, and was not fetched: {why}");
                located
            }
        }
    }

    /// Fetches the outline of a model from a machine that has it.
    async fn outline_from(&self, peer: PeerId, digest: &str) -> Result<Model, String> {
        let addr = self.membership().peers().addr(peer);
        let mut channel = self.open_channel(&addr, &Request::Outline(digest.to_owned())).await?;
        let Given::Manifest(manifest) = next(&mut channel).await? else { return Err("it was not given".to_owned()) };
        let manifest = manifest.checked().map_err(|error| error.to_string())?;
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

    /// Opens a model whose outline has come, and takes it into the catalogue.
    async fn settled(&self, copy: &PartCopy, digest: Option<&str>) -> Result<Model, String> {
        let model = models::open_at(&copy.path()).await.map_err(|error| error.to_string())?;
        let found = model.card().digest.clone();
        if digest.is_some_and(|digest| digest != found) {
            let _ = aside(|| self.inner.fetching.store().remove(copy));
            return Err("it is another model than was asked for".to_owned());
        }
        aside(|| copy.settle(&found)).map_err(|error| error.to_string())?;
        // The catalogue reads it now, so that other machines find it here.
        self.catalogue().nature(&copy.path()).await.map_err(|error| error.to_string())?;
        self.catalogue().look_again();
        Ok(model)
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
        let extents = model.extents(layers).await.map_err(FetchFailure::other)?;
        let wanted = in_files(copy.manifest(), &extents);
        let of = bytes(&wanted);
        let lacking =
            || wanted.iter().flat_map(|(file, range)| missing(&copy, file, range.clone())).collect::<Vec<_>>();
        let first = aside(lacking);
        if first.is_empty() {
            return Ok(());
        }
        let needed = bytes(&first);
        self.check_disk(if asker == self.membership().id() { needed } else { needed + LEFT_TO_OWNER })?;
        progress(of.saturating_sub(needed), of);
        let digest = &model.card().digest;
        let sources = Sources::new(first);
        let mut reported = Instant::now();
        {
            let asked: Vec<PeerId> =
                self.holders(digest, asker).into_iter().flat_map(|peer| [peer; REQUESTS]).collect();
            let (sources, copy) = (&sources, &copy);
            let mut asking: FuturesUnordered<_> =
                asked.into_iter().map(|peer| self.take_chunks(peer, digest, copy, sources)).collect();
            let mut timer = tokio::time::interval(REPORTS);
            loop {
                tokio::select! {
                    ended = asking.next() => match ended {
                        None => break,
                        Some(Ok(())) => {}
                        Some(Err(error)) => return Err(FetchFailure::other(error)),
                    },
                    _ = timer.tick() => {
                        reported = Instant::now();
                        progress(of.saturating_sub(bytes(&aside(lacking))), of);
                    }
                }
            }
        }
        let left = sources.left();
        tracing::debug!(needed, of_hub = bytes(&left), "layers of a model are fetched");
        if !left.is_empty() {
            self.take_from_hub(copy.manifest(), &copy, left, &mut |left: u64| {
                if reported.elapsed() >= REPORTS {
                    reported = Instant::now();
                    progress(of.saturating_sub(left), of);
                }
            })
            .await?;
        }
        let left = bytes(&aside(lacking));
        progress(of - left, of);
        if left == 0 { Ok(()) } else { Err(FetchFailure::Other(format!("{left} bytes did not come"))) }
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

    /// Takes chunks from one machine, until it has been asked for all of them, or disappoints.
    async fn take_chunks(&self, peer: PeerId, digest: &str, copy: &PartCopy, sources: &Sources) -> std::io::Result<()> {
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

    /// Fetches what no machine has from the hub that the model is from.
    async fn take_from_hub(
        &self,
        manifest: &Manifest,
        copy: &PartCopy,
        left: Vec<(FileName, Range<u64>)>,
        report: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), FetchFailure> {
        let no_source = || {
            let why = "no machine that is here has all of these layers";
            FetchFailure::Other(match &manifest.origin {
                Some(origin) => format!("{why}, and {} may not be asked of a hub", origin.repository),
                None => format!("{why}, and the model is from no hub"),
            })
        };
        let origin = manifest.origin.as_ref().ok_or_else(no_source)?;
        let hub = self.inner.fetching.hub().ok_or_else(no_source)?.map_err(FetchFailure::other)?;
        let listing = hub.listing_at(origin, manifest.gguf.as_ref()).await.map_err(FetchFailure::other)?;
        let (told, mut heard) = tokio::sync::watch::channel(0);
        let options = FetchOptions {
            on_event: Some(Box::new(move |event| {
                if let hive_store::Event::Progress(progress) = event {
                    told.send_replace(progress.bytes_total.saturating_sub(progress.bytes_done));
                }
            })),
            ..FetchOptions::default()
        };
        let fetching = fetch_parts(hub, &listing, copy, &left, &options);
        tokio::pin!(fetching);
        loop {
            tokio::select! {
                fetched = &mut fetching => return fetched.map_err(FetchFailure::other),
                Ok(()) = heard.changed() => report(*heard.borrow_and_update()),
            }
        }
    }

    /// Opens a model for people and programs here. Of one that is only on a hub, the outline is fetched.
    pub async fn open_model(&self, name: Option<&str>) -> Result<Model, FindError> {
        let unknown = match self.catalogue().open_model(name).await {
            Err(unknown @ FindError::Unknown { .. }) => unknown,
            opened => return opened,
        };
        let Some(wanted) = name.and_then(|name| name.parse().ok()) else { return Err(unknown) };
        match self.outline_from_hub(&wanted).await {
            Ok(Some(model)) => Ok(model),
            Ok(None) => Err(unknown),
            Err(why) => Err(FindError::Unfetched { name: wanted.to_string(), why: why.to_string() }),
        }
    }

    /// Fetches the outline of a model from the hub, so that it can be opened and planned with, and its layers fetched by
    /// the machines that compute them.
    pub async fn outline_from_hub(&self, name: &ModelName) -> Result<Option<Model>, FetchFailure> {
        let Some(hub) = self.inner.fetching.hub() else { return Ok(None) };
        let hub = hub.map_err(FetchFailure::other)?;
        if hub.is_offline() {
            return Ok(None);
        }
        let listing = hub.find(name).await.map_err(FetchFailure::other)?;
        let manifest = Manifest::of(&listing);
        let copy = aside(|| self.inner.fetching.store().open(&manifest)).map_err(FetchFailure::other)?;
        let fetch = async |wanted: Vec<(FileName, Range<u64>)>| {
            fetch_parts(hub, &listing, &copy, &wanted, &FetchOptions::default()).await.map_err(FetchFailure::other)
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
                headers.push((file.name.clone(), 0..length.saturating_add(8).min(file.bytes).min(LARGEST_OUTLINE)));
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
        fetch(in_files(&manifest, &outline)).await?;
        self.settled(&copy, None).await.map(Some).map_err(FetchFailure::Other)
    }

    /// Has a machine fetch what it lacks of some layers; `progress` is told how many bytes are there, and of how many.
    pub async fn fetch_on(
        &self,
        machine: &PeerAddr,
        source: &ModelSource,
        layers: Range<usize>,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<(), FetchFailure> {
        let member = self.membership();
        if machine.id() == member.id() {
            let model = self.located_for(member.id(), source, true).await.map_err(|_| FetchFailure::Lacks)?;
            return self.complete(&model, layers, member.id(), &mut progress).await;
        }
        if !member.peers().profile_of_present(machine.id()).is_some_and(|profile| profile.fetches) {
            return Ok(());
        }
        let request = Request::Fetch(source.clone(), layers);
        let mut channel = self.open_channel(machine, &request).await.map_err(FetchFailure::Other)?;
        loop {
            let reply = tokio::time::timeout(SILENCE, channel.read_message::<Reply>()).await;
            let silent = || FetchFailure::Other(format!("it said nothing for {} s while fetching", SILENCE.as_secs()));
            match reply.map_err(|_| silent())?.map_err(FetchFailure::other)?.map(Reply::at_the_border) {
                Some(Reply::Fetched { done, of }) => progress(done, of),
                Some(Reply::Done) => return Ok(()),
                Some(Reply::Lacks) => return Err(FetchFailure::Lacks),
                Some(Reply::Declined(why) | Reply::Refused(why)) => return Err(FetchFailure::Other(why)),
                _ => return Err(FetchFailure::Other("it broke off".to_owned())),
            }
        }
    }

    /// Fetches what this machine lacks of layers that another one will ask it to load.
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
                Err(_) => return Reply::Lacks,
            };
            let mut progress = |done, of| _ = told.send_replace((done, of));
            match self.complete(&model, layers, asker, &mut progress).await {
                Ok(()) => Reply::Done,
                Err(FetchFailure::Lacks) => Reply::Lacks,
                Err(why) => Reply::Declined(why.to_string()),
            }
        };
        tokio::pin!(fetching, hung_up);
        // Said even if nothing has changed, so that the asker knows that this machine is at it.
        let mut alive = tokio::time::interval(SILENCE / 4);
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

    async fn open_channel(&self, machine: &PeerAddr, request: &Request) -> Result<Channel, String> {
        let addr = self.membership().latest_addr(machine);
        let opening = self.membership().endpoint().open(&addr, Protocol::Control);
        let mut channel = opening.await.map_err(|error| error.to_string())?;
        channel.write_message(request).await.map_err(|error| error.to_string())?;
        Ok(channel)
    }

    fn check_disk(&self, needed: u64) -> Result<(), FetchFailure> {
        let free = aside(|| self.inner.fetching.store().room()).map_err(FetchFailure::other)?;
        if needed <= free { Ok(()) } else { Err(FetchFailure::Disk { needed, free }) }
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

/// Extents of a model's files, by their names in its manifest.
fn in_files(manifest: &Manifest, extents: &[Extent]) -> Vec<(FileName, Range<u64>)> {
    let of_name: BTreeMap<&str, &FileName> = manifest
        .files
        .iter()
        .map(|file| (file.name.as_str().rsplit('/').next().unwrap_or_default(), &file.name))
        .collect();
    let file = |extent: &Extent| Some(((*of_name.get(extent.file.as_str())?).clone(), extent.bytes.clone()));
    extents.iter().filter_map(file).collect()
}

fn missing(copy: &PartCopy, file: &FileName, range: Range<u64>) -> Vec<(FileName, Range<u64>)> {
    copy.missing(file, range).into_iter().map(|range| (file.clone(), range)).collect()
}

fn bytes(ranges: &[(FileName, Range<u64>)]) -> u64 {
    ranges.iter().map(|(_, range)| range.end - range.start).sum()
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
