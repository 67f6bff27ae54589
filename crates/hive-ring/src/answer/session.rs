//! An answer's session on the stages: opened, brought to where the answer is, and opened elsewhere when it is lost.

use std::time::{Duration, Instant};

use hive_model::SessionOptions;
use hive_net::Frame;
use tokio::sync::mpsc;

use hive_protocol::{Continued, SessionSpec, logged};
use hive_stage::prompt_frame;

use super::Answer;
use super::end::{End, unless_over};
use super::looks::Looks;
use crate::events::Event;
use crate::ring::sessions::NotOpen;

/// How long an answer waits for machines to hold its model again.
const RECOVERY_PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks for them.
const RECOVERY_PAUSE: Duration = Duration::from_millis(300);

/// How soon a machine that computes all the answers it may is asked again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

impl Answer {
    /// Opens a session for what is left of the answer on every stage; one that was kept with its beginning serves, and a stage
    /// that has taken over since is given what it lacks of it. A stage that cannot be reached is the ring's trouble, and
    /// catches up when it is mended.
    pub(super) async fn open(&mut self) -> mpsc::Receiver<Frame> {
        if let Some(continued) = self.reuse.then(|| self.ring.take_kept(&self.known())).flatten() {
            let (frames, opened) = self.open_with(Some(continued)).await;
            if let Ok(positions) = opened {
                if positions.iter().any(|position| *position < continued.position)
                    && let Err(why) = self.refill(&positions).await
                {
                    self.ring.complain(self.epoch, why);
                }
                return frames;
            }
            // A stage is giving it away just now, or cannot be reached: the others shall forget it, too.
            self.leave();
            self.ring.close(continued.session).await;
        }
        let (frames, opened) = self.open_with(None).await;
        if let Err(why) = opened {
            self.ring.complain(self.epoch, why);
        }
        frames
    }

    pub(super) async fn open_with(
        &mut self,
        continues: Option<Continued>,
    ) -> (mpsc::Receiver<Frame>, Result<Vec<u32>, String>) {
        loop {
            let (session, frames) = self.ring.new_session();
            self.session = session;
            self.epoch = self.ring.state().borrow().epoch;
            self.cached = continues.map_or(0, |continued| continued.position as usize);
            (self.rows_from, self.tokens_from) = (self.cached as u32, self.next_position());
            // What was looked at was another session's.
            self.looks = Looks::default();
            match self.ring.open(&self.spec(continues)).await {
                Err(NotOpen::Full(why)) if continues.is_none() => {
                    tracing::debug!(answer = self.id, "an answer waits for others: {why}");
                    // It holds nobody else up while it waits.
                    self.ring.close(session).await;
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                opened => return (frames, opened.map_err(NotOpen::why)),
            }
        }
    }

    pub(super) fn spec(&self, continues: Option<Continued>) -> SessionSpec {
        SessionSpec {
            session: self.session,
            answer: self.id,
            options: SessionOptions {
                sampling: self.sampling.clone(),
                prompt: self.prompt.clone(),
                answer: self.tokens.clone(),
            },
            end_tokens: self.end_tokens.clone(),
            last_position: self.last_position,
            continues,
        }
    }

    /// Brings the stages to where the answer is, after one of them has moved.
    pub(super) async fn catch_up(&mut self) -> Result<(), String> {
        self.epoch = self.ring.state().borrow().epoch;
        (self.rows_from, self.tokens_from) = (self.next_position(), self.next_position());
        // A look under way is at machines that may have gone, and what it finds is not these machines' fault.
        self.looks = Looks::default();
        let positions = loop {
            match self.ring.open(&self.spec(None)).await {
                Err(NotOpen::Full(_)) => tokio::time::sleep(FULL_PAUSE).await,
                opened => break opened.map_err(NotOpen::why)?,
            }
        };
        self.refill(&positions).await?;
        self.send_prompt().await
    }

    /// Opens the answer anew on the same stages, none of which keeps anything of it: what they had may come from wrong numbers.
    pub(super) async fn read_anew(&mut self) -> mpsc::Receiver<Frame> {
        self.leave();
        self.traffic = None;
        let (frames, opened) = self.open_with(None).await;
        let sent = match opened {
            Ok(_) => self.send_prompt().await,
            Err(why) => Err(why),
        };
        if let Err(why) = sent {
            self.ring.complain(self.epoch, why);
        }
        frames
    }

    /// Has each stage send on what the next one lacks by its position; what the first one lacks comes from here.
    async fn refill(&mut self, positions: &[u32]) -> Result<(), String> {
        let known = self.prompt.len() + self.tokens.len();
        self.cached = positions[0] as usize;
        self.ring.resend(self.session, positions, known as u32 - 1).await
    }

    /// Prompt and answer so far.
    pub(super) fn known(&self) -> Vec<u32> {
        self.prompt.iter().chain(&self.tokens).copied().collect()
    }

    /// Forgets the session everywhere, without waiting for machines that may be gone.
    pub(super) fn leave(&self) {
        let (ring, session) = (self.ring.clone(), self.session);
        self.ring.host().membership().spawn(async move { ring.close(session).await });
    }

    /// Waits for room, opens a session, and sends what is known.
    pub(super) async fn begin(&mut self) -> mpsc::Receiver<Frame> {
        self.room = self.ring.admit(self.last_position as usize + 1).await;
        let frames = self.open().await;
        if self.first.is_none() {
            self.cached_at_first = self.cached;
        }
        tracing::info!(answer = self.id, session = logged(self.session), kept = self.cached, "a session is open");
        if let Err(why) = self.send_prompt().await {
            self.ring.complain(self.epoch, why);
        }
        frames
    }

    /// Keeps what the stages have computed for the conversation's next turn, or forgets it.
    pub(super) async fn end(&self) {
        if self.reuse && self.complete {
            let mut known = self.known();
            // The last token was chosen, not read.
            known.pop();
            self.ring.keep(self.session, known).await;
        } else {
            self.ring.close(self.session).await;
        }
    }

    /// Recovers, unless nobody listens any more or its time is over.
    pub(super) async fn go_on_elsewhere(
        &mut self,
        events: &mpsc::Sender<Event>,
    ) -> Result<Result<mpsc::Receiver<Frame>, String>, End> {
        self.traffic = None;
        let bound = self.bound.clone();
        unless_over(events, &bound, self.recover()).await
    }

    /// Opens the answer on a model that is whole, as soon as there is one.
    pub(super) async fn recover(&mut self) -> Result<mpsc::Receiver<Frame>, String> {
        let until = Instant::now() + RECOVERY_PATIENCE;
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

    /// The prompt, and what there is of the answer, goes out in chunks, all at once: while a stage computes one, the stage
    /// before it computes the next.
    pub(super) async fn send_prompt(&self) -> Result<(), String> {
        let known = self.known();
        let mut position = self.cached.min(known.len());
        for chunk in known[position..].chunks(self.ring.prompt_chunk()) {
            let is_last = position + chunk.len() == known.len();
            let frame = prompt_frame(self.session, position as u32, chunk, is_last);
            let sent = self.ring.send_prompt(frame).await;
            sent.map_err(|why| format!("the first machine cannot be reached: {why}"))?;
            position += chunk.len();
        }
        Ok(())
    }
}
