//! A model loaded over several nodes, as its coordinator sees it.

mod assembly;
pub(crate) mod checkup;
mod costs;
mod due;
mod handover;
mod life;
mod mend;
pub(crate) mod patience;
mod placed;
mod quarantine;
mod report;
pub(crate) mod sessions;
pub(crate) mod spot;
mod standby;
mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hive_net::{Frame, PeerId};
use hive_plan::{Plan, PlannedStage};
use hive_protocol::{ModelSource, RingId, StageId};
use hive_stage::{Destination, Fault, StageHost};
use hive_worker::text::Model;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::kept::Kept;
use due::Due;
use placed::{Standby, has_left};
pub use placed::{PlacedStage, RingError, RingOptions};
use state::{Cause, Trouble};
pub use state::{Health, State};

/// Queues of what comes back, by session.
type Sessions = Mutex<HashMap<u128, mpsc::Sender<Frame>>>;

/// A loaded model. Clones share it; [`Ring::unload`] frees it.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    id: RingId,
    host: StageHost,
    plan: Plan,
    /// Who holds the stages now.
    stages: Mutex<Vec<PlacedStage>>,
    /// Copies of them, ready to take over.
    standbys: Mutex<Vec<Standby>>,
    state: watch::Sender<State>,
    /// Held while it is mended.
    mending: tokio::sync::Mutex<()>,
    /// Held while the stages are checked.
    checking: Arc<tokio::sync::Mutex<()>>,
    /// When a token or a piece of a prompt came last, in whatever session.
    heard: Mutex<Instant>,
    /// One more than the latest epoch in which the stages have computed a token together.
    warm_epochs: AtomicU32,
    /// When what machines compute is compared next.
    spot_check: Due,
    /// Held while that is done.
    spot_checking: Arc<tokio::sync::Mutex<()>>,
    /// One more than the latest epoch in which a stage was found to compute wrong numbers.
    tainted_epochs: AtomicU32,
    troubles: mpsc::Sender<Trouble>,
    model: Model,
    options: RingOptions,
    prompts: tokio::sync::Mutex<Destination>,
    sessions: Sessions,
    /// Answers that were begun here: they are numbered.
    answers: AtomicU64,
    /// Sessions that were ever opened.
    opened: AtomicU64,
    kept: Mutex<Kept>,
    /// Tokens that the answers under way may have in the caches together.
    room: Arc<Semaphore>,
    room_tokens: usize,
}

impl Ring {
    /// The stages, in the order a token passes them, and who holds them now.
    pub fn stages(&self) -> Vec<PlacedStage> {
        self.inner.stages().clone()
    }

    /// The stages of this machine, and its way to those of others.
    pub(crate) fn host(&self) -> &StageHost {
        &self.inner.host
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.inner.model
    }

    /// The copies of stages that are ready to take over.
    pub fn copies(&self) -> Vec<PlacedStage> {
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

    /// Bytes that its stages and copies take, machine by machine.
    pub fn holdings(&self) -> Vec<(PeerId, u64)> {
        let bytes: Vec<u64> = self.stage_bytes().collect();
        let stages = self.stages().into_iter().enumerate();
        let copies = self.standbys().into_iter().map(|standby| (standby.index, standby.stage));
        stages.chain(copies).map(|(index, stage)| (stage.placement.addr.id(), bytes[index])).collect()
    }

    /// Whether all of it computes.
    pub fn is_whole(&self) -> bool {
        self.inner.state.borrow().health == Health::Whole
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Sends its answers on to the model's better place.
    pub fn supersede(&self) {
        self.inner.state.send_modify(|state| state.health = Health::Superseded);
    }

    /// How many sessions were ever opened, and how many are open: what tells an answer whether it has the ring to itself.
    pub fn traffic(&self) -> (u64, usize) {
        (self.inner.opened.load(Ordering::Relaxed), self.sessions().len())
    }

    /// How it is, and a notice of every change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    /// Whether a machine of its stages has left, which is noticed or just about to be.
    pub fn has_lost_a_machine(&self) -> bool {
        self.inner.stages().iter().any(|stage| has_left(self.host(), stage))
    }

    /// Whether it has been given up.
    pub fn is_lost(&self) -> bool {
        matches!(self.inner.state.borrow().health, Health::Lost(_))
    }

    /// Gives it up: whoever needs it loads the model anew.
    pub(crate) fn fail(&self, why: &str) {
        self.inner.fail(why);
    }

    /// Where the machines find it.
    pub fn source(&self) -> &ModelSource {
        &self.inner.options.source
    }

    /// Says that something does not work, so that it is looked after.
    pub(crate) fn complain(&self, epoch: u32, why: String) {
        // Where one waits already, the ring is looked after anyway.
        self.report_trouble(epoch, Cause::Fault(Fault::Link), why);
    }

    /// Says that a stage does not go on.
    pub(crate) fn complain_of_hung(&self, epoch: u32, index: usize, why: String) {
        self.report_trouble(epoch, Cause::Hung(index), why);
    }

    /// Says that the last stage chose a token that cannot be right.
    pub(crate) fn complain_of_last(&self, epoch: u32, why: String) {
        self.report_trouble(epoch, Cause::Fault(Fault::LastStage), why);
    }

    fn report_trouble(&self, epoch: u32, cause: Cause, why: String) {
        let _ = self.inner.troubles.try_send(Trouble { epoch, cause, why });
    }

    /// The right to compare what the machines compute, when that is due.
    pub(crate) fn claim_spot_check(&self) -> Option<OwnedMutexGuard<()>> {
        let is_due = self.inner.spot_check.is_due() && !lock(&self.inner.standbys).is_empty();
        if is_due { self.inner.spot_checking.clone().try_lock_owned().ok() } else { None }
    }

    /// A spot check has ended; `compared` unless it could not be finished.
    pub(crate) fn spot_check_done(&self, compared: bool) {
        self.inner.spot_check.checked(compared);
    }

    /// Whether so many tokens were not compared that a spot check is worth waiting for.
    pub(crate) fn spot_check_is_overdue(&self) -> bool {
        self.inner.spot_check.is_overdue()
    }

    /// Whether what was computed up to this epoch may come from wrong numbers.
    pub(crate) fn is_tainted(&self, epoch: u32) -> bool {
        self.inner.tainted_epochs.load(Ordering::Relaxed) > epoch
    }

    /// For how long nothing has come back, in any session.
    pub(crate) fn quiet(&self) -> Duration {
        lock(&self.inner.heard).elapsed()
    }

    /// Whether the stages have not computed a token together since the ring was joined.
    fn is_cold(&self, epoch: u32) -> bool {
        self.inner.warm_epochs.load(Ordering::Relaxed) <= epoch
    }

    /// The stages have computed a token together.
    pub(crate) fn warmed_up(&self, epoch: u32) {
        self.inner.warm_epochs.fetch_max(epoch + 1, Ordering::Relaxed);
    }

    /// The longest conversation that the machines have memory for, in tokens.
    pub(crate) fn room_tokens(&self) -> usize {
        self.inner.room_tokens
    }

    /// Waits, in turn, until the caches have room for so many tokens.
    pub(crate) async fn admit(&self, tokens: usize) -> Option<OwnedSemaphorePermit> {
        let tokens = u32::try_from(tokens.min(self.inner.room_tokens)).unwrap_or(u32::MAX);
        self.inner.room.clone().acquire_many_owned(tokens).await.ok()
    }

    pub(crate) fn count_token(&self) {
        self.inner.spot_check.count_token();
        self.inner.host.count_token();
    }

    /// A number for an answer.
    pub(crate) fn new_id(&self) -> u64 {
        self.inner.answers.fetch_add(1, Ordering::Relaxed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.inner.kept)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u128, mpsc::Sender<Frame>>> {
        lock(&self.inner.sessions)
    }

    /// The copies there are.
    fn standbys(&self) -> Vec<Standby> {
        lock(&self.inner.standbys).clone()
    }

    pub(crate) fn prompt_chunk(&self) -> usize {
        self.inner.options.prompt_chunk.max(1)
    }
}

#[cfg(test)]
impl Ring {
    /// Takes a stage for a copy of the first one.
    pub(crate) fn copy_of_first(&self, stage: PlacedStage) {
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

    fn fail(&self, why: &str) {
        self.state.send_if_modified(|state| {
            let news = !matches!(state.health, Health::Lost(_));
            if news {
                state.health = Health::Lost(why.to_owned());
            }
            news
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
