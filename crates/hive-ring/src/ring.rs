//! A model loaded over several nodes, as its coordinator sees it.

mod assembly;
mod attempts;
pub(crate) mod checkup;
mod costs;
mod draining;
mod driver;
mod due;
mod failover;
mod lifecycle;
mod placed;
mod quarantine;
mod report;
pub(crate) mod sessions;
pub(crate) mod spot;
mod standby;
mod state;
pub(crate) mod timing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hive_net::{Frame, PeerId};
use hive_plan::{Plan, PlannedStage};
use hive_protocol::{ModelSource, RingId, StageId};
use hive_stage::{AdapterFiles, Destination, StageHost};
use hive_worker::text::Model;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::prefix_cache::PrefixCache;
use attempts::Attempts;
pub(crate) use attempts::Failed;
use due::Due;
use failover::{FaultOrigin, FaultReport};
pub use placed::{FetchProgress, PlacedStage, RingError, RingOptions};
use placed::{Standby, has_left};
pub use state::{Health, State};

/// The open sessions.
type Sessions = HashMap<u128, Session>;

/// An open session.
struct Session {
    /// The queue for frames that come back.
    frames: mpsc::Sender<Frame>,
    attempts: Attempts<PeerId>,
    adapter: Option<AdapterFiles>,
}

/// A loaded model. Clones share it; [`Ring::unload`] frees it.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    id: RingId,
    host: StageHost,
    plan: Plan,
    /// The current holders of the stages.
    stages: Mutex<Vec<PlacedStage>>,
    /// Their standby replicas.
    standbys: Mutex<Vec<Standby>>,
    state: watch::Sender<State>,
    /// Held during a failover.
    failing_over: Arc<tokio::sync::Mutex<()>>,
    /// Held while the stages are checked.
    checking: Arc<tokio::sync::Mutex<()>>,
    /// When a token, or progress on a prompt, last arrived in any session.
    heard: Mutex<Instant>,
    /// One more than the latest epoch in which the stages have computed a token together.
    warm_epochs: AtomicU32,
    /// When the next spot check is due.
    spot_check: Due,
    /// Held during a spot check.
    spot_checking: Arc<tokio::sync::Mutex<()>>,
    /// One more than the latest epoch in which a stage was found to compute wrong numbers.
    tainted_epochs: AtomicU32,
    fault_reports: mpsc::Sender<FaultReport>,
    model: Model,
    options: RingOptions,
    prompts: tokio::sync::Mutex<Destination>,
    sessions: Mutex<Sessions>,
    /// Numbers the answers.
    answers: AtomicU64,
    /// Sessions opened so far.
    opened: AtomicU64,
    prefix_cache: Mutex<PrefixCache>,
    /// Tokens that the answers under way may have in the KV caches together.
    room: Arc<Semaphore>,
    room_tokens: usize,
    /// Each conversation's fixed memory.
    own_tokens: usize,
    /// Tokens per chunk of a prompt. Smaller chunks overlap better across stages, larger ones compute faster.
    prompt_chunk: usize,
}

impl Ring {
    /// The stages and their current holders, in the order in which a token passes them.
    pub fn stages(&self) -> Vec<PlacedStage> {
        self.inner.stages().clone()
    }

    /// The stages on this machine, and the connections to those on others.
    pub(crate) fn host(&self) -> &StageHost {
        &self.inner.host
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.inner.model
    }

    /// The standby replicas, each ready to take over its stage.
    pub fn standby_replicas(&self) -> Vec<PlacedStage> {
        self.standbys().into_iter().map(|standby| standby.stage).collect()
    }

    /// Whether answers are under way.
    pub fn is_busy(&self) -> bool {
        !self.sessions().is_empty()
    }

    /// Bytes of each stage, with room for one conversation.
    pub fn stage_bytes(&self) -> impl Iterator<Item = u64> {
        self.inner.plan.stages.iter().map(PlannedStage::bytes)
    }

    /// Bytes of each stage's weights.
    pub(crate) fn stage_weight_bytes(&self) -> impl Iterator<Item = u64> {
        self.inner.plan.stages.iter().map(|stage| stage.weight_bytes)
    }

    /// Bytes that its stages and standby replicas take on each machine.
    pub fn holdings(&self) -> Vec<(PeerId, u64)> {
        let bytes: Vec<u64> = self.stage_bytes().collect();
        let stages = self.stages().into_iter().enumerate();
        let standbys = self.standbys().into_iter().map(|standby| (standby.index, standby.stage));
        stages.chain(standbys).map(|(index, stage)| (stage.placement.addr.id(), bytes[index])).collect()
    }

    /// Whether every stage computes.
    pub fn is_whole(&self) -> bool {
        self.inner.state.borrow().health == Health::Whole
    }

    /// Whether two handles are of the same ring.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The model has migrated: its answers move to the new ring.
    pub fn supersede(&self) {
        self.inner.state.send_modify(|state| state.health = Health::Superseded);
    }

    /// The number of sessions opened so far, and of sessions open now, by which an answer sees whether it has the ring
    /// to itself.
    pub(crate) fn traffic(&self) -> (u64, usize) {
        (self.inner.opened.load(Ordering::Relaxed), self.sessions().len())
    }

    /// The ring's state, with a notification of every change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    /// Whether the machine of a stage has left. The failover may not have begun yet.
    pub fn has_lost_a_machine(&self) -> bool {
        self.inner.stages().iter().any(|stage| has_left(self.host(), stage))
    }

    /// Whether the ring was abandoned, so that the model must be loaded again.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.inner.state.borrow().health, Health::Abandoned(_))
    }

    /// Where machines find the model.
    pub fn source(&self) -> &ModelSource {
        &self.inner.options.source
    }

    /// Reports that something does not work, without knowing where.
    pub(crate) fn report_fault(&self, epoch: u32, why: String) {
        self.inner.report_fault(epoch, FaultOrigin::Link, why);
    }

    /// Reports that a stage was checked and makes no progress.
    pub(crate) fn report_no_progress(&self, epoch: u32, index: usize, why: String) {
        self.inner.report_fault(epoch, FaultOrigin::Progress(index), why);
    }

    /// Reports that the last stage sampled an invalid token.
    pub(crate) fn report_wrong_token(&self, epoch: u32, why: String) {
        let last = self.inner.stages().len() - 1;
        self.inner.report_fault(epoch, FaultOrigin::Output(last), why);
    }

    /// The right to run a spot check, if one is due and none is running.
    pub(crate) fn claim_spot_check(&self) -> Option<OwnedMutexGuard<()>> {
        let is_due = self.inner.spot_check.is_due() && !lock(&self.inner.standbys).is_empty();
        if is_due { self.inner.spot_checking.clone().try_lock_owned().ok() } else { None }
    }

    /// Records that a spot check has ended; `compared` is false if it could not be completed.
    pub(crate) fn spot_check_done(&self, compared: bool) {
        self.inner.spot_check.checked(compared);
    }

    /// Whether enough tokens went unchecked that a spot check is worth waiting for.
    pub(crate) fn spot_check_is_overdue(&self) -> bool {
        self.inner.spot_check.is_overdue()
    }

    /// Whether anything computed up to this epoch may be based on wrong numbers.
    pub(crate) fn is_tainted(&self, epoch: u32) -> bool {
        self.inner.tainted_epochs.load(Ordering::Relaxed) > epoch
    }

    /// How long nothing has arrived in any session.
    pub(crate) fn quiet(&self) -> Duration {
        lock(&self.inner.heard).elapsed()
    }

    /// Whether the stages have not computed a token together since they were joined.
    fn is_cold(&self, epoch: u32) -> bool {
        self.inner.warm_epochs.load(Ordering::Relaxed) <= epoch
    }

    /// Records that the stages have computed a token together.
    pub(crate) fn warmed_up(&self, epoch: u32) {
        self.inner.warm_epochs.fetch_max(epoch + 1, Ordering::Relaxed);
    }

    /// The longest conversation that the machines have memory for, in tokens.
    pub(crate) fn room_tokens(&self) -> usize {
        self.inner.room_tokens
    }

    /// Waits, in turn, until the KV caches have room for this many tokens.
    pub(crate) async fn admit(&self, tokens: usize) -> Option<OwnedSemaphorePermit> {
        let tokens = tokens.min(self.inner.room_tokens) + self.inner.own_tokens;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.inner.room.clone().acquire_many_owned(tokens).await.ok()
    }

    pub(crate) fn count_token(&self) {
        self.inner.spot_check.count_token();
        self.inner.host.count_token();
    }

    /// A new number for an answer.
    pub(crate) fn new_id(&self) -> u64 {
        self.inner.answers.fetch_add(1, Ordering::Relaxed)
    }

    fn prefix_cache(&self) -> MutexGuard<'_, PrefixCache> {
        lock(&self.inner.prefix_cache)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.inner.sessions)
    }

    /// The standby replicas.
    fn standbys(&self) -> Vec<Standby> {
        lock(&self.inner.standbys).clone()
    }

    pub(crate) fn prompt_chunk(&self) -> usize {
        self.inner.prompt_chunk
    }
}

#[cfg(test)]
impl Ring {
    /// Turns a stage into a standby replica of the first one.
    pub(crate) fn add_standby_of_first(&self, stage: PlacedStage) {
        lock(&self.inner.standbys).push(Standby { index: 0, stage });
    }
}

impl Inner {
    fn stages(&self) -> MutexGuard<'_, Vec<PlacedStage>> {
        lock(&self.stages)
    }

    fn stage_id(&self, index: usize) -> StageId {
        StageId { ring: self.id, index: index as u32 }
    }

    /// Abandons the ring, unless it was abandoned before.
    fn abandon(&self, why: &str) {
        self.state.send_if_modified(|state| {
            let is_new = !matches!(state.health, Health::Abandoned(_));
            if is_new {
                state.health = Health::Abandoned(why.to_owned());
            }
            is_new
        });
    }

    /// Reports a fault to the failover. If the queue is full, the stages are about to be checked anyway.
    fn report_fault(&self, epoch: u32, origin: FaultOrigin, why: String) {
        let _ = self.fault_reports.try_send(FaultReport { epoch, origin, why });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
