//! The sessions of a ring: opening, replaying, retaining and closing them on every stage, and the frames that come
//! back.

use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hive_model::{AdapterId, SessionOptions};
use hive_net::{Frame, Kind, PeerAddr, PeerId};
use tokio::sync::mpsc;

use hive_protocol::{Continued, NONSENSE, Replay, Reply, Request, SessionSpec, StageId, random_id, refusal};
use hive_stage::{AdaptFailure, AdapterFiles, Fault, Pieces, failure_of};

use super::attempts::Attempts;
use super::failover::FaultOrigin;
use super::{Failed, Inner, Ring, Session, lock};

/// Queue of frames for a session. An answer reads them faster than they are computed.
pub(super) const SESSION_QUEUE: usize = 64;
/// Opening and replaying need no computation, so a machine that is present does them at once; on a bad network,
/// connecting takes a few attempts.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a session waits until a machine has room for its adapter, and between two attempts.
const ROOM_TIMEOUT: Duration = Duration::from_secs(30);
const ROOM_PAUSE: Duration = Duration::from_millis(500);

/// Why a session is not open on all stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotOpen {
    /// A machine computes as many answers as its owner allows at a time. It opens another session when one has ended.
    Full(String),
    /// The adapter can no longer be used: its files have changed, or there is no room for it.
    Unfit(String),
    /// A machine refuses it or cannot be reached.
    Failed(String),
}

impl NotOpen {
    /// The reason, for people.
    pub(crate) fn why(self) -> String {
        match self {
            Self::Full(why) | Self::Unfit(why) | Self::Failed(why) => why,
        }
    }
}

impl Ring {
    /// The id of a new session, and the queue of frames that come back for it; `failed` if its answer failed in an earlier
    /// ring.
    pub(crate) fn new_session(
        &self,
        failed: Option<Failed<PeerId>>,
        adapter: Option<AdapterFiles>,
    ) -> (u128, mpsc::Receiver<Frame>) {
        self.inner.opened.fetch_add(1, Ordering::Relaxed);
        let session = random_id();
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        self.sessions().insert(session, Session { frames, attempts: Attempts::new(failed), adapter });
        (session, queue)
    }

    /// The failure of a session since its latest progress.
    pub(crate) fn failure(&self, session: u128) -> Option<Failed<PeerId>> {
        self.sessions().get(&session).and_then(|session| session.attempts.failed())
    }

    /// Has a stage load an adapter, unless it has it.
    pub(crate) async fn give_adapter(&self, index: usize, adapter: &AdapterFiles) -> Result<(), AdaptFailure> {
        let Some(stage) = self.stages().into_iter().nth(index) else { return Ok(()) };
        self.inner.host.give_adapter(&stage.placement.addr, self.inner.stage_id(index), adapter).await
    }

    /// The same, but waits for room for a while.
    async fn give_adapter_in_time(&self, index: usize, adapter: &AdapterFiles) -> Result<(), NotOpen> {
        let until = Instant::now() + ROOM_TIMEOUT;
        loop {
            match self.give_adapter(index, adapter).await {
                Ok(()) => return Ok(()),
                Err(AdaptFailure::Full(_)) if Instant::now() < until => tokio::time::sleep(ROOM_PAUSE).await,
                Err(AdaptFailure::Unfit(why) | AdaptFailure::Full(why)) => return Err(NotOpen::Unfit(why)),
                Err(AdaptFailure::Failed(why)) => return Err(NotOpen::Failed(why)),
            }
        }
    }

    /// Has a machine that takes a stage over load the adapters of all sessions, which may come with their caches.
    pub(super) async fn give_adapters(&self, index: usize, to: &PeerAddr) {
        let mut adapters: HashMap<AdapterId, AdapterFiles> = HashMap::new();
        adapters.extend(self.sessions().values().filter_map(|session| session.adapter.clone()).map(|it| (it.id(), it)));
        adapters.extend(self.prefix_cache().adapters().map(|it| (it.id(), it.clone())));
        for adapter in adapters.into_values() {
            let given = self.inner.host.give_adapter(to, self.inner.stage_id(index), &adapter).await;
            if let Err(why) = given {
                tracing::info!("sessions with an adapter are computed again: {why}");
            }
        }
    }

    /// Opens the session on every stage where it is not open yet, with its adapter; returns the position that each expects
    /// next.
    pub(crate) async fn open(&self, spec: &SessionSpec, adapter: Option<&AdapterFiles>) -> Result<Vec<u32>, NotOpen> {
        let stages = self.stages();
        if let Some(adapter) = adapter {
            let given = (0..stages.len()).map(|index| self.give_adapter_in_time(index, adapter));
            futures_util::future::try_join_all(given).await?;
        }
        let mut positions = Vec::with_capacity(stages.len());
        for (index, stage) in stages.iter().enumerate() {
            let mut spec = spec.clone();
            if index + 1 != stages.len() {
                // Only the last stage samples; the others do not need the earlier tokens.
                spec.options = SessionOptions { adapter: spec.options.adapter, ..SessionOptions::default() };
            }
            let request = Request::Open(self.inner.stage_id(index), spec);
            let opened = self.inner.host.ask_any(&stage.placement.addr, request, |_| ());
            let opened = tokio::time::timeout(OPEN_TIMEOUT, opened).await;
            let name = &stage.placement.name;
            let why = match opened.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
                Ok(Reply::At(position)) => {
                    positions.push(position);
                    continue;
                }
                Ok(Reply::Full(why)) => return Err(NotOpen::Full(format!("{name}: {why}"))),
                Ok(answer) => refusal(answer).err().unwrap_or_else(|| NONSENSE.to_owned()),
                Err(why) => why,
            };
            return Err(NotOpen::Failed(format!("{name}: {why}")));
        }
        Ok(positions)
    }

    /// Has every stage replay the rows that the next one is missing, by the position that it expects.
    pub(crate) async fn replay(&self, session: u128, positions: &[u32], sample_from: u32) -> Result<(), String> {
        for (index, stage) in self.stages().iter().enumerate() {
            let from = positions[(index + 1) % positions.len()];
            let request = Request::Replay(self.inner.stage_id(index), Replay { session, from, sample_from });
            let sent = self.inner.host.ask(&stage.placement.addr, request, |_| ());
            let sent = tokio::time::timeout(OPEN_TIMEOUT, sent).await;
            let sent = sent.unwrap_or_else(|_| Err("it does not answer".to_owned()));
            sent.map_err(|why| format!("{}: {why}", stage.placement.name))?;
        }
        Ok(())
    }

    /// Sends a chunk of the prompt to the first stage.
    pub(crate) async fn send_prompt(&self, frame: Frame) -> Result<(), String> {
        self.inner.prompts.lock().await.send(frame).await
    }

    /// Retains a session that has ended, with the tokens that are in the stages' KV caches and the pieces in which they
    /// were computed, for the next turn of the conversation. The least recently used sessions make room.
    pub(crate) async fn retain(&self, session: u128, tokens: Vec<u32>, pieces: Pieces, adapter: Option<AdapterFiles>) {
        self.sessions().remove(&session);
        let dropped = self.prefix_cache().retain(session, tokens, pieces, adapter);
        self.ask_holders(|id| Request::Retain(id, session)).await;
        for session in dropped {
            self.close(session).await;
        }
    }

    /// Takes the session with the longest common prefix out of the prefix cache; returns it with the length of the
    /// prefix, and the pieces in which it was computed. Only what the same adapter computed counts.
    pub(crate) fn reuse_prefix(&self, tokens: &[u32], adapter: Option<AdapterId>) -> Option<(Continued, Pieces)> {
        self.prefix_cache().reuse(tokens, adapter)
    }

    /// Whether the next turn of a conversation is likely to reuse a retained session.
    pub fn is_prefix_warm(&self) -> bool {
        self.prefix_cache().is_warm(Instant::now())
    }

    /// Closes the session on every stage.
    pub(crate) async fn close(&self, session: u128) {
        self.sessions().remove(&session);
        self.ask_holders(|id| Request::Close(id, session)).await;
    }

    /// Asks the holder of every stage, and the machine that takes a stage over meanwhile, as the session may have been
    /// handed over before the request came. A stage that cannot be reached has nothing left to retain or to close.
    async fn ask_holders(&self, request: impl Fn(StageId) -> Request) {
        for index in 0..self.stages().len() {
            let mut asked = None;
            loop {
                let holder = self.stages()[index].placement.addr.clone();
                if asked == Some(holder.id()) {
                    break;
                }
                asked = Some(holder.id());
                let _ = self.inner.host.ask(&holder, request(self.inner.stage_id(index)), |_| ()).await;
            }
        }
    }
}

/// Delivers every frame that comes back to its session; frames of closed sessions are dropped. A failure that is not
/// the session's own is reported to the failover.
pub(super) async fn dispatch(mut queue: mpsc::Receiver<Frame>, ring: Weak<Inner>) {
    while let Some(frame) = queue.recv().await {
        let Some(ring) = ring.upgrade() else { return };
        if frame.kind == Kind::Failed {
            let failure = failure_of(&frame);
            if failure.fault != Fault::Request {
                let stage = failure.fault.stage(ring.stages().len());
                if !stage.is_some_and(|stage| ring.fails_again(&frame, stage)) {
                    let origin = stage.map_or(FaultOrigin::Link, FaultOrigin::Output);
                    ring.report_fault(frame.epoch, origin, failure.why);
                    continue;
                }
            }
        }
        let frames = lock(&ring.sessions).get_mut(&frame.session).map(|session| {
            if frame.kind != Kind::Failed {
                session.attempts.reach(frame.position);
            }
            session.frames.clone()
        });
        if let Some(frames) = frames {
            if frame.kind != Kind::Failed {
                *lock(&ring.heard) = Instant::now();
            }
            let _ = frames.send(frame).await;
        }
    }
}

impl Inner {
    /// Whether a session, whose failure this stage is blamed for, failed before without progress since. Then no machine
    /// is to blame, including the one that was blamed before.
    fn fails_again(&self, frame: &Frame, stage: usize) -> bool {
        let Some(blamed) = self.stages().get(stage).map(|stage| stage.placement.addr.id()) else { return false };
        let mut sessions = lock(&self.sessions);
        let Some(session) = sessions.get_mut(&frame.session) else { return false };
        let Some(earlier) = session.attempts.fail(frame.epoch, blamed, Instant::now()) else { return false };
        self.host.membership().trust().take_back(earlier.blamed, earlier.at);
        true
    }
}
