//! One answer: from messages to a stream of events.

use std::time::{Duration, Instant};

use hive_model::detokenizer::Detokenizer;
use hive_model::sampling::{Sampled, SamplingError};
use hive_model::stop::{Stop, StopStrings};
use hive_model::template::TemplateError;
use hive_model::tokenizer::TokenizerError;
use hive_model::{Sampling, SessionOptions};
use hive_net::{Frame, Kind};
use tokio::sync::mpsc;

use crate::Message;
use crate::control::SessionSpec;
use crate::ring::Ring;
use crate::stage::{prompt_frame, sampled_of};

/// A failure of the very first life; failover raises it.
const FIRST_EPOCH: u32 = 0;

/// Longest silence from the ring before an answer is given up. A stage computes one chunk in seconds; a machine that
/// has not answered for this long will not.
const PATIENCE: Duration = Duration::from_mins(2);

/// Events on their way to whoever asked.
const EVENT_QUEUE: usize = 256;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest answer, in tokens; `None` is as long as the context allows.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether the model's own end tokens are ignored, to measure answers of a set length.
    pub ignore_end: bool,
}

impl Request {
    /// A greedy answer to a conversation.
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, sampling: Sampling::default(), max_tokens: None, stop: Vec::new(), ignore_end: false }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop text came.
    Stop,
    /// It reached its longest length or the end of the context.
    Length,
}

impl FinishReason {
    /// As the `OpenAI` API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// An answer in numbers.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The tokens of the answer, an end token included.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// From the request to the first token.
    pub time_to_first_token: Duration,
    /// From the first token to the last.
    pub decode_time: Duration,
}

impl Summary {
    /// Tokens per second after the first.
    pub fn decode_tokens_per_s(&self) -> f64 {
        let after_first = self.tokens.len().saturating_sub(1) as f64;
        if self.decode_time.is_zero() { 0.0 } else { after_first / self.decode_time.as_secs_f64() }
    }
}

/// What happens while an answer grows.
#[derive(Debug, Clone)]
pub enum Event {
    /// A token came, and with it this much text, which may be none.
    Token {
        /// The token and, where asked for, its probabilities.
        sampled: Sampled,
        /// Text that has become certain.
        text: String,
    },
    /// The answer is complete; the text is what was still held back.
    Finished {
        /// The last text.
        text: String,
        /// The answer in numbers.
        summary: Summary,
    },
    /// The answer ended before its time; what came stands.
    Failed(String),
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A setting out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model cannot converse.
    #[error("{0}")]
    Template(String),
    /// The template or tokenizer failed on this conversation.
    #[error(transparent)]
    Prompt(#[from] TemplateError),
    /// The conversation is longer than the model can read.
    #[error("the conversation has {tokens} tokens, but the model reads at most {limit}; shorten it or begin a new one")]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// No room for an answer was asked for.
    #[error("an answer of 0 tokens was asked for; ask for at least 1")]
    NoTokens,
    /// A stage would not take the session.
    #[error("the answer could not be started: {0}")]
    Start(String),
}

impl Ring {
    /// Starts an answer. Its events arrive on the receiver; dropping it cancels the answer.
    pub async fn generate(&self, request: Request) -> Result<mpsc::Receiver<Event>, GenerateError> {
        request.sampling.check()?;
        let template = self.template().map_err(|error| GenerateError::Template(error.to_string()))?;
        let prompt = template.tokenize(self.tokenizer(), &request.messages, None)?;
        self.generate_tokens(prompt, request).await
    }

    /// Starts an answer to a prompt that is tokens already; the request's messages are ignored.
    pub async fn generate_tokens(
        &self,
        prompt: Vec<u32>,
        request: Request,
    ) -> Result<mpsc::Receiver<Event>, GenerateError> {
        let started = Instant::now();
        request.sampling.check()?;
        let config = self.files().config();
        let limit = config.max_context;
        if prompt.is_empty() || prompt.len() >= limit {
            return Err(GenerateError::TooLong { tokens: prompt.len(), limit });
        }
        // The token at the last position is not read any more, so the answer may reach one past the context.
        let room = limit - prompt.len() + 1;
        let max_tokens = request.max_tokens.unwrap_or(room).min(room);
        if max_tokens == 0 {
            return Err(GenerateError::NoTokens);
        }
        let (session, frames) = self.new_session();
        let spec = SessionSpec {
            session,
            epoch: FIRST_EPOCH,
            options: SessionOptions { sampling: request.sampling.clone(), prompt: prompt.clone() },
            end_tokens: if request.ignore_end { Vec::new() } else { config.end_tokens.clone() },
            last_position: (prompt.len() + max_tokens - 1) as u32,
        };
        if let Err(why) = self.open(&spec).await {
            self.fail();
            self.close(session).await;
            return Err(GenerateError::Start(why));
        }
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let answer = Answer {
            ring: self.clone(),
            stops: StopStrings::new(request.stop),
            end_tokens: spec.end_tokens,
            session,
            prompt,
            detokenizer: Detokenizer::new(),
            tokens: Vec::new(),
            started,
            first: None,
            latest: started,
        };
        tokio::spawn(answer.run(frames, events));
        Ok(receiver)
    }
}

/// An answer on its way.
struct Answer {
    ring: Ring,
    session: u64,
    prompt: Vec<u32>,
    end_tokens: Vec<u32>,
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
}

impl Answer {
    async fn run(mut self, mut frames: mpsc::Receiver<Frame>, events: mpsc::Sender<Event>) {
        let end = match self.send_prompt().await {
            Err(why) => Some(Event::Failed(why)),
            Ok(()) => loop {
                let frame = tokio::select! {
                    frame = tokio::time::timeout(PATIENCE, frames.recv()) => frame,
                    // Nobody listens any more: the answer is cancelled.
                    () = events.closed() => break None,
                };
                let step = match frame {
                    // A token that was sent again after a link was mended.
                    Ok(Some(frame)) if frame.kind == Kind::Token && frame.position < self.next_position() => continue,
                    Ok(Some(frame)) => self.take(&frame),
                    Ok(None) => Step::End(Event::Failed("the model was unloaded".to_owned())),
                    Err(_) => Step::End(Event::Failed(format!(
                        "no machine answered for {} seconds; try again",
                        PATIENCE.as_secs()
                    ))),
                };
                match step {
                    Step::More(event) => {
                        if events.send(event).await.is_err() {
                            break None;
                        }
                    }
                    Step::End(event) => break Some(event),
                }
            },
        };
        if matches!(end, Some(Event::Failed(_))) {
            self.ring.fail();
        }
        self.ring.close(self.session).await;
        if let Some(event) = end {
            let _ = events.send(event).await;
        }
    }

    /// The prompt goes out in chunks, all at once: while a stage computes one, the stage before it computes the next.
    async fn send_prompt(&self) -> Result<(), String> {
        let mut position = 0;
        for chunk in self.prompt.chunks(self.ring.prompt_chunk()) {
            let is_last = position + chunk.len() == self.prompt.len();
            let frame = prompt_frame(self.session, FIRST_EPOCH, position as u32, chunk, is_last);
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
            Kind::Failed => Step::End(Event::Failed(String::from_utf8_lossy(&frame.payload).into_owned())),
            Kind::Tokens | Kind::Hidden => {
                Step::End(Event::Failed("a stage sent the coordinator what belongs to a stage".to_owned()))
            }
        }
    }

    fn token(&mut self, sampled: Sampled, last: bool) -> Result<Step, TokenizerError> {
        self.latest = Instant::now();
        self.first.get_or_insert(self.latest);
        self.tokens.push(sampled.token);
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
        }
    }
}
