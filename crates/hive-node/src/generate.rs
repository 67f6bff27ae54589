//! What can be asked of a model, and how an answer begins.

use std::time::{Duration, Instant};

use hive_model::Sampling;
use hive_model::sampling::{Sampled, SamplingError};
use hive_model::template::Conversation;
use jiff::civil::DateTime;
use tokio::sync::mpsc;

use crate::Message;
use crate::answer::{Answer, Source};
use crate::node::Node;
use crate::ring::{PlacedStage, Ring};
use crate::serving::{ServeError, Wish};
use crate::words::grouped;
use hive_worker::text::TextError;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The conversation so far. One that does not say when it began is known by its first messages.
    pub conversation: Conversation,
    /// Tokens of an answer that broke off, which is gone on with; no others come twice.
    pub said: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Longest answer, in tokens; `None` is as long as the context allows.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether the model's own end tokens are ignored, to measure answers of a set length.
    pub ignore_end: bool,
    /// Whether what earlier turns have computed may be used; measurements want all of the work.
    pub reuse: bool,
    /// When the answer ends, done or not, after the request.
    pub deadline: Option<Duration>,
}

impl Request {
    /// A greedy answer to a conversation.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            conversation: Conversation::new(messages),
            said: Vec::new(),
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            ignore_end: false,
            reuse: true,
            deadline: None,
        }
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
    /// The tokens of the answer, those it went on from and an end token included.
    pub tokens: Vec<u32>,
    /// How many of them it went on from.
    pub said_tokens: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them the stages had in their caches already.
    pub cached_tokens: usize,
    /// From the request to the first token.
    pub time_to_first_token: Duration,
    /// From the first token to the last.
    pub decode_time: Duration,
    /// Who computed it, at its end.
    pub stages: Vec<PlacedStage>,
}

impl Summary {
    /// Tokens per second after the first.
    pub fn decode_tokens_per_s(&self) -> f64 {
        let after_first = self.tokens.len().saturating_sub(self.said_tokens + 1) as f64;
        if self.decode_time.is_zero() { 0.0 } else { after_first / self.decode_time.as_secs_f64() }
    }
}

/// What happens while an answer grows.
#[derive(Debug, Clone)]
pub enum Event {
    /// The prompt, or what a new machine has to catch up with, is read so far.
    Reading {
        /// Tokens that are read.
        tokens: usize,
        /// Of so many.
        of: usize,
    },
    /// A token came, and with it this much text, which may be none.
    Token {
        /// The token and, where asked for, its probabilities.
        sampled: Sampled,
        /// Text that has become certain.
        text: String,
    },
    /// A machine left, in words; the answer goes on without it as soon as the others have caught up.
    Recovering(String),
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
    /// The model cannot converse, or its template or tokenizer failed on this conversation.
    #[error(transparent)]
    Prompt(#[from] TextError),
    /// The conversation is longer than the model can read.
    #[error(
        "the conversation has {} tokens, but the model reads at most {}; shorten it or begin a new one",
        grouped(*tokens as u64),
        grouped(*limit as u64)
    )]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// Longer than the machines have memory for.
    #[error(
        "the conversation and its answer take {} tokens, but the machines have memory for {}; ask for a shorter answer, or let \
         more machines share",
        grouped(*tokens as u64),
        grouped(*room as u64)
    )]
    NoRoom {
        /// Its tokens, with those of the answer.
        tokens: usize,
        /// Tokens there is memory for.
        room: usize,
    },
    /// The answer to go on with has a token that the model does not know, or its end.
    #[error("the answer cannot be gone on with: {0}")]
    Said(String),
    /// No room for an answer was asked for.
    #[error("an answer of 0 tokens was asked for; ask for at least 1")]
    NoTokens,
}

/// An answer that has begun.
pub struct Reply {
    /// Names it in every log line, from here to the stages.
    pub id: u64,
    /// The model that answers.
    pub ring: Ring,
    /// What happens; dropping it cancels the answer.
    pub events: mpsc::Receiver<Event>,
}

/// Why an answer by the swarm did not begin.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is no model to ask.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The request was not taken.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// A machine may leave while a model is loaded; then it is loaded on the others.
const ATTEMPTS: usize = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(1);

/// The local time.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

impl Node {
    /// Starts an answer by the swarm. It goes on over other machines when one leaves in the middle of it.
    pub async fn generate(&self, wish: &Wish, request: &Request) -> Result<Reply, AnswerError> {
        let mut attempt = 1;
        loop {
            let ring = match self.model(wish).await {
                Err(ServeError::Load(error)) if attempt < ATTEMPTS && !error.is_the_models() => {
                    tracing::info!("the model is loaded anew: {error}");
                    attempt += 1;
                    // Long enough for a machine that has gone to be known as gone.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                ring => ring?,
            };
            let prompt = ring.prompt(request, self.openings().began(&request.conversation, now())).await?;
            let source = Source::new(self.clone(), wish.clone());
            return Ok(ring.start(prompt, request, Some(source)).await?);
        }
    }
}

impl Ring {
    /// Starts an answer by these very stages. Its events arrive on the receiver; dropping it cancels the answer.
    pub async fn generate(&self, request: &Request) -> Result<mpsc::Receiver<Event>, GenerateError> {
        let prompt = self.prompt(request, now()).await?;
        Ok(self.start(prompt, request, None).await?.events)
    }

    /// Starts an answer to a prompt that is tokens already; the request's messages are ignored.
    pub async fn generate_tokens(
        &self,
        prompt: Vec<u32>,
        request: &Request,
    ) -> Result<mpsc::Receiver<Event>, GenerateError> {
        Ok(self.start(prompt, request, None).await?.events)
    }

    async fn prompt(&self, request: &Request, began: DateTime) -> Result<Vec<u32>, GenerateError> {
        request.sampling.check()?;
        Ok(self.model().prompt(&request.conversation, began).await?)
    }

    async fn start(&self, prompt: Vec<u32>, request: &Request, source: Option<Source>) -> Result<Reply, GenerateError> {
        let started = Instant::now();
        request.sampling.check()?;
        let card = self.model().card();
        self.check_said(&request.said)?;
        let (limit, known) = (card.max_context, prompt.len() + request.said.len());
        if prompt.is_empty() || known >= limit {
            return Err(GenerateError::TooLong { tokens: known, limit });
        }
        // The token at the last position is not read any more, so the answer may reach one past the context.
        let room = limit - known + 1;
        let max_tokens = request.max_tokens.unwrap_or(room).min(room);
        if max_tokens == 0 {
            return Err(GenerateError::NoTokens);
        }
        let (tokens, room) = (known + max_tokens, self.room_tokens());
        // Where no length was asked for, it is as long as there is room.
        let max_tokens =
            if request.max_tokens.is_none() { max_tokens.min(room.saturating_sub(known)) } else { max_tokens };
        if max_tokens == 0 || known + max_tokens > room {
            return Err(GenerateError::NoRoom { tokens, room });
        }
        let id = self.new_id();
        let events = Answer::start(id, self.clone(), source, prompt, request, max_tokens, started)
            .await
            .map_err(|error| GenerateError::Said(error.to_string()))?;
        Ok(Reply { id, ring: self.clone(), events })
    }

    fn check_said(&self, said: &[u32]) -> Result<(), GenerateError> {
        let card = self.model().card();
        if let Some(token) = said.iter().find(|token| **token as usize >= card.vocabulary) {
            return Err(GenerateError::Said(format!("the model has no token {token}")));
        }
        if said.iter().any(|token| card.end_tokens.contains(token)) {
            return Err(GenerateError::Said("it had come to its end".to_owned()));
        }
        Ok(())
    }
}
