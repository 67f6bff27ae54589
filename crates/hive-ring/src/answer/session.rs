//! The session of an answer: opened on every stage, replayed after a failover, and opened elsewhere if the ring is
//! abandoned.

use std::time::{Duration, Instant};

use hive_model::{AdapterId, SessionOptions};
use hive_net::Frame;
use tokio::sync::mpsc;

use hive_protocol::{Continued, SessionSpec, logged};
use hive_stage::{AdapterFiles, prompt_frame};

use super::Answer;
use super::end::{End, unless_over};
use super::spot_checks::SpotChecks;
use crate::events::Event;
use crate::ring::sessions::NotOpen;

/// How long an answer waits for its model to be loaded again. A machine that restarts is back within a minute; after
/// that, an error is more useful than a longer wait.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two attempts to load it.
const RECOVERY_PAUSE: Duration = Duration::from_millis(300);

/// How soon a machine that computes as many answers as it may is asked again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

impl Answer {
    /// Opens a session for the rest of the answer on every stage. A retained session with a common prefix is reused,
    /// and a stage that has been taken over since gets a replay of it. A stage that cannot be reached is reported, and
    /// gets its replay after the failover.
    pub(super) async fn open(&mut self) -> mpsc::Receiver<Frame> {
        if let Some((continued, pieces)) =
            self.reuse.then(|| self.ring.reuse_prefix(&self.known(), self.adapter_id())).flatten()
        {
            self.pieces.continue_from(pieces, continued.position);
            let (frames, opened) = self.open_with(Some(continued)).await;
            if let Ok(positions) = opened {
                if positions.iter().any(|position| *position < continued.position)
                    && let Err(why) = self.replay_missing(&positions).await
                {
                    self.ring.report_fault(self.epoch, why);
                }
                return frames;
            }
            // A stage is handing it over, or cannot be reached: close it on the others, too.
            self.leave();
            self.ring.close(continued.session).await;
        }
        let (frames, opened) = self.open_with(None).await;
        if let Err(why) = opened {
            self.ring.report_fault(self.epoch, why);
        }
        frames
    }

    pub(super) async fn open_with(
        &mut self,
        continues: Option<Continued>,
    ) -> (mpsc::Receiver<Frame>, Result<Vec<u32>, String>) {
        loop {
            let (session, frames) = self.ring.new_session(self.failed, self.adapter.clone());
            self.session = session;
            self.epoch = self.ring.state().borrow().epoch;
            self.cached = continues.map_or(0, |continued| continued.position as usize);
            (self.rows_from, self.tokens_from) = (self.cached as u32, self.next_position());
            // Earlier spot checks were of another session.
            self.spot_checks = SpotChecks::default();
            match self.ring.open(&self.spec(continues), self.adapter.as_ref()).await {
                Err(NotOpen::Full(why)) if continues.is_none() => {
                    tracing::debug!(answer = self.id, "an answer waits for others: {why}");
                    // It holds up no other answer while it waits.
                    self.ring.close(session).await;
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                opened => return (frames, opened.map_err(|why| self.not_open(why))),
            }
        }
    }

    /// The reason, for people. One that no machine can mend ends the answer.
    fn not_open(&mut self, why: NotOpen) -> String {
        if let NotOpen::Unfit(why) = &why {
            self.unfit = Some(why.clone());
        }
        why.why()
    }

    fn adapter_id(&self) -> Option<AdapterId> {
        self.adapter.as_ref().map(AdapterFiles::id)
    }

    pub(super) fn spec(&self, continues: Option<Continued>) -> SessionSpec {
        SessionSpec {
            session: self.session,
            answer: self.id,
            options: SessionOptions {
                sampling: self.sampling.clone(),
                prompt: self.prompt.clone(),
                answer: self.tokens.clone(),
                adapter: self.adapter_id(),
            },
            end_tokens: self.end_tokens.clone(),
            last_position: self.last_position,
            continues,
        }
    }

    /// Replays what stages are missing after a failover.
    pub(super) async fn replay(&mut self) -> Result<(), String> {
        self.epoch = self.ring.state().borrow().epoch;
        (self.rows_from, self.tokens_from) = (self.next_position(), self.next_position());
        // A spot check under way concerns machines that may have left; its result must not be held against these.
        self.spot_checks = SpotChecks::default();
        let positions = loop {
            match self.ring.open(&self.spec(None), self.adapter.as_ref()).await {
                Err(NotOpen::Full(_)) => tokio::time::sleep(FULL_PAUSE).await,
                opened => break opened.map_err(|why| self.not_open(why))?,
            }
        };
        self.replay_missing(&positions).await?;
        self.send_prompt().await
    }

    /// Starts over in a new session on the same stages: their caches may be based on wrong numbers.
    pub(super) async fn start_over(&mut self) -> mpsc::Receiver<Frame> {
        self.leave();
        self.traffic = None;
        let (frames, opened) = self.open_with(None).await;
        let sent = match opened {
            Ok(_) => self.send_prompt().await,
            Err(why) => Err(why),
        };
        if let Err(why) = sent {
            self.ring.report_fault(self.epoch, why);
        }
        frames
    }

    /// Has each stage replay the rows that the next one is missing. The first one's are sent from here.
    async fn replay_missing(&mut self, positions: &[u32]) -> Result<(), String> {
        let known = self.prompt.len() + self.tokens.len();
        self.cached = positions[0] as usize;
        self.ring.replay(self.session, positions, known as u32 - 1).await
    }

    /// Prompt and answer so far.
    pub(super) fn known(&self) -> Vec<u32> {
        self.prompt.iter().chain(&self.tokens).copied().collect()
    }

    /// Closes the session everywhere, without waiting for machines that may have left.
    pub(super) fn leave(&self) {
        let (ring, session) = (self.ring.clone(), self.session);
        self.ring.host().membership().spawn(async move { ring.close(session).await });
    }

    /// Waits for room, opens a session, and sends the known tokens.
    pub(super) async fn begin(&mut self) -> mpsc::Receiver<Frame> {
        self.room = self.ring.admit(self.last_position as usize + 1).await;
        let frames = self.open().await;
        if self.first.is_none() {
            self.cached_at_first = self.cached;
        }
        tracing::info!(answer = self.id, session = logged(self.session), cached = self.cached, "a session is open");
        if let Err(why) = self.send_prompt().await {
            self.ring.report_fault(self.epoch, why);
        }
        frames
    }

    /// Retains the session for the conversation's next turn, or closes it.
    pub(super) async fn end(&self) {
        if self.reuse && self.complete {
            let mut known = self.known();
            // The last token was sampled, and never an input.
            known.pop();
            self.ring.retain(self.session, known, self.pieces.clone(), self.adapter.clone()).await;
        } else {
            self.ring.close(self.session).await;
        }
    }

    /// Resumes on another ring, unless the answer is cancelled, its deadline passes or its node stops meanwhile.
    pub(super) async fn resume_elsewhere(
        &mut self,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<mpsc::Receiver<Frame>, String>, End> {
        self.traffic = None;
        let bound = self.bound.clone();
        unless_over(events, &bound, self.recover()).await
    }

    /// Opens the answer on the ring that its source provides, as soon as there is one.
    pub(super) async fn recover(&mut self) -> Result<mpsc::Receiver<Frame>, String> {
        let until = Instant::now() + RECOVERY_TIMEOUT;
        loop {
            let Some(source) = &self.source else { return Err("nobody can load the model again".to_owned()) };
            let cause = match source.ring().await {
                Ok(ring) => {
                    self.ring = ring;
                    return Ok(self.begin().await);
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                return Err(cause);
            }
            tokio::time::sleep(RECOVERY_PAUSE).await;
        }
    }

    /// Sends the prompt and the answer so far, in the pieces in which they were computed before, and otherwise in
    /// chunks. Nothing waits: while a stage computes one, the stage before it computes the next.
    pub(super) async fn send_prompt(&mut self) -> Result<(), String> {
        let (known, end) = (self.known(), self.next_position());
        let from = end.min(self.cached as u32);
        let pieces: Vec<_> = self.pieces.cut(from..end, self.ring.prompt_chunk() as u32).collect();
        for rows in pieces {
            self.pieces.began(rows.start);
            let tokens = &known[rows.start as usize..rows.end as usize];
            let frame = prompt_frame(self.session, rows.start, tokens, rows.end == end);
            let sent = self.ring.send_prompt(frame).await;
            sent.map_err(|why| format!("the first machine cannot be reached: {why}"))?;
        }
        Ok(())
    }
}
