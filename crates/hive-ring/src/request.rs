//! A request for an answer, and why it is refused.

use std::time::Duration;

use hive_model::Sampling;
use hive_model::sampling::SamplingError;
use hive_stage::AdapterFiles;
use hive_text::template::{Conversation, Message};
use hive_types::grouped;
use hive_worker::text::TextError;

/// A request for an answer.
#[derive(Debug, Clone)]
pub struct Request {
    /// The conversation so far. If it does not say when it began, its first messages identify it.
    pub conversation: Conversation,
    /// Resume tokens: those of an answer that broke off. The answer resumes after them and does not repeat them.
    pub resume_tokens: Vec<u32>,
    /// The adapter that changes the model for this answer.
    pub adapter: Option<AdapterFiles>,
    /// How tokens are sampled.
    pub sampling: Sampling,
    /// Maximum length of the answer, in tokens; `None` is as long as the context allows.
    pub max_tokens: Option<usize>,
    /// Stop texts, which end the answer.
    pub stop: Vec<String>,
    /// Whether the model's end tokens are ignored, to measure answers of a set length.
    pub ignore_end: bool,
    /// Whether the prefix cache may be used; measurements turn it off.
    pub reuse: bool,
    /// The time after which the answer ends, complete or not.
    pub deadline: Option<Duration>,
}

impl Request {
    /// A greedy answer to a conversation.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            conversation: Conversation::new(messages),
            resume_tokens: Vec::new(),
            adapter: None,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            ignore_end: false,
            reuse: true,
            deadline: None,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A sampling setting is out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model has no chat template, or its template or tokenizer failed on this conversation.
    #[error(transparent)]
    Prompt(#[from] TextError),
    /// The conversation is longer than the model can read.
    #[error(
        "this conversation is too long ({} of {} tokens); shorten it or start a new chat",
        grouped(*tokens as u64),
        grouped(*limit as u64)
    )]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The most that the model can read.
        limit: usize,
    },
    /// The conversation and its answer are longer than the machines have memory for.
    #[error(
        "the conversation and its answer take {} tokens, but the machines have memory for {}; ask for a shorter answer, or \
         share more memory",
        grouped(*tokens as u64),
        grouped(*room as u64)
    )]
    NoRoom {
        /// Tokens of both.
        tokens: usize,
        /// Tokens there is memory for.
        room: usize,
    },
    /// The answer cannot be resumed: the model does not know a resume token, or one of them ends the answer.
    #[error("the answer can't be continued: {0}")]
    Resume(String),
    /// The adapter does not suit the model.
    #[error("{0}")]
    Adapter(String),
    /// An answer without tokens was requested.
    #[error("an answer needs at least 1 token")]
    NoTokens,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_that_is_too_long_is_told_the_limit() {
        let words = GenerateError::TooLong { tokens: 5000, limit: 4096 }.to_string();
        assert_eq!(words, "this conversation is too long (5,000 of 4,096 tokens); shorten it or start a new chat");
    }
}
