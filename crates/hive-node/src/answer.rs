//! An answer on its way: frames in, events out, and going on when a machine leaves.
//!
//! When a stage is lost, another machine takes it over (`ring/mend.rs`). The coordinator then asks every stage which position
//! comes next there, and has the stage before it send on what is missing; to the first stage it sends the tokens itself. So
//! only what the new stage does not have is computed again, at the speed of a prompt, and the answer goes on from the very
//! next token. When no machine can take the stage over, the model is loaded anew wherever it fits, and prompt and answer go
//! through it again. Sampling is keyed by position and the kernels give the same bits in any chunk, so the words are
//! those of an undisturbed run.

use std::time::{Duration, Instant};

use hive_model::detokenizer::Detokenizer;
use hive_model::sampling::Sampled;
use hive_model::stop::{Stop, StopStrings};
use hive_model::tokenizer::TokenizerError;
use hive_model::{Sampling, SessionOptions};
use hive_net::{Frame, Kind};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::control::{Continued, SessionSpec};
use crate::generate::{Event, FinishReason, Request, Summary};
use crate::node::Node;
use crate::ring::{Health, Ring};
use crate::serving::{ServeError, Wish};
use crate::stage::{failure_of, prompt_frame, sampled_of};

/// Longest silence from the ring before a stage counts as lost. A stage computes one chunk in seconds; one that has not
/// answered for this long will not.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long an answer waits for machines to hold its model again.
const RECOVERY_PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks for them.
const RECOVERY_PAUSE: Duration = Duration::from_millis(300);
/// Losses in a row without one token between them: then it is not the machines, but what they are asked.
const FRUITLESS: usize = 3;

/// What is said of an answer that was not done in the time it had.
const TOO_LATE: &str = "the answer was not done in the time it was given";

/// Events on their way to whoever asked.
const EVENT_QUEUE: usize = 256;

/// Where an answer gets its model from again, when the one it had could not be mended.
pub(crate) struct Source {
    node: Node,
    wish: Wish,
}

impl Source {
    pub(crate) fn new(node: Node, wish: Wish) -> Self {
        Self { node, wish }
    }

    /// The model on the machines that are there: as many as were wished for, else as many as it takes.
    async fn ring(&self) -> Result<Ring, ServeError> {
        match self.node.model(&self.wish).await {
            Err(ServeError::TooFew { .. }) => self.node.model(&Wish { stages: None, ..self.wish.clone() }).await,
            result => result,
        }
    }
}

/// An answer on its way.
pub(crate) struct Answer {
    id: u64,
    /// Its part of the stages' caches.
    room: Option<OwnedSemaphorePermit>,
    deadline: Option<Instant>,
    source: Option<Source>,
    ring: Ring,
    /// The state of the ring that the session has been brought to.
    epoch: u32,
    session: u64,
    prompt: Vec<u32>,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    last_position: u32,
    reuse: bool,
    /// How much of what is known the stages have in their caches already.
    cached: usize,
    /// The first ring's traffic when the answer began there, if it began alone: then its speed is the ring's.
    traffic: Option<(u64, usize)>,
    /// Whether the ring has come to its end by itself: then the stages' caches are the conversation, and can be kept.
    complete: bool,
    stops: StopStrings,
    detokenizer: Detokenizer,
    tokens: Vec<u32>,
    said_tokens: usize,
    started: Instant,
    first: Option<Instant>,
    latest: Instant,
}

/// What a frame led to.
enum Step {
    More(Event),
    End(Event),
}

/// How one life of an answer ended.
enum End {
    /// With its last event.
    Over(Event),
    /// Nobody listens any more.
    Cancelled,
    /// Its time is over.
    TooLate,
    /// A stage is on another machine now, which has to catch up.
    Moved,
    /// The model has a better place, where it goes on.
    Superseded,
    /// The stages cannot go on, for this reason.
    Lost(String),
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Answer {
    /// Lets an answer run, as soon as the stages have room for it; its events arrive on the receiver.
    pub(crate) fn start(
        id: u64,
        ring: Ring,
        source: Option<Source>,
        prompt: Vec<u32>,
        request: &Request,
        max_tokens: usize,
        started: Instant,
    ) -> Result<mpsc::Receiver<Event>, TokenizerError> {
        let config = ring.files().config();
        let mut answer = Self {
            id,
            room: None,
            deadline: request.deadline.map(|time| started + time),
            source,
            epoch: 0,
            session: 0,
            sampling: request.sampling.clone(),
            end_tokens: if request.ignore_end { Vec::new() } else { config.end_tokens.clone() },
            last_position: (prompt.len() + request.said.len() + max_tokens - 1) as u32,
            reuse: request.reuse,
            cached: 0,
            traffic: None,
            complete: false,
            stops: StopStrings::new(request.stop.clone()),
            prompt,
            detokenizer: Detokenizer::new(),
            tokens: request.said.clone(),
            said_tokens: request.said.len(),
            started,
            first: None,
            latest: started,
            ring,
        };
        // Its text was shown before; only what was held back is still to come.
        for token in &request.said {
            let piece = answer.detokenizer.push(answer.ring.tokenizer(), *token)?;
            answer.watch(&piece);
        }
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(answer.run(events));
        Ok(receiver)
    }

    /// Opens a session for what is left of the answer on every stage; one that was kept with its beginning serves. A stage
    /// that cannot be reached is the ring's trouble, and catches up when it is mended.
    async fn open(&mut self) -> mpsc::Receiver<Frame> {
        if let Some(continued) = self.reuse.then(|| self.ring.take_kept(&self.known())).flatten() {
            let (frames, opened) = self.open_with(Some(continued)).await;
            if opened.is_ok() {
                return frames;
            }
            // A stage has forgotten it: the others shall, too.
            self.leave();
            self.ring.close(continued.session).await;
        }
        let (frames, opened) = self.open_with(None).await;
        if let Err(why) = opened {
            self.ring.complain(self.epoch, why);
        }
        frames
    }

    async fn open_with(&mut self, continues: Option<Continued>) -> (mpsc::Receiver<Frame>, Result<(), String>) {
        let (session, frames) = self.ring.new_session();
        self.session = session;
        self.epoch = self.ring.state().borrow().epoch;
        self.cached = continues.map_or(0, |continued| continued.position as usize);
        let opened = self.ring.open(&self.spec(continues)).await;
        (frames, opened.map(|_| ()))
    }

    fn spec(&self, continues: Option<Continued>) -> SessionSpec {
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
    async fn catch_up(&mut self) -> Result<(), String> {
        self.epoch = self.ring.state().borrow().epoch;
        let positions = self.ring.open(&self.spec(None)).await?;
        let known = self.prompt.len() + self.tokens.len();
        self.ring.resend(self.session, &positions, known as u32 - 1).await?;
        self.cached = positions[0] as usize;
        self.send_prompt().await
    }

    /// Prompt and answer so far.
    fn known(&self) -> Vec<u32> {
        self.prompt.iter().chain(&self.tokens).copied().collect()
    }

    /// Forgets the session everywhere, without waiting for machines that may be gone.
    fn leave(&self) {
        let (ring, session) = (self.ring.clone(), self.session);
        tokio::spawn(async move { ring.close(session).await });
    }

    async fn run(mut self, events: mpsc::Sender<Event>) {
        tracing::info!(answer = self.id, prompt_tokens = self.prompt.len(), "an answer was asked for");
        let deadline = self.deadline;
        let begun = tokio::select! {
            frames = self.begin() => Some(frames),
            () = events.closed() => None,
            () = until(deadline) => None,
        };
        let Some(mut frames) = begun else {
            // Some of the stages may have opened it by now. Whoever waits for it too long hears so.
            self.leave();
            let _ = events.send(Event::Failed(TOO_LATE.to_owned())).await;
            return;
        };
        // Only here: one that goes on elsewhere has been silent between, and says nothing of anybody's speed.
        self.traffic = Some(self.ring.traffic()).filter(|(_, open)| *open == 1 && self.epoch == 0);
        let mut fruitless = 0;
        let last = loop {
            let had = self.tokens.len();
            let end = self.follow(&mut frames, &events).await;
            fruitless = if self.tokens.len() > had { 0 } else { fruitless + 1 };
            match end {
                End::Over(event) => {
                    self.tell_speed();
                    self.end().await;
                    break Some(event);
                }
                End::Cancelled => {
                    self.ring.close(self.session).await;
                    break None;
                }
                End::TooLate => {
                    self.ring.close(self.session).await;
                    break Some(Event::Failed(TOO_LATE.to_owned()));
                }
                End::Moved if fruitless < FRUITLESS => {
                    if let Err(why) = self.catch_up().await {
                        self.ring.complain(self.epoch, why);
                    }
                }
                End::Moved => {
                    self.leave();
                    break Some(Event::Failed("its stages were lost again and again".to_owned()));
                }
                End::Superseded => {
                    self.leave();
                    match self.go_on_elsewhere(&events).await {
                        Some(Ok(again)) => frames = again,
                        Some(Err(why)) => break Some(Event::Failed(why)),
                        None => break None,
                    }
                }
                End::Lost(why) => {
                    self.leave();
                    if self.source.is_none() || fruitless >= FRUITLESS {
                        break Some(Event::Failed(why));
                    }
                    tracing::info!(
                        answer = self.id,
                        session = self.session,
                        tokens = self.tokens.len(),
                        "an answer goes on elsewhere: {why}"
                    );
                    match self.go_on_elsewhere(&events).await {
                        Some(Ok(again)) => frames = again,
                        Some(Err(cause)) => {
                            break Some(Event::Failed(format!("{why}, and it could not go on: {cause}")));
                        }
                        None => break None,
                    }
                }
            }
        };
        tracing::info!(answer = self.id, session = self.session, tokens = self.tokens.len(), "the answer has ended");
        if let Some(event) = last {
            let _ = events.send(event).await;
        }
    }

    /// Waits for room, opens a session, and sends what is known.
    async fn begin(&mut self) -> mpsc::Receiver<Frame> {
        self.room = self.ring.admit(self.last_position as usize + 1).await;
        let frames = self.open().await;
        tracing::info!(answer = self.id, session = self.session, kept = self.cached, "a session is open");
        if let Err(why) = self.send_prompt().await {
            self.ring.complain(self.epoch, why);
        }
        frames
    }

    /// Has the node learn from an answer that was alone from its first to its last token.
    fn tell_speed(&self) {
        let alone = self.traffic.is_some_and(|(opened, _)| {
            let (opened_now, open) = self.ring.traffic();
            opened_now == opened && open <= 1 && self.ring.state().borrow().epoch == 0
        });
        if let (true, Some(Source { node, .. }), Some(first)) = (alone, &self.source, self.first) {
            let (node, ring) = (node.clone(), self.ring.clone());
            let (tokens, time) = (self.tokens.len().saturating_sub(self.said_tokens + 1), self.latest - first);
            tokio::spawn(async move { node.judge(&ring, tokens, time).await });
        }
    }

    /// Keeps what the stages have computed for the conversation's next turn, or forgets it.
    async fn end(&self) {
        if self.reuse && self.complete {
            let mut known = self.known();
            // The last token was chosen, not read.
            known.pop();
            self.ring.keep(self.session, known).await;
        } else {
            self.ring.close(self.session).await;
        }
    }

    /// Recovers, unless nobody listens any more.
    async fn go_on_elsewhere(&mut self, events: &mpsc::Sender<Event>) -> Option<Result<mpsc::Receiver<Frame>, String>> {
        self.traffic = None;
        tokio::select! {
            again = self.recover() => Some(again),
            () = events.closed() => None,
        }
    }

    /// Opens the answer on a model that is whole, as soon as there is one.
    async fn recover(&mut self) -> Result<mpsc::Receiver<Frame>, String> {
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

    /// One life: until the answer ends, nobody listens, or a stage is lost.
    async fn follow(&mut self, frames: &mut mpsc::Receiver<Frame>, events: &mpsc::Sender<Event>) -> End {
        let mut state = self.ring.state();
        state.mark_changed();
        loop {
            let frame = tokio::select! {
                // What has come counts, also from a machine that has left since.
                biased;
                frame = tokio::time::timeout(PATIENCE, frames.recv()) => frame,
                () = events.closed() => return End::Cancelled,
                () = until(self.deadline) => return End::TooLate,
                changed = state.changed() => {
                    if changed.is_err() {
                        return End::Lost("the model was unloaded".to_owned());
                    }
                    let now = state.borrow_and_update().clone();
                    match now.health {
                        Health::Lost(why) => return End::Lost(why),
                        Health::Superseded => return End::Superseded,
                        Health::Whole if now.epoch != self.epoch => return End::Moved,
                        Health::Whole => {}
                        Health::Mending(why) => {
                            if events.send(Event::Recovering(format!("{why}; going on without it"))).await.is_err() {
                                return End::Cancelled;
                            }
                        }
                    }
                    continue;
                }
            };
            let step = match frame {
                // A token that was sent again after a link was mended.
                Ok(Some(frame)) if frame.kind == Kind::Token && frame.position != self.next_position() => continue,
                Ok(Some(frame)) => self.take(&frame),
                Ok(None) => return End::Lost("the model was unloaded".to_owned()),
                Err(_) => {
                    let why = format!("no machine answered for {} seconds", PATIENCE.as_secs());
                    self.ring.complain(self.epoch, why);
                    continue;
                }
            };
            match step {
                Step::More(event) => {
                    if events.send(event).await.is_err() {
                        return End::Cancelled;
                    }
                }
                Step::End(event) => return End::Over(event),
            }
        }
    }

    /// The prompt, and what there is of the answer, goes out in chunks, all at once: while a stage computes one, the stage
    /// before it computes the next.
    async fn send_prompt(&self) -> Result<(), String> {
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

    /// Where the next token stands.
    fn next_position(&self) -> u32 {
        (self.prompt.len() + self.tokens.len()) as u32
    }

    fn take(&mut self, frame: &Frame) -> Step {
        match frame.kind {
            Kind::Token => self
                .token(sampled_of(frame), frame.last)
                .unwrap_or_else(|error| Step::End(Event::Failed(error.to_string()))),
            Kind::Failed => Step::End(Event::Failed(failure_of(frame).why)),
            Kind::Read => {
                let of = self.prompt.len() + self.tokens.len();
                Step::More(Event::Reading { tokens: (frame.position as usize).min(of), of })
            }
            Kind::Tokens | Kind::Hidden => {
                Step::End(Event::Failed("a stage sent the coordinator what belongs to a stage".to_owned()))
            }
        }
    }

    fn token(&mut self, sampled: Sampled, last: bool) -> Result<Step, TokenizerError> {
        self.latest = Instant::now();
        self.first.get_or_insert(self.latest);
        self.tokens.push(sampled.token);
        self.ring.count_token();
        self.complete = last;
        let is_end = self.end_tokens.contains(&sampled.token);
        let mut text = String::new();
        let mut stopped = false;
        if !is_end {
            let piece = self.detokenizer.push(self.ring.tokenizer(), sampled.token)?;
            (text, stopped) = self.watch(&piece);
        }
        if !stopped && last {
            let rest = self.detokenizer.finish(self.ring.tokenizer())?;
            let (more, late) = self.watch(&rest);
            text += &more;
            stopped = late;
            if !stopped {
                text += &self.stops.finish();
            }
        }
        if stopped || last {
            let finish_reason = if stopped || is_end { FinishReason::Stop } else { FinishReason::Length };
            return Ok(Step::End(Event::Finished { text, summary: self.summary(finish_reason) }));
        }
        Ok(Step::More(Event::Token { sampled, text }))
    }

    /// The text that may be shown, and whether a stop text ended the answer.
    fn watch(&mut self, piece: &str) -> (String, bool) {
        match self.stops.push(piece) {
            Stop::Continue(text) => (text, false),
            Stop::Stopped(text) => (text, true),
        }
    }

    fn summary(&self, finish_reason: FinishReason) -> Summary {
        let first = self.first.unwrap_or(self.latest);
        Summary {
            finish_reason,
            tokens: self.tokens.clone(),
            said_tokens: self.said_tokens,
            prompt_tokens: self.prompt.len(),
            time_to_first_token: first - self.started,
            decode_time: self.latest - first,
            stages: self.ring.stages(),
        }
    }
}
