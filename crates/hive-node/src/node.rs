//! The node: this machine in the swarm, as a handle.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_net::stage::{Inlet, Outlet};
use hive_net::{BindError, Channel, Endpoint, Frame, Incoming, PeerAddr, Protocol};
use tokio::sync::mpsc;

use crate::control::{Answer, Hello, Neighbours, Question, RingId, Role};
use crate::stage::{Destination, Routes, Stage};

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not this machine's.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// This machine in the swarm. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    endpoint: Endpoint,
    stages: Mutex<HashMap<RingId, Stage>>,
    /// Queues of the rings that this node coordinates.
    coordinated: Mutex<HashMap<RingId, mpsc::Sender<Frame>>>,
}

impl Node {
    /// Starts a node that listens on `bind`.
    pub async fn start(name: String, bind: SocketAddr) -> Result<Self, StartError> {
        let (endpoint, incoming) = Endpoint::bind(bind).await?;
        let inner = Inner { name, endpoint, stages: Mutex::default(), coordinated: Mutex::default() };
        let node = Self { inner: Arc::new(inner) };
        tokio::spawn(serve(node.clone(), incoming));
        Ok(node)
    }

    /// The name people see.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where other nodes reach this one.
    pub fn addr(&self) -> PeerAddr {
        self.inner.endpoint.addr()
    }

    /// Lets another node ask this one for work, and be asked.
    pub fn allow(&self, peer: &PeerAddr) {
        self.inner.endpoint.allow(peer.id());
    }

    /// Leaves the swarm: stages end, connections close.
    pub async fn stop(&self) {
        lock(&self.inner.stages).clear();
        lock(&self.inner.coordinated).clear();
        self.inner.endpoint.close().await;
    }

    /// Asks a node, which may be this one, and gives its last answer; `progress` hears the ones before.
    pub(crate) async fn ask(
        &self,
        whom: &PeerAddr,
        question: Question,
        mut progress: impl FnMut(usize),
    ) -> Result<Answer, String> {
        if whom.id() == self.inner.endpoint.id() {
            return refusal(self.answer(question, &mut progress).await);
        }
        let mut channel = self.inner.endpoint.open(whom, Protocol::Control).await.map_err(|error| error.to_string())?;
        channel.write_message(&question).await.map_err(|error| error.to_string())?;
        loop {
            match channel.read_message().await {
                Ok(Some(Answer::Progress(layers))) => progress(layers),
                Ok(Some(answer)) => return refusal(answer),
                Ok(None) => return Err("it broke off".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Where frames for a ring's stage go, at a node which may be this one.
    pub(crate) async fn route(&self, whom: &PeerAddr, ring: RingId, to: Role) -> Result<Destination, String> {
        if whom.id() == self.inner.endpoint.id() {
            let queue = match to {
                Role::Stage => lock(&self.inner.stages).get(&ring).map(Stage::frames),
                Role::Coordinator => lock(&self.inner.coordinated).get(&ring).cloned(),
            };
            return queue.map(Destination::Local).ok_or_else(|| "it holds no such stage".to_owned());
        }
        let mut channel = self.inner.endpoint.open(whom, Protocol::Stage).await.map_err(|error| error.to_string())?;
        channel.write_message(&Hello { ring, to }).await.map_err(|error| error.to_string())?;
        Ok(Destination::Remote(Outlet::new(channel)))
    }

    /// Takes the frames that come back to this node as the coordinator of a ring.
    pub(crate) fn coordinate(&self, ring: RingId, frames: mpsc::Sender<Frame>) {
        lock(&self.inner.coordinated).insert(ring, frames);
    }

    /// Stops taking them.
    pub(crate) fn retire(&self, ring: RingId) {
        lock(&self.inner.coordinated).remove(&ring);
    }

    fn stage(&self, ring: RingId) -> Result<Stage, String> {
        lock(&self.inner.stages).get(&ring).cloned().ok_or_else(|| "it holds no such stage".to_owned())
    }

    async fn answer(&self, question: Question, progress: &mut impl FnMut(usize)) -> Answer {
        let result = match question {
            Question::Load(ring, spec) => Stage::load(&spec, progress).await.map(|(stage, device)| {
                lock(&self.inner.stages).insert(ring, stage);
                Answer::Loaded(device)
            }),
            Question::Join(ring, neighbours) => self.join(ring, neighbours).await.map(|()| Answer::Done),
            Question::Open(ring, spec) => match self.stage(ring) {
                Ok(stage) => stage.open(spec).await.map(|()| Answer::Done),
                Err(why) => Err(why),
            },
            Question::Close(ring, session) => match self.stage(ring) {
                Ok(stage) => {
                    stage.close(session).await;
                    Ok(Answer::Done)
                }
                Err(why) => Err(why),
            },
            Question::Report(ring) => match self.stage(ring) {
                Ok(stage) => stage.report().await.map(Answer::Report),
                Err(why) => Err(why),
            },
            Question::Unload(ring) => {
                lock(&self.inner.stages).remove(&ring);
                Ok(Answer::Done)
            }
        };
        result.unwrap_or_else(Answer::Refused)
    }

    async fn join(&self, ring: RingId, neighbours: Neighbours) -> Result<(), String> {
        let stage = self.stage(ring)?;
        let to_stage = async |whom: Option<PeerAddr>| match whom {
            Some(whom) => self.route(&whom, ring, Role::Stage).await.map(Some),
            None => Ok(None),
        };
        let next = to_stage(neighbours.next).await?;
        let first = to_stage(neighbours.first).await?;
        let coordinator = self.route(&neighbours.coordinator, ring, Role::Coordinator).await?;
        stage.join(Routes { next, first, coordinator }).await;
        Ok(())
    }
}

fn refusal(answer: Answer) -> Result<Answer, String> {
    match answer {
        Answer::Refused(why) => Err(why),
        answer => Ok(answer),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single map operation, so a poisoned map is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves what peers open, until the endpoint closes.
async fn serve(node: Node, mut incoming: mpsc::Receiver<Incoming>) {
    while let Some(Incoming { protocol, channel, .. }) = incoming.recv().await {
        let node = node.clone();
        tokio::spawn(async move {
            match protocol {
                Protocol::Control => serve_control(&node, channel).await,
                Protocol::Stage => serve_stage(&node, channel).await,
            }
        });
    }
}

async fn serve_control(node: &Node, mut channel: Channel) {
    let question = match channel.read_message().await {
        Ok(Some(question)) => question,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!("a question could not be read: {error}");
            return;
        }
    };
    let (progress, mut heard) = mpsc::unbounded_channel();
    let answering = async {
        let answer = node
            .answer(question, &mut |layers| {
                // The asker may have gone; the work goes on.
                let _ = progress.send(layers);
            })
            .await;
        drop(progress);
        answer
    };
    tokio::pin!(answering);
    let answer = loop {
        tokio::select! {
            Some(layers) = heard.recv() => drop(channel.write_message(&Answer::Progress(layers)).await),
            answer = &mut answering => break answer,
        }
    };
    if channel.write_message(&answer).await.is_ok() {
        let _ = channel.send.finish();
    }
}

async fn serve_stage(node: &Node, mut channel: Channel) {
    let Ok(Some(Hello { ring, to })) = channel.read_message().await else { return };
    let queue = match to {
        Role::Stage => node.stage(ring).ok().map(|stage| stage.frames()),
        Role::Coordinator => lock(&node.inner.coordinated).get(&ring).cloned(),
    };
    let Some(queue) = queue else { return };
    let mut inlet = Inlet::new(channel);
    loop {
        let frame = match inlet.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!("a stage stream ended: {error}");
                return;
            }
        };
        if to == Role::Coordinator {
            // Showing a token can wait until the next one is being computed.
            tokio::task::yield_now().await;
        }
        let receipt = frame.receipt();
        if queue.send(frame).await.is_err() {
            return;
        }
        // The stage takes the frame first.
        tokio::task::yield_now().await;
        if let Err(error) = inlet.acknowledge(receipt).await {
            tracing::debug!("a stage stream ended: {error}");
            return;
        }
    }
}
