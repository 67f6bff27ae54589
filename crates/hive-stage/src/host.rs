//! The stages on this machine, its own and other machines', and the rings that it coordinates.

mod adapting;
mod asking;
mod budget;
mod drain;
mod eviction;
mod fetching;
pub(crate) mod guests;
#[cfg(test)]
mod hostile;
mod hosting;
mod hub_fetch;
mod lease;
pub(crate) mod orders;
mod peer_fetch;
mod reserving;
mod routing;
mod serve;
mod serve_parts;
mod streams;

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_audit::Visit;
use hive_net::{Frame, Pace, PeerId};
use hive_peers::{Changes, Local, Membership};
use hive_protocol::{RingId, StageId};
use hive_store::{InUse, Token};
use tokio::sync::{mpsc, watch};

use crate::catalogue::Catalogue;
use crate::copies::Copies;
use crate::fetching::Fetching;
use crate::stage::Stage;
use budget::Grant;
pub use eviction::Held;
use guests::Eviction;
use orders::Claims;
use streams::Streams;

/// The limits under which this machine holds stages.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostOptions {
    /// The most memory for all stages, in bytes.
    pub memory_cap: Option<u64>,
    /// The rate limit for sending to other machines, in bits per second.
    pub bits_per_s: Option<u64>,
    /// Whether others may name models by path: only if all nodes are one process.
    pub trust_paths: bool,
    /// The sources of this machine's missing layers.
    pub fetches: Fetches,
    /// The disk limit for fetched parts, in bytes.
    pub disk_cap: Option<u64>,
    /// The rate limit for downloads, in bytes per second.
    pub download_bytes_per_s: Option<NonZeroU64>,
}

/// The sources of a machine's missing layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fetches {
    /// None: it computes with the models on its disk.
    #[default]
    Nothing,
    /// From approved machines.
    Machines,
    /// From approved machines, and from a hub what none of them has.
    MachinesAndHub,
}

/// The stages on this machine. Clones share them.
#[derive(Clone)]
pub struct StageHost {
    inner: Arc<Inner>,
}

struct Inner {
    member: Membership,
    stages: Mutex<HashMap<StageId, Hosted>>,
    /// Memory reserved for stages that are loading.
    loading: Mutex<Vec<Grant>>,
    reserving: Mutex<()>,
    memory_cap: Mutex<Option<u64>>,
    guests: Mutex<guests::Watch>,
    /// Stages that this machine has evicted, with their owners and the reasons: the owners ask.
    evicted: Mutex<VecDeque<(StageId, PeerId, Eviction)>>,
    /// Counts joins of stages and changes of leases: a stage stream may be waiting for either.
    joins: watch::Sender<u64>,
    /// The rings that this node coordinates.
    coordinated: Mutex<HashMap<RingId, Coordinated>>,
    /// Counts the changes of where models are placed.
    placements: Changes,
    answered_tokens: AtomicU64,
    catalogue: Catalogue,
    fetching: Fetching,
    trust_paths: bool,
    /// The rate at which frames are sent.
    pace: Pace,
    /// The models that are being copied to and from other machines.
    copies: Copies,
    streams: Streams,
}

impl Hosted {
    /// Its memory as planned, and that of adapters since, in bytes.
    fn planned_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.stage.adapter_bytes())
    }
}

/// A stage on this machine.
struct Hosted {
    /// The machines that have a say over it.
    claims: Claims,
    /// Its memory as planned.
    bytes: u64,
    /// Its memory as last measured.
    used_bytes: u64,
    /// Whether it is a standby replica, which yields.
    standby: bool,
    stage: Stage,
    /// Keeps the parts that it was loaded from on the disk.
    _parts: Option<InUse>,
    /// Another machine's use of it, for the audit log.
    _visit: Option<Arc<Visit>>,
}

/// A ring that this node coordinates.
struct Coordinated {
    /// The queue for frames that come back.
    frames: mpsc::Sender<Frame>,
    /// Which machine holds each stage, or is about to.
    leased: Vec<(StageId, PeerId)>,
}

impl StageHost {
    /// A host without stages.
    pub fn new(member: Membership, options: HostOptions) -> Self {
        let HostOptions { memory_cap, bits_per_s, trust_paths, fetches, disk_cap, download_bytes_per_s } = options;
        member.describe(|profile| {
            std::mem::replace(&mut profile.fetches, fetches != Fetches::Nothing) != profile.fetches
        });
        let catalogue = member.data().map(Catalogue::kept).unwrap_or_default();
        let inner = Inner {
            member,
            stages: Mutex::default(),
            loading: Mutex::default(),
            reserving: Mutex::default(),
            memory_cap: Mutex::new(memory_cap),
            guests: Mutex::default(),
            evicted: Mutex::default(),
            joins: watch::channel(0).0,
            coordinated: Mutex::default(),
            placements: Changes::default(),
            answered_tokens: AtomicU64::default(),
            catalogue,
            fetching: Fetching::new(fetches == Fetches::MachinesAndHub, disk_cap),
            trust_paths,
            pace: Pace::default(),
            copies: Copies::default(),
            streams: Streams::default(),
        };
        inner.pace.limit(bits_per_s);
        inner.fetching.hub_limit().set(download_bytes_per_s);
        Self { inner: Arc::new(inner) }
    }

    /// The view of this host that `hive-peers` needs.
    pub fn local(&self) -> Arc<dyn Local> {
        Arc::new(self.clone())
    }

    /// This machine as a member of the swarm.
    pub fn membership(&self) -> &Membership {
        &self.inner.member
    }

    /// The models on this machine's disk.
    pub fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    /// Counts the changes of where models are placed.
    pub fn placements(&self) -> &Changes {
        &self.inner.placements
    }

    /// Sets the rate limit for sending to other machines, in bits per second.
    pub fn limit_rate(&self, bits_per_s: Option<u64>) {
        self.inner.pace.limit(bits_per_s);
    }

    /// Sets the rate limit for downloads from the hub.
    pub fn limit_downloads(&self, bytes_per_s: Option<NonZeroU64>) {
        self.inner.fetching.hub_limit().set(bytes_per_s);
    }

    /// Sets the most disk for fetched parts of models, in bytes. Nothing is removed before room is needed.
    pub fn limit_disk(&self, bytes: Option<u64>) {
        self.inner.fetching.limit(bytes);
    }

    /// Sets the token with which this owner asks the hub; `None` leaves it to the environment. Other machines are never asked
    /// for anything in its name.
    pub fn set_hub_token(&self, token: Option<Token>) {
        self.inner.fetching.set_token(token);
    }

    /// Whether this owner has given a token.
    pub fn has_hub_token(&self) -> bool {
        self.inner.fetching.has_token()
    }

    /// Keeps the parts that a model is read from on the disk until the result is dropped. Touches files.
    pub fn keep_parts(&self, model: &Path) -> Option<InUse> {
        self.inner.fetching.copy_at(model).map(|copy| copy.in_use())
    }

    /// Deletes parts of fetches that stopped before the parts were usable. Touches files.
    pub fn remove_orphaned_parts(&self) {
        self.inner.fetching.store().remove_orphans();
    }

    /// Sets the most memory for all stages, in bytes. [`StageHost::settle`] ends the stages above it.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        *lock(&self.inner.memory_cap) = bytes;
    }

    /// The number of answers being computed here now.
    pub fn sessions(&self) -> usize {
        self.stages().values().map(|hosted| hosted.stage.sessions()).sum()
    }

    /// Counts a token of an answer to people and programs here.
    pub fn count_token(&self) {
        self.inner.answered_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of tokens of answers to people and programs here since the node started.
    pub fn answered_tokens(&self) -> u64 {
        self.inner.answered_tokens.load(Ordering::Relaxed)
    }

    /// Ends all stages here and stops accepting frames.
    pub fn clear(&self) {
        self.stages().clear();
        lock(&self.inner.coordinated).clear();
    }

    /// Whether other machines that are present still have stages here.
    pub fn has_guests_present(&self) -> bool {
        let member = &self.inner.member;
        let is_present = |owner: PeerId| owner != member.id() && member.peers().incarnation(owner).is_some();
        self.stages().values().any(|hosted| is_present(hosted.claims.owner))
    }

    /// Ends a machine's stages, as its approval has ended.
    pub fn drop_stages_of(&self, peer: PeerId) {
        self.stages().retain(|_, hosted| hosted.claims.owner != peer);
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<StageId, Hosted>> {
        lock(&self.inner.stages)
    }
}

#[cfg(any(test, feature = "testing"))]
impl StageHost {
    /// Hosts a stage of this owner that does nothing. Nobody reads its orders, but the pipe must stay open.
    pub fn host_idle(&self, id: StageId, owner: PeerId) -> std::io::PipeReader {
        let (stage, orders) = Stage::idle();
        let claims = Claims::of(owner);
        let hosted =
            Hosted { claims, bytes: 1_000_000, used_bytes: 0, standby: false, stage, _parts: None, _visit: None };
        self.stages().insert(id, hosted);
        orders
    }

    /// Locks the map of stages.
    pub fn hosted(&self) -> Vec<StageId> {
        self.stages().keys().copied().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single map operation, so a poisoned map is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
