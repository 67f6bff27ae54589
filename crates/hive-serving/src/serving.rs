//! The models that a node has in memory for its own people and programs, each loaded when it is first asked for.
//!
//! An unused model makes room for the next; a model in use stays. A model whose machine has left is loaded again on the
//! machines that are present. `placements.json` records where each is (`placements.rs`).

mod answering;
mod counting;
mod fetches;
mod idle;
mod judge;
mod loading;
mod loads;
mod manual;
mod marking;
mod moving;
mod place;
mod placements;
mod restore;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hive_net::PeerId;
use hive_peers::Membership;
use hive_ring::Ring;
use hive_stage::{AdapterFiles, InUse, StageHost, aside, models};
use hive_types::{LoadingView, ModelView};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::error::ServeError;
use crate::joint::Joint;
use crate::marks::Marks;
use crate::model_request::ModelRequest;
use crate::openings::Openings;
use crate::placed::{PlacedModel, Placements};
use crate::tokenizer::KeptTokenizer;
use crate::views::view;
use fetches::Fetches;
pub use loading::Layout;
use loads::Loads;

struct Loaded {
    wanted: ModelRequest,
    ring: Ring,
    /// When it was last asked for or seen answering.
    used: Instant,
    /// Keeps what its prompts are read with on this machine's disk, even if it computes no layers.
    _parts: Option<InUse>,
}

impl Loaded {
    fn ring(&self) -> Ring {
        self.ring.clone()
    }
}

/// The models in memory. Clones share them.
#[derive(Clone)]
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    host: StageHost,
    /// Whether models that fit on this machine run on it only.
    keeps_prompts_here: AtomicBool,
    /// After how long without use a model is unloaded.
    unload_after: Mutex<Option<Duration>>,
    openings: Openings,
    /// In the order in which they were loaded. Never locked across an await.
    loaded: Mutex<Vec<Loaded>>,
    /// Held while a model is placed and loaded, so that each is planned with the memory that the others leave, and is
    /// loaded once for everybody who asks. Requests for a model in memory do not wait for this.
    placing: AsyncMutex<()>,
    /// Models that are not in memory yet, for everybody who waits for them.
    awaited: Joint<ModelRequest, Ring, ServeError>,
    fetches: Fetches,
    loads: Loads,
    /// The model that people see: the one loaded last.
    latest: Mutex<Option<Ring>>,
    /// Models that were in memory when the node was killed, and are not restored yet.
    restoring: watch::Sender<Vec<PlacedModel>>,
    /// Manual plans.
    manual: Mutex<Vec<PlacedModel>>,
    /// The tokenizer that was read for counting only.
    tokenizer: AsyncMutex<Option<KeptTokenizer>>,
    /// The content of `placements.json`.
    on_disk: Mutex<Placements>,
    /// The content of `library.json`.
    marks: Mutex<Marks>,
    /// Held while that file is written.
    saving_marks: Mutex<()>,
    /// What keeps the parts of pinned models on this disk, by name.
    held: Mutex<BTreeMap<String, InUse>>,
    /// Adapters that requests have used, by folder.
    adapters: Mutex<HashMap<PathBuf, AdapterFiles>>,
}

impl Serving {
    /// Starts with no model in memory; `placements` is restored later.
    pub fn new(host: StageHost, placements: Placements, marks: Marks, keeps_prompts_here: bool) -> Self {
        let inner = Inner {
            host,
            keeps_prompts_here: AtomicBool::new(keeps_prompts_here),
            unload_after: Mutex::default(),
            openings: Openings::default(),
            on_disk: Mutex::new(placements.clone()),
            loaded: Mutex::default(),
            placing: AsyncMutex::default(),
            awaited: Joint::default(),
            fetches: Fetches::default(),
            loads: Loads::default(),
            latest: Mutex::default(),
            tokenizer: AsyncMutex::default(),
            restoring: watch::channel(placements.in_memory).0,
            manual: Mutex::new(placements.manual),
            marks: Mutex::new(marks),
            saving_marks: Mutex::default(),
            held: Mutex::default(),
            adapters: Mutex::default(),
        };
        let serving = Self { inner: Arc::new(inner) };
        serving.hold_pinned();
        serving
    }

    /// The stages on this machine, and access to those on others.
    pub(crate) fn host(&self) -> &StageHost {
        &self.inner.host
    }

    /// This machine among the others.
    pub(crate) fn member(&self) -> &Membership {
        self.inner.host.membership()
    }

    /// Sets whether models that fit on this machine run on it only.
    pub fn keep_prompts_here(&self, keeps: bool) {
        self.inner.keeps_prompts_here.store(keeps, Ordering::Relaxed);
    }

    /// Whether models that fit on this machine run on it only.
    pub(crate) fn keeps_prompts_here(&self) -> bool {
        self.inner.keeps_prompts_here.load(Ordering::Relaxed)
    }

    /// The model loaded last, if it is still in memory.
    pub fn view(&self) -> Option<ModelView> {
        self.inner
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .filter(|ring| !ring.is_abandoned())
            .map(view)
    }

    /// The models that are being fetched or loaded, the one that began first first.
    pub fn loads(&self) -> Vec<LoadingView> {
        self.inner.loads.views()
    }

    /// Pauses the download of a model, for everybody who waits for it; `false` if it is not being downloaded. What has
    /// arrived stays on the machines' disks.
    pub fn pause_download(&self, name: &str) -> bool {
        self.inner.fetches.pause(&self.name_of(name))
    }

    fn loaded(&self) -> MutexGuard<'_, Vec<Loaded>> {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the loaded models.
    pub fn names(&self) -> Vec<String> {
        let loaded = self.loaded();
        let names = loaded.iter().filter(|loaded| !loaded.ring.is_abandoned());
        names.map(|loaded| loaded.name().to_owned()).collect()
    }

    /// The ring that serves a request, if it is loaded. Counts as a use.
    fn ring_of(&self, wanted: &ModelRequest) -> Option<Ring> {
        let mut loaded = self.loaded();
        let loaded = loaded.iter_mut().find(|loaded| loaded.wanted == *wanted)?;
        loaded.used = Instant::now();
        Some(loaded.ring())
    }

    /// Bytes that are freed for a request, per machine.
    pub(crate) fn freed_for(&self, wanted: &ModelRequest) -> Vec<(PeerId, u64)> {
        held_by(&self.unused_beside(wanted))
    }

    /// Unloads a model by its name, or by another name of the same files. Returns `None` if it is not loaded, `false`
    /// if it is answering.
    pub(crate) async fn let_go(&self, name: &str) -> Option<bool> {
        let name = &*self.name_of(name);
        let place = aside(|| models::place(name));
        let is_its_name = |other: &str| other == name || (place.is_some() && models::place(other) == place);
        let mut meant: Vec<ModelRequest> = self.loaded().iter().map(|loaded| loaded.wanted.clone()).collect();
        aside(|| meant.retain(|wanted| is_its_name(wanted.model.as_deref().unwrap_or(models::starter_name()))));
        let is_it = |loaded: &Loaded| meant.contains(&loaded.wanted);
        let gone: Vec<Loaded> = {
            let mut loaded = self.loaded();
            if !loaded.iter().any(is_it) {
                return None;
            }
            if loaded.iter().any(|loaded| is_it(loaded) && loaded.ring.is_busy() && !loaded.ring.is_abandoned()) {
                return Some(false);
            }
            let gone = loaded.extract_if(.., |loaded| is_it(loaded)).collect();
            self.show(loaded.last().map(Loaded::ring));
            gone
        };
        for Loaded { ring, wanted, .. } in gone {
            ring.unload().await;
            self.set_manual_plan(&ModelRequest { stages: None, ..wanted }, None);
        }
        self.set_manual_plan(&ModelRequest::named(name), None);
        Some(true)
    }

    fn show(&self, ring: Option<Ring>) {
        *self.inner.latest.lock().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    /// Unloads everything when the node stops. Returns the manual plans, which stay on disk.
    pub async fn unload(&self) -> Placements {
        self.inner.restoring.send_modify(Vec::clear);
        // A load in progress ends by itself, since the node is stopping.
        let _placing = self.inner.placing.lock().await;
        let loaded = std::mem::take(&mut *self.loaded());
        self.show(None);
        for Loaded { ring, .. } in loaded {
            ring.unload().await;
        }
        Placements { in_memory: Vec::new(), manual: self.manual().clone() }
    }
}

/// Bytes that these models hold, per machine.
fn held_by(rings: &[Ring]) -> Vec<(PeerId, u64)> {
    rings.iter().filter(|ring| !ring.is_abandoned()).flat_map(Ring::holdings).collect()
}
