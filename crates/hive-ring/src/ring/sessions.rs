//! The sessions of a ring: opened, sent to, kept and closed on every stage, and what comes back for them.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hive_net::{Frame, Kind};
use tokio::sync::mpsc;

use hive_protocol::{Answer, Continued, NONSENSE, Question, Resend, SessionSpec, StageId, random_id, refusal};
use hive_stage::{Fault, failure_of};

use super::state::{Cause, Trouble};
use super::{Inner, Ring, lock};

/// Frames on their way to a session. An answer is read faster than it is computed.
pub(super) const SESSION_QUEUE: usize = 64;
/// A session is opened, and what is missing sent on, without any computing; a machine that is here does it at once.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);

/// Why a session is not open on all stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotOpen {
    /// A machine computes as many answers at a time as its owner lets it: it opens one when another has ended.
    Full(String),
    /// A machine refuses it or cannot be reached.
    Failed(String),
}

impl NotOpen {
    /// In words.
    pub(crate) fn why(self) -> String {
        match self {
            Self::Full(why) | Self::Failed(why) => why,
        }
    }
}

impl Ring {
    /// The id of a new session, and the queue of what comes back for it.
    pub(crate) fn new_session(&self) -> (u128, mpsc::Receiver<Frame>) {
        self.inner.opened.fetch_add(1, Ordering::Relaxed);
        let session = random_id();
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        self.sessions().insert(session, frames);
        (session, queue)
    }

    /// Opens the session on every stage, or finds it open; gives the position that comes next on each.
    pub(crate) async fn open(&self, spec: &SessionSpec) -> Result<Vec<u32>, NotOpen> {
        let stages = self.stages();
        let mut positions = Vec::with_capacity(stages.len());
        for (index, stage) in stages.iter().enumerate() {
            let mut spec = spec.clone();
            if index + 1 != stages.len() {
                // Only the last stage chooses tokens; the others have no use for what was said.
                spec.options = hive_model::SessionOptions::default();
            }
            let question = Question::Open(self.inner.stage_id(index), spec);
            let opened = self.inner.host.ask_any(&stage.placement.addr, question, |_| ());
            let opened = tokio::time::timeout(OPEN_PATIENCE, opened).await;
            let name = &stage.placement.name;
            let why = match opened.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
                Ok(Answer::At(position)) => {
                    positions.push(position);
                    continue;
                }
                Ok(Answer::Full(why)) => return Err(NotOpen::Full(format!("{name}: {why}"))),
                Ok(answer) => refusal(answer).err().unwrap_or_else(|| NONSENSE.to_owned()),
                Err(why) => why,
            };
            return Err(NotOpen::Failed(format!("{name}: {why}")));
        }
        Ok(positions)
    }

    /// Has every stage send on what the next one, by its position, does not have.
    pub(crate) async fn resend(&self, session: u128, positions: &[u32], sample_from: u32) -> Result<(), String> {
        for (index, stage) in self.stages().iter().enumerate() {
            let from = positions[(index + 1) % positions.len()];
            let question = Question::Resend(self.inner.stage_id(index), Resend { session, from, sample_from });
            let sent = self.inner.host.ask(&stage.placement.addr, question, |_| ());
            let sent = tokio::time::timeout(OPEN_PATIENCE, sent).await;
            let sent = sent.unwrap_or_else(|_| Err("it does not answer".to_owned()));
            sent.map_err(|why| format!("{}: {why}", stage.placement.name))?;
        }
        Ok(())
    }

    /// Sends a part of the prompt to the first stage.
    pub(crate) async fn send_prompt(&self, frame: Frame) -> Result<(), String> {
        self.inner.prompts.lock().await.send(frame).await
    }

    /// Keeps a session that has ended, with the tokens that are in the stages' caches: the conversation may go on. The
    /// ones unused for longest make room.
    pub(crate) async fn keep(&self, session: u128, tokens: Vec<u32>) {
        self.sessions().remove(&session);
        let forgotten = self.kept().add(session, tokens);
        self.ask_holders(|id| Question::Keep(id, session)).await;
        for session in forgotten {
            self.close(session).await;
        }
    }

    /// The kept session that has the longest beginning of a conversation, and how long that is. It is not kept any more.
    pub(crate) fn take_kept(&self, tokens: &[u32]) -> Option<Continued> {
        self.kept().take(tokens)
    }

    /// Whether somebody is likely to go on with a conversation that the stages have computed.
    pub fn may_be_gone_on_with(&self) -> bool {
        self.kept().is_warm(Instant::now())
    }

    /// Forgets the session everywhere.
    pub(crate) async fn close(&self, session: u128) {
        self.sessions().remove(&session);
        self.ask_holders(|id| Question::Close(id, session)).await;
    }

    /// Asks something of every stage, and of the machine that takes one over meanwhile: what the question is about may have
    /// left the former one before it came. A stage that cannot be reached has nothing left to keep or to forget.
    async fn ask_holders(&self, question: impl Fn(StageId) -> Question) {
        for index in 0..self.stages().len() {
            let mut asked = None;
            loop {
                let holder = self.stages()[index].placement.addr.clone();
                if asked == Some(holder.id()) {
                    break;
                }
                asked = Some(holder.id());
                let _ = self.inner.host.ask(&holder, question(self.inner.stage_id(index)), |_| ()).await;
            }
        }
    }
}

/// Hands every frame that comes back to its session; frames of closed sessions are nobody's. A failure that is not the
/// session's own is the ring's trouble.
pub(super) async fn dispatch(mut queue: mpsc::Receiver<Frame>, ring: Weak<Inner>) {
    while let Some(frame) = queue.recv().await {
        let Some(ring) = ring.upgrade() else { return };
        if frame.kind == Kind::Failed {
            let failure = failure_of(&frame);
            if failure.fault != Fault::Request {
                let trouble = Trouble { epoch: frame.epoch, cause: Cause::Fault(failure.fault), why: failure.why };
                let _ = ring.troubles.try_send(trouble);
                continue;
            }
        }
        let session = lock(&ring.sessions).get(&frame.session).cloned();
        if let Some(session) = session {
            if frame.kind != Kind::Failed {
                *lock(&ring.heard) = Instant::now();
            }
            let _ = session.send(frame).await;
        }
    }
}
