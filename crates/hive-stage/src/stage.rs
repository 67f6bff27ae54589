//! A stage on this node: a worker, and the routes of its outputs.
//!
//! It is an actor: everything that happens to a stage passes one queue, so its state needs no lock. Frames come from
//! the previous stage (or the coordinator), results from the worker.

mod actor;
mod adapters;
mod adopting;
mod digest;
mod frames;
pub(crate) mod fuzzing;
mod pulse;
mod recompute;
mod routes;
mod sent;
mod spec_bytes;
mod tombstones;
mod transit;
#[cfg(test)]
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hive_model::AdapterId;
use hive_net::Frame;
use hive_net::stage::Budget;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use hive_audit::Usage;
use hive_peers::Tasks;
use hive_protocol::{Arithmetic, Reply, Request, StageSpec};
use hive_worker::{AdaptFailure, Death, Events, FromWorker, LoadOrder, ToWorker, Worker, WorkerEvent};

use crate::adapters::AdapterBytes;
use crate::copies::Copies;
use actor::Actor;
#[cfg(any(test, feature = "testing"))]
pub(crate) use frames::failed_frame;
pub(crate) use frames::turns;
pub use frames::{Failure, Fault, failure_of, prompt_frame, sampled_of};
use pulse::Activity;
use routes::Command;
pub use routes::Destination;
pub(crate) use routes::{Routes, Tenancy};
pub(crate) use transit::{Part, Transit};

/// Capacity of a stage's queues for frames and commands.
const QUEUE: usize = 256;

/// Attempts to load a shard in a worker: what killed one, such as a lack of memory, may be temporary.
const STARTS: usize = 3;

/// Memory for queued frames; a chunk of a prompt takes up to 16 MiB in the largest models. Each stage has its own
/// budget: one that waits for the next machine must not hold back frames from the stage that it waits for.
const FRAME_BYTES: usize = 32 << 20;

/// Reports wait for the batch that a worker computes, but not for ever.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// An adapter is loaded between two batches, which on a slow machine take a minute.
pub(crate) const ADAPT_TIMEOUT: Duration = Duration::from_mins(5);

/// How long a check waits for the worker. A worker in the middle of a large batch does not answer in time; then the
/// reply has the rows still to compute.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long a stage that ends may take to notify its sessions; one that waits for another machine cannot.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle to a running stage. When the last one is dropped, the stage and its worker end.
#[derive(Clone)]
pub(crate) struct Stage {
    commands: mpsc::Sender<Command>,
    frames: mpsc::Sender<Frame>,
    budget: Budget,
    sessions: Arc<AtomicUsize>,
    usage: Arc<Usage>,
    held_bytes: Arc<AtomicUsize>,
    adapter_bytes: Arc<AtomicU64>,
    adapter_turn: Arc<Semaphore>,
    process_id: Option<u32>,
    activity: Activity,
    running: Arc<Running>,
}

/// The actor's task. It ends with the last handle to the stage, whatever it waits for, and so does its worker.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stage {
    /// Starts a worker and loads the shard; also returns the name of the device.
    pub(crate) async fn load(
        path: &Path,
        index: u32,
        spec: &StageSpec,
        tenancy: Tenancy,
        tasks: &Tasks,
        copies: Copies,
        mut progress: impl FnMut(usize),
    ) -> Result<(Self, String), NotLoaded> {
        let mut deaths = 0;
        let (worker, events, device, arithmetic) = loop {
            match start(path, spec, &mut progress).await {
                Ok(started) => break started,
                Err(NotStarted::Failed(why)) => return Err(why),
                Err(NotStarted::Died(how)) => {
                    let how = how.to_string();
                    deaths += 1;
                    if deaths == STARTS {
                        let why = format!("the worker ended while loading, {STARTS} times ({how})");
                        return Err(NotLoaded::Failed(why));
                    }
                    tracing::info!("a worker ended while loading ({how}) and is started again");
                }
            }
        };
        Ok((Self::run(worker, events, index, tenancy, Activity::new(arithmetic, copies), tasks), device))
    }

    fn run(worker: Worker, events: Events, index: u32, tenancy: Tenancy, activity: Activity, tasks: &Tasks) -> Self {
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (frames, frame_queue) = mpsc::channel(QUEUE);
        let process_id = worker.process_id();
        let actor = Actor::new(worker, index, tenancy, activity.clone(), commands.downgrade(), tasks.clone());
        let (sessions, held_bytes, usage) = (actor.busy(), actor.held_bytes(), actor.usage());
        let (adapter_bytes, adapter_turn) = (actor.adapter_bytes(), Arc::new(Semaphore::new(1)));
        let task = tasks.spawn(actor.run(command_queue, frame_queue, events));
        let running = Arc::new(Running(task.abort_handle()));
        let budget = Budget::new(FRAME_BYTES);
        Self {
            commands,
            frames,
            budget,
            sessions,
            usage,
            held_bytes,
            adapter_bytes,
            adapter_turn,
            process_id,
            activity,
            running,
        }
    }

    /// A stage that accepts everything and does nothing.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn idle() -> (Self, std::io::PipeReader) {
        let (worker, orders) = Worker::that_only_listens();
        let tenancy = Tenancy { is_guest: true, is_whole: false, context: 64, is_recurrent: true };
        let activity = Activity::new(Arithmetic::Exact, Copies::default());
        (Self::run(worker, Events::none(), 0, tenancy, activity, &Tasks::default()), orders)
    }

    /// Memory in use, in bytes: the worker's, and this node's for the stage's sessions.
    pub(crate) fn used_bytes(&self) -> u64 {
        let worker = self.process_id.and_then(hive_host::memory::resident_bytes).unwrap_or(0);
        worker.saturating_add(self.held_bytes.load(Ordering::Relaxed) as u64)
    }

    /// Ends the stage. Its sessions get the reason, if there is time.
    pub(crate) async fn end(self, why: String) {
        let (ended, has_ended) = oneshot::channel();
        let ending = async {
            let _ = self.commands.send(Command::End(why, ended)).await;
            let _ = has_ended.await;
        };
        let _ = tokio::time::timeout(END_TIMEOUT, ending).await;
        self.running.0.abort();
    }

    /// The number of sessions being computed on this stage.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// The queue for frames to this stage.
    pub(crate) fn frames(&self) -> mpsc::Sender<Frame> {
        self.frames.clone()
    }

    /// The memory budget for frames that are not yet computed.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// This stage's work, for the audit log.
    pub(crate) fn usage(&self) -> Arc<Usage> {
        self.usage.clone()
    }

    pub(crate) async fn join(&self, routes: Routes) {
        let _ = self.commands.send(Command::Join(routes)).await;
    }

    /// Answers a request about the stage or its sessions.
    pub(crate) async fn answer(&self, request: Request) -> Result<Reply, String> {
        if matches!(request, Request::Check(_)) {
            return self.check(request).await;
        }
        match tokio::time::timeout(REPORT_TIMEOUT, self.put(request)).await {
            Ok(Some(answer)) => answer,
            _ => Err("the stage does not answer".to_owned()),
        }
    }

    /// Sends a request to the actor, which takes none while it waits for another machine; `None` if it has ended.
    async fn put(&self, request: Request) -> Option<Result<Reply, String>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Ask(request, answer)).await;
        answered.await.ok()
    }

    /// Checks the stage: by a request through the worker's own loop, or, if that takes too long, by the rows it still
    /// has to compute.
    async fn check(&self, request: Request) -> Result<Reply, String> {
        let asked = Instant::now();
        let passed = match tokio::time::timeout(CHECK_TIMEOUT, self.put(request)).await {
            Ok(Some(answer)) => answer.map(|_| true)?,
            Ok(None) => return Err("the stage has ended".to_owned()),
            Err(_) => false,
        };
        Ok(Reply::Pulse(self.activity.pulse(passed, asked)))
    }

    /// Whether an adapter is loaded.
    pub(crate) async fn has_adapter(&self, id: AdapterId) -> Result<bool, AdaptFailure> {
        self.put_adapter(id, None).await
    }

    /// Loads an adapter, unless it is loaded.
    pub(crate) async fn adapt(&self, id: AdapterId, bytes: AdapterBytes) -> Result<(), AdaptFailure> {
        self.put_adapter(id, Some(bytes)).await.map(|_| ())
    }

    async fn put_adapter(&self, id: AdapterId, bytes: Option<AdapterBytes>) -> Result<bool, AdaptFailure> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Adapt(id, bytes, answer)).await;
        let answered = tokio::time::timeout(ADAPT_TIMEOUT, answered).await;
        let silent = || Err(AdaptFailure::Failed("the stage does not answer".to_owned()));
        answered.map_or_else(|_| None, Result::ok).unwrap_or_else(silent)
    }

    /// Lets one adapter at a time be received for this stage.
    pub(crate) fn adapter_turn(&self) -> Arc<Semaphore> {
        self.adapter_turn.clone()
    }

    /// The memory that adapters take in its worker, in bytes.
    pub(crate) fn adapter_bytes(&self) -> u64 {
        self.adapter_bytes.load(Ordering::Relaxed)
    }

    /// The sessions and their lengths, in tokens.
    pub(crate) async fn open_sessions(&self) -> Vec<(u128, u32)> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::List(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Hands a session over: it leaves this stage. If something fails, its parts end without [`Part::Whole`].
    pub(crate) async fn give_away(&self, session: u128) -> mpsc::UnboundedReceiver<Part> {
        let (parts, receiver) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::GiveAway(session, parts)).await;
        receiver
    }

    /// Takes in a session from another machine with the same layers.
    pub(crate) async fn take_in(&self, session: Transit) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::TakeIn(Box::new(session), answer)).await;
        answered.await.unwrap_or_else(|_| Err("the stage does not answer".to_owned()))
    }
}

/// Why a stage was not loaded. The texts are for this machine's log, because they may name files.
#[derive(Debug)]
pub(crate) enum NotLoaded {
    /// It failed on this machine.
    Failed(String),
    /// The model's files are at fault, on any machine.
    Unfit(String),
}

/// Why a worker did not start.
enum NotStarted {
    /// The shard cannot be loaded.
    Failed(NotLoaded),
    /// The process ended.
    Died(Death),
}

/// Starts a worker and loads its shard; also returns the name of the device.
async fn start(
    path: &Path,
    spec: &StageSpec,
    progress: &mut impl FnMut(usize),
) -> Result<(Worker, Events, String, Arithmetic), NotStarted> {
    let failed = |why| NotStarted::Failed(NotLoaded::Failed(why));
    let (worker, mut events) = Worker::spawn(path).map_err(|error| failed(error.to_string()))?;
    let StageSpec { layers, compute, threads, at_load, .. } = spec.clone();
    let threads = if threads == 0 { hive_host::threads() } else { threads };
    worker.order(&ToWorker::Load(LoadOrder { path: path.to_owned(), layers, compute, threads, at_load }));
    loop {
        match events.next().await {
            Some(WorkerEvent::Said(FromWorker::Progress(layers))) => progress(layers),
            Some(WorkerEvent::Said(FromWorker::Loaded { device, arithmetic })) => {
                return Ok((worker, events, device, arithmetic));
            }
            Some(WorkerEvent::Said(FromWorker::LoadFailed(why))) => return Err(failed(why)),
            Some(WorkerEvent::Said(FromWorker::Unfit(why))) => return Err(NotStarted::Failed(NotLoaded::Unfit(why))),
            Some(WorkerEvent::Said(_)) => {}
            Some(WorkerEvent::Died(how)) => return Err(NotStarted::Died(how)),
            None => {
                let status = "it said nothing".to_owned();
                return Err(NotStarted::Died(Death { status, last_words: String::new() }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use hive_protocol::{RingId, SessionSpec, StageId};

    #[tokio::test]
    async fn ending_a_stage_that_does_not_end_takes_two_seconds() {
        let (stage, _orders) = Stage::idle();
        tokio::time::timeout(END_TIMEOUT * 2, stage.end("it is over".to_owned())).await.expect("it is not waited for");
    }

    #[tokio::test]
    async fn the_worker_ends_with_the_last_handle_also_while_its_stage_waits_for_another_machine() {
        let (stage, mut orders) = Stage::idle();
        let (coordinator, mut frames) = mpsc::channel(1);
        let routes = Routes { epoch: 0, next: None, first: None, coordinator: Destination::Local(coordinator) };
        stage.join(routes).await;
        for session in [1, 2] {
            let options = hive_model::SessionOptions::default();
            let spec =
                SessionSpec { session, answer: 1, options, end_tokens: vec![], last_position: 9, continues: None };
            stage.answer(Request::Open(StageId { ring: RingId(1), index: 0 }, spec)).await.unwrap();
        }
        // There is room for one of the two notices.
        let _ = stage.commands.send(Command::Lost("the next machine", "it left".to_owned())).await;
        while frames.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(stage);
        let ended = tokio::task::spawn_blocking(move || orders.read_to_end(&mut Vec::new()));
        let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
        let first = frames.try_recv();
        assert!(ended.is_ok() && first.is_ok(), "it waits for ever");
    }
}
