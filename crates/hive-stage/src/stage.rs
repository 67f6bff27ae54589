//! A stage that this node hosts: a worker, and where its outputs go.
//!
//! An actor: everything that happens to a stage passes one queue, so its state needs no lock. Frames come from the
//! previous stage (or the coordinator), results from the worker.

mod actor;
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hive_net::Frame;
use hive_net::stage::Budget;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use hive_audit::Usage;
use hive_peers::Tasks;
use hive_protocol::{Arithmetic, Reply, Request, StageSpec};
use hive_worker::{Death, Events, FromWorker, LoadOrder, ToWorker, Worker, WorkerEvent};

use actor::Actor;
pub(crate) use frames::turns;
pub use frames::{Failure, Fault, failure_of, prompt_frame, sampled_of};
use pulse::Activity;
use routes::Command;
pub use routes::Destination;
pub(crate) use routes::{Routes, Tenancy};
pub(crate) use transit::{Part, Transit};

/// Frames and commands on their way to a stage.
const QUEUE: usize = 256;

/// Times a worker is started to load a shard: what killed one, as memory that was short for a moment, may be over.
const STARTS: usize = 3;

/// Memory for frames on their way to a stage; a chunk of the largest models' prompts is 16 MiB. Each stage has its own: one
/// that waits for the next machine must not keep frames from the very stage that it waits for.
const FRAME_BYTES: usize = 32 << 20;

/// A worker that computes a large batch cannot report; that is no reason to wait for ever.
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a worker that is asked for signs of life has to get around to it. One in the middle of a batch does not, and then
/// what it owes is told.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1500);

/// A stage that ends has its sessions told; one that waits for another machine does not get around to it.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle to a running stage; the last one dropped ends it, and its worker.
#[derive(Clone)]
pub(crate) struct Stage {
    commands: mpsc::Sender<Command>,
    frames: mpsc::Sender<Frame>,
    budget: Budget,
    sessions: Arc<AtomicUsize>,
    usage: Arc<Usage>,
    held_bytes: Arc<AtomicUsize>,
    process_id: Option<u32>,
    activity: Activity,
    running: Arc<Running>,
}

/// The actor's task. It ends with the last handle to the stage, whatever it waits for, and its worker with it.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Stage {
    /// Starts a worker and loads the shard; says on which device.
    pub(crate) async fn load(
        path: &Path,
        index: u32,
        spec: &StageSpec,
        tenancy: Tenancy,
        tasks: &Tasks,
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
        Ok((Self::run(worker, events, index, tenancy, arithmetic, tasks), device))
    }

    fn run(
        worker: Worker,
        events: Events,
        index: u32,
        tenancy: Tenancy,
        arithmetic: Arithmetic,
        tasks: &Tasks,
    ) -> Self {
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (frames, frame_queue) = mpsc::channel(QUEUE);
        let process_id = worker.process_id();
        let activity = Activity::new(arithmetic);
        let actor = Actor::new(worker, index, tenancy, activity.clone(), commands.downgrade(), tasks.clone());
        let (sessions, held_bytes, usage) = (actor.busy(), actor.held_bytes(), actor.usage());
        let task = tasks.spawn(actor.run(command_queue, frame_queue, events));
        let running = Arc::new(Running(task.abort_handle()));
        let budget = Budget::new(FRAME_BYTES);
        Self { commands, frames, budget, sessions, usage, held_bytes, process_id, activity, running }
    }

    /// One that does nothing and takes whatever is sent to it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn idle() -> (Self, std::io::PipeReader) {
        let (worker, orders) = Worker::that_only_listens();
        let tenancy = Tenancy { is_guest: true, context: 64 };
        (Self::run(worker, Events::none(), 0, tenancy, Arithmetic::Exact, &Tasks::default()), orders)
    }

    /// Memory that it takes now, in bytes: its worker's, and what this node keeps for its sessions.
    pub(crate) fn used_bytes(&self) -> u64 {
        let worker = self.process_id.and_then(hive_host::memory::resident_bytes).unwrap_or(0);
        worker.saturating_add(self.held_bytes.load(Ordering::Relaxed) as u64)
    }

    /// Ends it, for a reason that its sessions are told if it gets around to that.
    pub(crate) async fn end(self, why: String) {
        let (ended, has_ended) = oneshot::channel();
        let ending = async {
            let _ = self.commands.send(Command::End(why, ended)).await;
            let _ = has_ended.await;
        };
        let _ = tokio::time::timeout(END_TIMEOUT, ending).await;
        self.running.0.abort();
    }

    /// Sessions that are being computed on this stage.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Where frames for this stage go.
    pub(crate) fn frames(&self) -> mpsc::Sender<Frame> {
        self.frames.clone()
    }

    /// Memory for them until they are computed.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// What has been computed on this stage.
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

    /// Puts a request to the actor, which takes none while it waits for another machine; `None` where it has ended.
    async fn put(&self, request: Request) -> Option<Result<Reply, String>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Ask(request, answer)).await;
        answered.await.ok()
    }

    /// Signs of life: out of the worker's own loop, or what it owes if it does not get around to answering.
    async fn check(&self, request: Request) -> Result<Reply, String> {
        let asked = Instant::now();
        let passed = match tokio::time::timeout(CHECK_TIMEOUT, self.put(request)).await {
            Ok(Some(answer)) => answer.map(|_| true)?,
            Ok(None) => return Err("the stage has ended".to_owned()),
            Err(_) => false,
        };
        Ok(Reply::Pulse(self.activity.pulse(passed, asked)))
    }

    /// The sessions, and how many tokens each has.
    pub(crate) async fn open_sessions(&self) -> Vec<(u128, u32)> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::List(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Gives a session away: from now on it is no more here. Its parts end without [`Part::Whole`] where something fails.
    pub(crate) async fn give_away(&self, session: u128) -> mpsc::UnboundedReceiver<Part> {
        let (parts, receiver) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::GiveAway(session, parts)).await;
        receiver
    }

    /// Takes in a session from another machine that had the same layers.
    pub(crate) async fn take_in(&self, session: Transit) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::TakeIn(Box::new(session), answer)).await;
        answered.await.unwrap_or_else(|_| Err("the stage does not answer".to_owned()))
    }
}

/// Why a stage was not loaded. The words are for this machine's log: they may name files.
#[derive(Debug)]
pub(crate) enum NotLoaded {
    /// It did not work here.
    Failed(String),
    /// The model's files are at fault, wherever they are loaded.
    Unfit(String),
}

/// Why a worker did not start.
enum NotStarted {
    /// The shard cannot be loaded.
    Failed(NotLoaded),
    /// The process ended.
    Died(Death),
}

/// Starts a worker that has the shard; says on which device.
async fn start(
    path: &Path,
    spec: &StageSpec,
    progress: &mut impl FnMut(usize),
) -> Result<(Worker, Events, String, Arithmetic), NotStarted> {
    let failed = |why| NotStarted::Failed(NotLoaded::Failed(why));
    let (worker, mut events) = Worker::spawn(path).map_err(|error| failed(error.to_string()))?;
    let StageSpec { layers, compute, threads, .. } = spec.clone();
    let threads = if threads == 0 { hive_host::threads() } else { threads };
    worker.order(&ToWorker::Load(LoadOrder { path: path.to_owned(), layers, compute, threads }));
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
        // There is room for what is said of one of them.
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
