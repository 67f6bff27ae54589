//! The stages that this machine holds, its own and those of others, and the rings that it coordinates.

mod asking;
mod budget;
mod drain;
mod eviction;
pub(crate) mod guests;
#[cfg(test)]
mod hostile;
mod hosting;
mod lease;
pub(crate) mod orders;
mod reserving;
mod routing;
mod serve;
mod streams;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_audit::Visit;
use hive_net::{Frame, Pace, PeerId};
use hive_peers::{Changes, Local, Membership};
use hive_protocol::{RingId, StageId};
use tokio::sync::{mpsc, watch};

use crate::catalogue::Catalogue;
use crate::stage::Stage;
use budget::Grant;
pub use eviction::Held;
use guests::Eviction;
use orders::Claims;
use streams::Streams;

/// How stages are held here.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostOptions {
    /// The most memory that all stages take, in bytes.
    pub memory_cap: Option<u64>,
    /// The most that is sent to other machines, in bits per second.
    pub bits_per_s: Option<u64>,
    /// Whether others may name models by path: only where all nodes are one process.
    pub trust_paths: bool,
}

/// The stages on this machine. Clones share them.
#[derive(Clone)]
pub struct StageHost {
    inner: Arc<Inner>,
}

struct Inner {
    member: Membership,
    stages: Mutex<HashMap<StageId, Hosted>>,
    /// Memory of stages that are being loaded.
    loading: Mutex<Vec<Grant>>,
    reserving: Mutex<()>,
    memory_cap: Mutex<Option<u64>>,
    guests: Mutex<guests::Watch>,
    /// Stages that this machine has ended, whose they were, and why: their owners ask.
    evicted: Mutex<VecDeque<(StageId, PeerId, Eviction)>>,
    /// Counts the joins of stages and the machines that are wanted: what a stage stream may be waiting for.
    joins: watch::Sender<u64>,
    /// The rings that this node coordinates.
    coordinated: Mutex<HashMap<RingId, Coordinated>>,
    /// Counts the changes of where models are.
    placements: Changes,
    answered_tokens: AtomicU64,
    catalogue: Catalogue,
    trust_paths: bool,
    /// How fast frames go out.
    pace: Pace,
    streams: Streams,
}

/// A stage that this machine holds.
struct Hosted {
    /// Who has a say over it.
    claims: Claims,
    /// Memory it takes, as planned.
    bytes: u64,
    /// Memory it was last seen to take.
    used_bytes: u64,
    /// Whether it is a standby replica, which yields.
    standby: bool,
    stage: Stage,
    /// What another machine uses of it, for the audit log.
    _visit: Option<Arc<Visit>>,
}

/// A ring that this node coordinates.
struct Coordinated {
    /// What comes back.
    frames: mpsc::Sender<Frame>,
    /// Who holds which stage of it, or is about to.
    leased: Vec<(StageId, PeerId)>,
}

impl StageHost {
    /// Holds nothing yet.
    pub fn new(member: Membership, options: HostOptions) -> Self {
        let HostOptions { memory_cap, bits_per_s, trust_paths } = options;
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
            trust_paths,
            pace: Pace::default(),
            streams: Streams::default(),
        };
        inner.pace.limit(bits_per_s);
        Self { inner: Arc::new(inner) }
    }

    /// As the part of the node that keeps in touch sees it.
    pub fn local(&self) -> Arc<dyn Local> {
        Arc::new(self.clone())
    }

    /// This machine among the others.
    pub fn membership(&self) -> &Membership {
        &self.inner.member
    }

    /// What the models on this machine's disk are.
    pub fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    /// Counts the changes of where models are.
    pub fn placements(&self) -> &Changes {
        &self.inner.placements
    }

    /// The most that is sent to other machines from now on, in bits per second.
    pub fn limit_rate(&self, bits_per_s: Option<u64>) {
        self.inner.pace.limit(bits_per_s);
    }

    /// The most memory for all stages from now on, in bytes. What is over it is ended by [`StageHost::settle`].
    pub fn limit_memory(&self, bytes: Option<u64>) {
        *lock(&self.inner.memory_cap) = bytes;
    }

    /// Answers that are being computed here now.
    pub fn sessions(&self) -> usize {
        self.stages().values().map(|hosted| hosted.stage.sessions()).sum()
    }

    /// A token of an answer to people and programs here came.
    pub fn count_token(&self) {
        self.inner.answered_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// Tokens of answers to people and programs here, since the node started.
    pub fn answered_tokens(&self) -> u64 {
        self.inner.answered_tokens.load(Ordering::Relaxed)
    }

    /// Ends all stages here, and takes no more frames of any ring.
    pub fn clear(&self) {
        self.stages().clear();
        lock(&self.inner.coordinated).clear();
    }

    /// Whether other machines that are here still have stages on this one.
    pub fn has_guests_present(&self) -> bool {
        let member = &self.inner.member;
        let is_present = |owner: PeerId| owner != member.id() && member.peers().incarnation(owner).is_some();
        self.stages().values().any(|hosted| is_present(hosted.claims.owner))
    }

    /// Stages that a machine had loaded here end with its approval.
    pub fn drop_stages_of(&self, peer: PeerId) {
        self.stages().retain(|_, hosted| hosted.claims.owner != peer);
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<StageId, Hosted>> {
        lock(&self.inner.stages)
    }
}

#[cfg(any(test, feature = "testing"))]
impl StageHost {
    /// Holds a stage that does nothing, of this owner. Its orders are read by nobody, but the pipe must live.
    pub fn host_idle(&self, id: StageId, owner: PeerId) -> std::io::PipeReader {
        let (stage, orders) = Stage::idle();
        let claims = Claims::of(owner);
        let hosted = Hosted { claims, bytes: 1_000_000, used_bytes: 0, standby: false, stage, _visit: None };
        self.stages().insert(id, hosted);
        orders
    }

    /// The stages that are here.
    pub fn hosted(&self) -> Vec<StageId> {
        self.stages().keys().copied().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single map operation, so a poisoned map is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
