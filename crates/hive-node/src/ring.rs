//! A model loaded over several nodes, as its coordinator sees it.

mod assembly;
mod checkup;
mod handover;
mod mend;
pub(crate) mod patience;
mod sessions;
mod spot;
mod standby;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hive_net::{Frame, PeerAddr, PeerId};
use hive_plan::{Plan, PlannedStage};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::Compute;
use crate::having::Lacking;
use crate::kept::Kept;
use crate::node::Node;
use crate::planning::{PLANNED_CONTEXT, PROMPT_CHUNK};
use crate::stage::{Destination, Fault};
use hive_protocol::{Answer, ModelSource, Question, RingId, StageId, StageReport, random_id};
use hive_worker::text::{Model, TextError};

use assembly::{connect, load_stage, spec, unload, watch_prompts};
use sessions::dispatch;
use standby::Standby;

pub(crate) use checkup::{Checkup, News, Verdict};
pub(crate) use handover::reading_rows_per_s;
pub(crate) use mend::{Cause, Trouble};
pub(crate) use sessions::NotOpen;
pub(crate) use spot::{Found, Spot, Subject};

/// Frames on their way to a session. An answer is read faster than it is computed.
const SESSION_QUEUE: usize = 64;

/// A node that a plan may use.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The name people see.
    pub name: String,
    /// Where it is.
    pub addr: PeerAddr,
}

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct RingOptions {
    /// Where the machines find it.
    pub source: ModelSource,
    /// Kernels.
    pub compute: Compute,
    /// Threads of each stage; 0 is as many as its machine has.
    pub threads: usize,
    /// Tokens of a prompt that travel together. Smaller chunks overlap better over stages, larger ones compute better.
    pub prompt_chunk: usize,
}

impl RingOptions {
    /// The usual way.
    pub fn new(source: ModelSource) -> Self {
        Self { source, compute: Compute::Auto, threads: 0, prompt_chunk: PROMPT_CHUNK }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Its tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A machine could not load its stage or connect it.
    #[error("{machine} could not take layers {} to {}: {why}", layers.start, layers.end)]
    Stage {
        /// Whose.
        machine: String,
        /// Its layers.
        layers: std::ops::Range<usize>,
        /// The cause.
        why: String,
    },
    /// A machine does not have the model.
    #[error("{0}")]
    Lacking(Lacking),
    /// The model's files are at fault: no machine could load it.
    #[error("the model cannot be loaded: {0}")]
    Unfit(String),
}

impl RingError {
    /// Whether it is the model's fault, and the same on other machines and later.
    pub(crate) fn is_the_models(&self) -> bool {
        match self {
            Self::Text(error) => !matches!(error, TextError::Start(_)),
            Self::Unfit(_) => true,
            Self::Stage { .. } | Self::Lacking(_) => false,
        }
    }
}

/// A stage as it was placed.
#[derive(Debug, Clone)]
pub struct PlacedStage {
    /// Where.
    pub placement: Placement,
    /// Layers `[start, end)`.
    pub layers: std::ops::Range<usize>,
    /// What computes there, for people.
    pub device: String,
    /// Which life of its node holds it: a node that started anew has forgotten its stages.
    pub(crate) life: u64,
}

/// Queues of what comes back, by session.
type Sessions = Mutex<HashMap<u128, mpsc::Sender<Frame>>>;

/// How a ring is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It computes.
    Whole,
    /// A stage is missing, for this reason, and being replaced.
    Mending(String),
    /// It could not be mended, for this reason: the model must be loaded anew.
    Lost(String),
    /// The model is loaded by a better plan, and its answers go on there.
    Superseded,
}

/// How a ring is, and how often it has been mended.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) epoch: u32,
    pub(crate) health: Health,
}

/// A loaded model. Clones share it; [`Ring::unload`] frees it.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    id: RingId,
    node: Node,
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
    spot_check: spot::Due,
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

/// Troubles on their way to be mended; one is enough.
const TROUBLES: usize = 8;

impl Ring {
    /// Loads a model as the plan says, over `placements`; `progress` hears how many layers are loaded in all.
    pub async fn load(
        node: &Node,
        model: Model,
        plan: &Plan,
        placements: &[Placement],
        options: RingOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, RingError> {
        model.prepare().await?;
        let id = RingId(random_id());
        // Known as wanted before the first stage is there, see `Question::Retain`.
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        node.coordinate(id, frames);
        let mut stages = Vec::with_capacity(plan.stages.len());
        let mut done = 0;
        for (index, stage) in plan.stages.iter().enumerate() {
            let placement = &placements[stage.machine];
            let stage_id = StageId { ring: id, index: index as u32 };
            let loaded = load_stage(node, stage_id, placement, spec(stage, &options), |layers| progress(done + layers));
            match loaded.await {
                Ok(stage) => stages.push(stage),
                Err(error) => {
                    node.retire(id);
                    // The one that failed as well: its connection may have broken when it had loaded.
                    let failed = placement.addr.clone();
                    let holders = stages.iter().map(|stage| stage.placement.addr.clone()).chain([failed]);
                    unload(node, id, holders.enumerate()).await;
                    return Err(error);
                }
            }
            done += stage.layers.len();
        }
        let prompts = match connect(node, id, 0, &stages).await {
            Ok(prompts) => prompts,
            Err((_, error)) => {
                node.retire(id);
                unload(node, id, holders(stages.iter().enumerate())).await;
                return Err(error);
            }
        };
        let all_tokens = (plan.room_tokens as usize).min(Semaphore::MAX_PERMITS / 2);
        let kept_tokens = (all_tokens / 2).min(PLANNED_CONTEXT as usize);
        let room_tokens = all_tokens - kept_tokens;
        let (troubles, waiting) = mpsc::channel(TROUBLES);
        watch_prompts(node, &prompts, 0, &troubles);
        let inner = Arc::new(Inner {
            id,
            node: node.clone(),
            plan: plan.clone(),
            stages: Mutex::new(stages),
            standbys: Mutex::default(),
            state: watch::channel(State { epoch: 0, health: Health::Whole }).0,
            mending: tokio::sync::Mutex::default(),
            checking: Arc::default(),
            heard: Mutex::new(Instant::now()),
            warm_epochs: AtomicU32::new(0),
            spot_check: spot::Due::default(),
            spot_checking: Arc::default(),
            tainted_epochs: AtomicU32::new(0),
            troubles,
            model,
            options,
            prompts: tokio::sync::Mutex::new(prompts),
            sessions: Mutex::default(),
            answers: AtomicU64::new(u64::from(random_id() as u32)),
            opened: AtomicU64::default(),
            kept: Mutex::new(Kept::new(kept_tokens)),
            room: Arc::new(Semaphore::new(room_tokens)),
            room_tokens,
        });
        node.spawn(dispatch(queue, Arc::downgrade(&inner)));
        node.spawn(standby::keep(Arc::downgrade(&inner), node.clone()));
        node.spawn(mend::attend(Arc::downgrade(&inner), waiting, node.clone()));
        Ok(Self { inner })
    }

    /// The stages, in the order a token passes them, and who holds them now.
    pub fn stages(&self) -> Vec<PlacedStage> {
        self.inner.stages().clone()
    }

    /// Whose ring it is.
    pub(crate) fn node(&self) -> &Node {
        &self.inner.node
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.inner.model
    }

    /// How every stage is.
    pub async fn report(&self) -> Result<Vec<StageReport>, RingError> {
        let mut reports = Vec::new();
        for (index, stage) in self.stages().into_iter().enumerate() {
            let question = Question::Report(self.inner.stage_id(index));
            match self.inner.node.ask(&stage.placement.addr, question, |_| ()).await {
                Ok(Answer::Report(report)) => reports.push(report),
                Ok(_) => reports.push(StageReport::default()),
                Err(why) => return Err(failed(&stage.placement, &stage.layers, why)),
            }
        }
        Ok(reports)
    }

    /// Frees the model everywhere.
    pub async fn unload(&self) {
        self.fail("the model was unloaded");
        self.inner.node.retire(self.inner.id);
        // Whoever mends it sees this and frees what was loaded for that.
        drop(self.inner.mending.lock().await);
        self.unload_all().await;
    }

    async fn unload_all(&self) {
        let stages = self.stages();
        let standbys = std::mem::take(&mut *lock(&self.inner.standbys));
        let copies = standbys.iter().map(|standby| (standby.index, &standby.stage));
        // A copy that is still being loaded goes with the next look for such.
        self.inner.node.want_only(self.inner.id, std::iter::empty());
        unload(&self.inner.node, self.inner.id, holders(stages.iter().enumerate().chain(copies))).await;
    }

    /// The copies of stages that are ready to take over.
    pub fn copies(&self) -> Vec<PlacedStage> {
        self.standbys().into_iter().map(|standby| standby.stage).collect()
    }

    /// Whether answers are under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.sessions().is_empty()
    }

    /// Bytes of each stage, with room for one conversation.
    pub(crate) fn stage_bytes(&self) -> impl Iterator<Item = u64> {
        self.inner.plan.stages.iter().map(PlannedStage::bytes)
    }

    /// Bytes of each stage's weights.
    pub(crate) fn stage_weight_bytes(&self) -> impl Iterator<Item = u64> {
        self.inner.plan.stages.iter().map(|stage| stage.weight_bytes)
    }

    /// Bytes that its stages and copies take, machine by machine.
    pub(crate) fn holdings(&self) -> Vec<(PeerId, u64)> {
        let bytes: Vec<u64> = self.stage_bytes().collect();
        let stages = self.stages().into_iter().enumerate();
        let copies = self.standbys().into_iter().map(|standby| (standby.index, standby.stage));
        stages.chain(copies).map(|(index, stage)| (stage.placement.addr.id(), bytes[index])).collect()
    }

    /// Whether all of it computes.
    pub(crate) fn is_whole(&self) -> bool {
        self.inner.state.borrow().health == Health::Whole
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Sends its answers on to the model's better place.
    pub(crate) fn supersede(&self) {
        self.inner.state.send_modify(|state| state.health = Health::Superseded);
    }

    /// How many sessions were ever opened, and how many are open: what tells an answer whether it has the ring to itself.
    pub(crate) fn traffic(&self) -> (u64, usize) {
        (self.inner.opened.load(Ordering::Relaxed), self.sessions().len())
    }

    /// What a token took in the stages of this machine since they were asked last, in microseconds.
    pub(crate) async fn own_token_us(&self, is_own: &[bool]) -> f64 {
        let mut sum = 0.0;
        for (index, stage) in self.stages().iter().enumerate().filter(|(index, _)| is_own[*index]) {
            let question = Question::Report(self.inner.stage_id(index));
            if let Ok(Answer::Report(report)) = self.inner.node.ask(&stage.placement.addr, question, |_| ()).await {
                sum += report.decode_us as f64 / report.decoded.max(1) as f64;
            }
        }
        sum
    }

    /// How it is, and a notice of every change.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    /// Whether it has been given up.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.inner.state.borrow().health, Health::Lost(_))
    }

    /// Waits until it has been given up.
    async fn given_up(&self) {
        let _ = self.state().wait_for(|state| matches!(state.health, Health::Lost(_))).await;
    }

    /// Gives it up: whoever needs it loads the model anew.
    pub(crate) fn fail(&self, why: &str) {
        self.inner.fail(why);
    }

    /// Where the machines find it.
    pub(crate) fn source(&self) -> &ModelSource {
        &self.inner.options.source
    }

    /// Turns true when this node ends its answers.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.inner.node.when_ending()
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

    /// A stage was found to compute wrong numbers: its machine is left out, and what was computed from them counts no more.
    pub(crate) fn caught(&self, epoch: u32, index: usize, machine: PeerId, name: &str) {
        tracing::warn!("{name} computed wrong numbers");
        self.inner.node.quarantine(machine, name);
        self.inner.tainted_epochs.fetch_max(epoch + 1, Ordering::Relaxed);
        let forgotten = self.kept().clear();
        let ring = self.clone();
        self.inner.node.spawn(async move {
            for session in forgotten {
                ring.close(session).await;
            }
        });
        self.report_trouble(epoch, Cause::Fault(Fault::Stage(index as u32)), format!("{name} computed wrong numbers"));
    }

    /// Whether what was computed up to this epoch may come from wrong numbers.
    pub(crate) fn is_tainted(&self, epoch: u32) -> bool {
        self.inner.tainted_epochs.load(Ordering::Relaxed) > epoch
    }

    /// What a token, and a row of a prompt, are expected to take where the stages are now.
    pub(crate) fn expected(&self) -> patience::Expected {
        let expected = self.inner.node.expected(self);
        expected.unwrap_or_else(|| patience::Expected::unknown(self.stages().len()))
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
        self.inner.node.count_token();
    }

    /// A number for an answer.
    pub(crate) fn new_id(&self) -> u64 {
        self.inner.answers.fetch_add(1, Ordering::Relaxed)
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

/// Where stages are, by their places in the ring.
fn holders<'a>(stages: impl Iterator<Item = (usize, &'a PlacedStage)>) -> impl Iterator<Item = (usize, PeerAddr)> {
    stages.map(|(index, stage)| (index, stage.placement.addr.clone()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(placement: &Placement, layers: &std::ops::Range<usize>, why: String) -> RingError {
    RingError::Stage { machine: placement.name.clone(), layers: layers.clone(), why }
}
