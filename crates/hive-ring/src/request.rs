//! What can be asked of a model.

use std::time::Duration;

use hive_model::Sampling;
use hive_model::sampling::SamplingError;
use hive_model::template::{Conversation, Message};
use hive_types::grouped;
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
