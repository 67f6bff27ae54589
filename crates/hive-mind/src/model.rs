//! What answers: the swarm behind the node, seen from a conversation.

use std::future::Future;
use std::pin::Pin;

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;

use hive_types::Trouble;

use crate::conversation::Choices;

/// Gives answers. The node does; tests have their own.
pub trait Model: Send + Sync + 'static {
    /// Begins an answer.
    fn answer(&self, question: Question) -> Pin<Box<dyn Future<Output = Result<Asked, Failure>> + Send>>;

    /// Bytes of the weights of the model that answers with these choices; none if they are not known.
    fn weight_bytes(&self, _choices: &Choices) -> BoxFuture<'static, Option<u64>> {
        Box::pin(ready(None))
    }

    /// Whether it computes an answer for anyone here.
    fn is_busy(&self) -> bool {
        false
    }
}

/// A request to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The conversation so far; the system prompt comes first.
    pub turns: Vec<Turn>,
    /// Model and sampling.
    pub choices: Choices,
    /// The sampling seed.
    pub seed: u32,
    /// Tokens of an interrupted answer, to resume from.
    pub resume_tokens: Vec<u32>,
    /// When the conversation began, in seconds since 1970.
    pub began_s: Option<f64>,
    /// Whether it is no turn of a conversation, so that the machines' prefix caches stay.
    pub aside: bool,
}

/// A message of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// Its text.
    pub text: String,
}

/// Why an answer did not begin, or was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason, in words.
    pub why: String,
    /// Its code in error replies, if it has one.
    pub code: Option<&'static str>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, code: None }
    }
}

/// An answer that has begun.
pub struct Asked {
    /// The machines that compute it, in the order of their layers.
    pub machines: Vec<String>,
    /// Tokens that the model can read.
    pub context_limit: u32,
    /// Options that the model's chat template does not use.
    pub unknown_options: Vec<String>,
    /// Its events; dropping the stream cancels the answer.
    pub events: BoxStream<'static, AnswerEvent>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("machines", &self.machines).finish_non_exhaustive()
    }
}

/// Something that happens while an answer is computed.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// Progress of reading the prompt.
    Reading {
        /// Tokens read so far.
        tokens: u32,
        /// Tokens in total.
        of: u32,
    },
    /// A token, and the text that is now certain.
    Token {
        /// The token.
        token: u32,
        /// The text; may be empty.
        text: String,
    },
    /// It has run into trouble, and resumes as soon as it can.
    Recovering(Trouble),
    /// These machines compute from here on.
    Machines(Vec<String>),
    /// The answer is complete.
    Finished {
        /// The last piece of text.
        text: String,
        /// All tokens of the answer.
        tokens: Vec<u32>,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Speed after the first token, in tokens per second.
        tokens_per_s: f64,
        /// Time to first token, in seconds.
        first_s: f64,
        /// Whether it reached its maximum length and can be continued.
        cut: bool,
    },
    /// The answer was interrupted; earlier tokens stay valid.
    Failed(Failure),
}
