//! An answer on its way: frames in, events out, and going on when a machine leaves.
//!
//! The coordinator keeps every token. When a stage is lost, it has the model loaded on the machines that are there and
//! sends prompt and answer through it again: the caches are refilled at the speed of a prompt, and the answer goes on from
//! the very next token. Sampling is keyed by position and the kernels give the same bits in any chunk, so the words are
//! those of an undisturbed run.

use std::time::{Duration, Instant};

use hive_model::detokenizer::Detokenizer;
use hive_model::sampling::Sampled;
use hive_model::stop::{Stop, StopStrings};
use hive_model::tokenizer::TokenizerError;
use hive_model::{Sampling, SessionOptions};
use hive_net::{Frame, Kind};
use tokio::sync::{mpsc, watch};

use crate::control::{Continued, SessionSpec};
use crate::generate::{Event, FinishReason, Request, Summary};
use crate::node::Node;
use crate::ring::Ring;
use crate::serving::{ServeError, Wish};
use crate::stage::{prompt_frame, sampled_of};

/// Every attempt at an answer is a session of its own, so one epoch is enough for each.
const EPOCH: u32 = 0;

/// Longest silence from the ring before a stage counts as lost. A stage computes one chunk in seconds; one that has not
/// answered for this long will not.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long an answer waits for machines to hold its model again.
const RECOVERY_PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks for them.
const RECOVERY_PAUSE: Duration = Duration::from_millis(300);
/// Losses in a row without one token between them: then it is not the machines, but what they are asked.
const FRUITLESS: usize = 3;

/// Events on their way to whoever asked.
const EVENT_QUEUE: usize = 256;

/// Where an answer gets its model from again, when the one it had has lost a machine.
pub(crate) struct Source {
    node: Node,
    wish: Wish,
    changes: watch::Receiver<u64>,
}

impl Source {
    pub(crate) fn new(node: Node, wish: Wish) -> Self {
        let changes = node.changes();
        Self { node, wish, changes }
    }

    /// Waits until a machine of this model has left, and says which.
    async fn loss(&mut self, ring: &Ring) -> String {
        loop {
            if let Some(name) = self.node.missing(ring) {
                return format!("{name} left");
            }
            if self.changes.changed().await.is_err() {
                // The node is going, and the answer with it.
                std::future::pending::<()>().await;
            }
        }
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
    source: Option<Source>,
    ring: Ring,
    session: u64,
    prompt: Vec<u32>,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    last_position: u32,
    reuse: bool,
    /// How much of what is known the stages have in their caches already.
    cached: usize,
    /// Whether the ring has come to its end by itself: then the stages' caches are the conversation, and can be kept.
    complete: bool,
    stops: StopStrings,
    detokenizer: Detokenizer,
    tokens: Vec<u32>,
    started: Instant,
    first: Option<Instant>,
    latest: Instant,
}

/// What a frame led to.
enum Step {
    More(Event),
    End(Event),
    /// The stages cannot go on, for this reason.
    Lost(String),
}

/// How one life of an answer ended.
enum End {
    /// With its last event.
    Over(Event),
    /// Nobody listens any more.
    Cancelled,
    Lost(String),
}

impl Answer {
    /// Opens the answer on every stage and lets it run; its events arrive on the receiver.
    pub(crate) async fn start(
        ring: Ring,
        source: Option<Source>,
        prompt: Vec<u32>,
        request: &Request,
        max_tokens: usize,
        started: Instant,
    ) -> Result<mpsc::Receiver<Event>, String> {
        let config = ring.files().config();
        let mut answer = Self {
            source,
            session: 0,
            sampling: request.sampling.clone(),
            end_tokens: if request.ignore_end { Vec::new() } else { config.end_tokens.clone() },
            last_position: (prompt.len() + max_tokens - 1) as u32,
            reuse: request.reuse,
            cached: 0,
            complete: false,
            stops: StopStrings::new(request.stop.clone()),
            prompt,
            detokenizer: Detokenizer::new(),
            tokens: Vec::new(),
            started,
            first: None,
            latest: started,
            ring,
        };
        let frames = answer.open().await?;
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(answer.run(frames, events));
        Ok(receiver)
    }

    /// Opens a session for what is left of the answer on every stage; one that was kept with its beginning serves.
    async fn open(&mut self) -> Result<mpsc::Receiver<Frame>, String> {
        if let Some(continued) = self.reuse.then(|| self.ring.take_kept(&self.known())).flatten() {
            if let Ok(frames) = self.open_with(Some(continued)).await {
                return Ok(frames);
            }
            // A stage has forgotten it: the others shall, too.
            self.leave();
            self.ring.close(continued.session).await;
        }
        let opened = self.open_with(None).await;
        if opened.is_err() {
            self.ring.fail();
            self.leave();
        }
        opened
    }

    async fn open_with(&mut self, continues: Option<Continued>) -> Result<mpsc::Receiver<Frame>, String> {
        let (session, frames) = self.ring.new_session();
        self.session = session;
        self.cached = continues.map_or(0, |continued| continued.position as usize);
        let spec = SessionSpec {
            session,
            epoch: EPOCH,
            options: SessionOptions {
                sampling: self.sampling.clone(),
                prompt: self.prompt.clone(),
                answer: self.tokens.clone(),
            },
            end_tokens: self.end_tokens.clone(),
            last_position: self.last_position,
            continues,
        };
        self.ring.open(&spec).await.map(|()| frames)
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

    async fn run(mut self, mut frames: mpsc::Receiver<Frame>, events: mpsc::Sender<Event>) {
        let mut fruitless = 0;
        let last = loop {
            let had = self.tokens.len();
            let why = match self.live(&mut frames, &events).await {
                End::Over(event) => {
                    self.end().await;
                    break Some(event);
                }
                End::Cancelled => {
                    self.ring.close(self.session).await;
                    break None;
                }
                End::Lost(why) => why,
            };
            self.ring.fail();
            self.leave();
            fruitless = if self.tokens.len() > had { 0 } else { fruitless + 1 };
            if self.source.is_none() || fruitless >= FRUITLESS {
                break Some(Event::Failed(why));
            }
            tracing::info!(session = self.session, tokens = self.tokens.len(), "an answer goes on elsewhere: {why}");
            if events.send(Event::Recovering(format!("{why}; going on without it"))).await.is_err() {
                break None;
            }
            let again = tokio::select! {
                again = self.recover() => again,
                () = events.closed() => break None,
            };
            match again {
                Ok(again) => frames = again,
                Err(cause) => break Some(Event::Failed(format!("{why}, and it could not go on: {cause}"))),
            }
        };
        if let Some(event) = last {
            let _ = events.send(event).await;
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

    /// Opens the answer on a model that is whole, as soon as there is one.
    async fn recover(&mut self) -> Result<mpsc::Receiver<Frame>, String> {
        let until = Instant::now() + RECOVERY_PATIENCE;
        loop {
            let Some(source) = &self.source else { return Err("nobody can load the model again".to_owned()) };
            let cause = match source.ring().await {
                Ok(ring) => {
                    self.ring = ring;
                    match self.open().await {
                        Ok(frames) => return Ok(frames),
                        Err(why) => why,
                    }
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
    async fn live(&mut self, frames: &mut mpsc::Receiver<Frame>, events: &mpsc::Sender<Event>) -> End {
        if let Err(why) = self.send_prompt().await {
            return End::Lost(why);
        }
        // Taken out, so that waiting for it does not hold the rest of the answer.
        let mut source = self.source.take();
        let end = self.follow(frames, events, source.as_mut()).await;
        self.source = source;
        end
    }

    async fn follow(
        &mut self,
        frames: &mut mpsc::Receiver<Frame>,
        events: &mpsc::Sender<Event>,
        source: Option<&mut Source>,
    ) -> End {
        let ring = self.ring.clone();
        let lost = async {
            match source {
                Some(source) => source.loss(&ring).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(lost);
        loop {
            let frame = tokio::select! {
                // What has come counts, also from a machine that has left since.
                biased;
                frame = tokio::time::timeout(PATIENCE, frames.recv()) => frame,
                () = events.closed() => return End::Cancelled,
                why = &mut lost => return End::Lost(why),
            };
            let step = match frame {
                // A token that was sent again after a link was mended.
                Ok(Some(frame)) if frame.kind == Kind::Token && frame.position < self.next_position() => continue,
                Ok(Some(frame)) => self.take(&frame),
                Ok(None) => Step::Lost("the model was unloaded".to_owned()),
                Err(_) => Step::Lost(format!("no machine answered for {} seconds", PATIENCE.as_secs())),
            };
            match step {
                Step::More(event) => {
                    if events.send(event).await.is_err() {
                        return End::Cancelled;
                    }
                }
                Step::End(event) => return End::Over(event),
                Step::Lost(why) => return End::Lost(why),
            }
        }
    }

    /// The prompt, and what there is of the answer, goes out in chunks, all at once: while a stage computes one, the stage
    /// before it computes the next.
    async fn send_prompt(&self) -> Result<(), String> {
        let known = self.known();
        let mut position = self.cached;
        for chunk in known[self.cached..].chunks(self.ring.prompt_chunk()) {
            let is_last = position + chunk.len() == known.len();
            let frame = prompt_frame(self.session, EPOCH, position as u32, chunk, is_last);
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
            Kind::Failed => Step::Lost(String::from_utf8_lossy(&frame.payload).into_owned()),
            Kind::Tokens | Kind::Hidden => {
                Step::End(Event::Failed("a stage sent the coordinator what belongs to a stage".to_owned()))
            }
        }
    }

    fn token(&mut self, sampled: Sampled, last: bool) -> Result<Step, TokenizerError> {
        self.latest = Instant::now();
        self.first.get_or_insert(self.latest);
        self.tokens.push(sampled.token);
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
            prompt_tokens: self.prompt.len(),
            time_to_first_token: first - self.started,
            decode_time: self.latest - first,
            stages: self.ring.stages().to_vec(),
        }
    }
}
