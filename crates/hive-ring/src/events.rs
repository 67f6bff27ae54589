//! What happens while an answer grows, and how it ended.

use std::time::Duration;

use hive_model::sampling::Sampled;

use crate::ring::PlacedStage;

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
