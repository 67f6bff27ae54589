//! A model loaded over several nodes, as its coordinator sees it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hive_model::template::ChatTemplate;
use hive_model::{ModelFiles, Tokenizer};
use hive_net::{Frame, PeerAddr};
use hive_plan::Plan;
use tokio::sync::mpsc;

use crate::Compute;
use crate::control::{
    Answer, Continued, ModelSource, Neighbours, Question, RingId, Role, SessionSpec, StageReport, StageSpec,
};
use crate::kept::Kept;
use crate::node::Node;
use crate::stage::{Destination, failed_frame};

/// A machine that is here frees a stage at once.
const UNLOAD_PATIENCE: Duration = Duration::from_secs(1);

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
        Self { source, compute: Compute::Auto, threads: 0, prompt_chunk: 256 }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Its tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] hive_model::tokenizer::TokenizerError),
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
type Sessions = Mutex<HashMap<u64, mpsc::Sender<Frame>>>;

/// A loaded model. Clones share it; [`Ring::unload`] frees it.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    id: RingId,
    node: Node,
    stages: Vec<PlacedStage>,
    files: ModelFiles,
    tokenizer: Tokenizer,
    template: Result<ChatTemplate, hive_model::template::TemplateError>,
    options: RingOptions,
    prompts: tokio::sync::Mutex<Destination>,
    sessions: Arc<Sessions>,
    next_session: AtomicU64,
    failed: AtomicBool,
    kept: Mutex<Kept>,
}

impl Ring {
    /// Loads a model as the plan says, over `placements`; `progress` hears how many layers are loaded in all.
    pub async fn load(
        node: &Node,
        files: ModelFiles,
        plan: &Plan,
        placements: &[Placement],
        options: RingOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, RingError> {
        let tokenizer = files.tokenizer()?;
        // Numbers that no earlier life of this node has used, so that a late frame of then belongs to nobody.
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let id = RingId(seed);
        // Known as wanted before the first stage is there, see `Question::Retain`.
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        node.coordinate(id, frames);
        let mut stages = Vec::with_capacity(plan.stages.len());
        let mut done = 0;
        for stage in &plan.stages {
            let placement = &placements[stage.machine];
            let spec = StageSpec {
                source: options.source.clone(),
                layers: stage.layers.clone(),
                compute: options.compute,
                threads: options.threads,
            };
            let answer = node.ask(&placement.addr, Question::Load(id, spec), |layers| progress(done + layers)).await;
            match answer {
                Ok(Answer::Loaded(device)) => {
                    let life = node.peers().life(placement.addr.id()).unwrap_or_default();
                    stages.push(PlacedStage {
                        placement: placement.clone(),
                        layers: stage.layers.clone(),
                        device,
                        life,
                    });
                }
                other => {
                    node.retire(id);
                    unload(node, id, &stages).await;
                    let why = other.err().unwrap_or_else(|| "it answered something else".to_owned());
                    return Err(failed(placement, &stage.layers, why));
                }
            }
            done += stage.layers.len();
        }
        match connect(node, id, &stages).await {
            Ok(prompts) => {
                let sessions = Arc::default();
                tokio::spawn(dispatch(queue, Arc::clone(&sessions)));
                if let Destination::Remote(outlet) = &prompts {
                    tokio::spawn(fail_all(outlet.ended(), Arc::downgrade(&sessions)));
                }
                let template = files.chat_template();
                let inner = Inner {
                    id,
                    node: node.clone(),
                    stages,
                    files,
                    tokenizer,
                    template,
                    options,
                    prompts: tokio::sync::Mutex::new(prompts),
                    sessions,
                    next_session: AtomicU64::new(seed),
                    failed: AtomicBool::new(false),
                    kept: Mutex::default(),
                };
                Ok(Self { inner: Arc::new(inner) })
            }
            Err(error) => {
                node.retire(id);
                unload(node, id, &stages).await;
                Err(error)
            }
        }
    }

    /// The stages, in the order a token passes them.
    pub fn stages(&self) -> &[PlacedStage] {
        &self.inner.stages
    }

    /// The model.
    pub fn files(&self) -> &ModelFiles {
        &self.inner.files
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// How every stage is.
    pub async fn report(&self) -> Result<Vec<StageReport>, RingError> {
        let mut reports = Vec::new();
        for stage in self.stages() {
            match self.inner.node.ask(&stage.placement.addr, Question::Report(self.inner.id), |_| ()).await {
                Ok(Answer::Report(report)) => reports.push(report),
                Ok(_) => reports.push(StageReport::default()),
                Err(why) => return Err(failed(&stage.placement, &stage.layers, why)),
            }
        }
        Ok(reports)
    }

    /// Frees the model everywhere.
    pub async fn unload(&self) {
        self.inner.node.retire(self.inner.id);
        unload(&self.inner.node, self.inner.id, &self.inner.stages).await;
    }

    /// Whether answers are under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.sessions().is_empty()
    }

    /// Whether a stage has been lost since it was loaded.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner.failed.load(Ordering::Relaxed)
    }

    /// Notes that an answer failed for want of a stage; the next one begins with a model loaded anew.
    pub(crate) fn fail(&self) {
        self.inner.failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn template(&self) -> Result<&ChatTemplate, &hive_model::template::TemplateError> {
        self.inner.template.as_ref()
    }

    pub(crate) fn prompt_chunk(&self) -> usize {
        self.inner.options.prompt_chunk.max(1)
    }

    /// A number for a new session, and the queue of what comes back for it.
    pub(crate) fn new_session(&self) -> (u64, mpsc::Receiver<Frame>) {
        let session = self.inner.next_session.fetch_add(1, Ordering::Relaxed);
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        self.sessions().insert(session, frames);
        (session, queue)
    }

    /// Opens the session on every stage.
    pub(crate) async fn open(&self, spec: &SessionSpec) -> Result<(), String> {
        let last = self.stages().len() - 1;
        for (index, stage) in self.stages().iter().enumerate() {
            let mut spec = spec.clone();
            if index != last {
                // Only the last stage chooses tokens; the others have no use for what was said.
                spec.options = hive_model::SessionOptions::default();
            }
            let question = Question::Open(self.inner.id, spec);
            let opened = self.inner.node.ask(&stage.placement.addr, question, |_| ()).await;
            opened.map_err(|why| format!("{}: {why}", stage.placement.name))?;
        }
        Ok(())
    }

    /// Sends a part of the prompt to the first stage.
    pub(crate) async fn send_prompt(&self, frame: Frame) -> Result<(), String> {
        self.inner.prompts.lock().await.send(frame).await
    }

    /// Keeps a session that has ended, with the tokens that are in the stages' caches: the conversation may go on. The
    /// ones unused for longest make room.
    pub(crate) async fn keep(&self, session: u64, tokens: Vec<u32>) {
        self.sessions().remove(&session);
        let forgotten = self.kept().add(session, tokens);
        for stage in self.stages() {
            let question = Question::Keep(self.inner.id, session);
            let _ = self.inner.node.ask(&stage.placement.addr, question, |_| ()).await;
        }
        for session in forgotten {
            self.close(session).await;
        }
    }

    /// The kept session that has the longest beginning of a conversation, and how long that is. It is not kept any more.
    pub(crate) fn take_kept(&self, tokens: &[u32]) -> Option<Continued> {
        self.kept().take(tokens)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the session everywhere.
    pub(crate) async fn close(&self, session: u64) {
        self.sessions().remove(&session);
        for stage in self.stages() {
            let question = Question::Close(self.inner.id, session);
            // A stage that cannot be reached has nothing left to forget.
            let _ = self.inner.node.ask(&stage.placement.addr, question, |_| ()).await;
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<Frame>>> {
        self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins the stages in a circle and gives the way to the first.
async fn connect(node: &Node, id: RingId, stages: &[PlacedStage]) -> Result<Destination, RingError> {
    for (index, stage) in stages.iter().enumerate() {
        let next = stages.get(index + 1).map(|next| next.placement.addr.clone());
        let first = next.is_none().then(|| stages[0].placement.addr.clone());
        let neighbours = Neighbours { next, first, coordinator: node.addr() };
        let joined = node.ask(&stage.placement.addr, Question::Join(id, neighbours), |_| ()).await;
        joined.map_err(|why| failed(&stage.placement, &stage.layers, why))?;
    }
    let first = &stages[0];
    let prompts = node.route(&first.placement.addr, id, Role::Stage).await;
    prompts.map_err(|why| failed(&first.placement, &first.layers, why))
}

/// Machines that are here free their memory before this returns; the others are told when they can be.
async fn unload(node: &Node, id: RingId, stages: &[PlacedStage]) {
    for stage in stages {
        let (node, addr) = (node.clone(), stage.placement.addr.clone());
        let here = addr.id() == node.id() || node.is_connected(addr.id());
        let telling = tokio::spawn(async move {
            let _ = node.ask(&addr, Question::Unload(id), |_| ()).await;
        });
        if here {
            let _ = tokio::time::timeout(UNLOAD_PATIENCE, telling).await;
        }
    }
}

fn failed(placement: &Placement, layers: &std::ops::Range<usize>, why: String) -> RingError {
    RingError::Stage { machine: placement.name.clone(), layers: layers.clone(), why }
}

/// When the way to the first stage has broken for good, every session hears of it.
async fn fail_all(ended: impl Future<Output = String>, sessions: Weak<Sessions>) {
    let why = ended.await;
    let Some(sessions) = sessions.upgrade() else { return };
    let open: Vec<_> = {
        let sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|(session, queue)| (*session, queue.clone())).collect()
    };
    for (session, queue) in open {
        let _ = queue.send(failed_frame(session, 0, &format!("the first machine cannot be reached: {why}"))).await;
    }
}

/// Hands every frame that comes back to its session; frames of closed sessions are nobody's.
async fn dispatch(mut queue: mpsc::Receiver<Frame>, sessions: Arc<Sessions>) {
    while let Some(frame) = queue.recv().await {
        let session = sessions.lock().unwrap_or_else(PoisonError::into_inner).get(&frame.session).cloned();
        if let Some(session) = session {
            let _ = session.send(frame).await;
        }
    }
}
