//! What happens while an answer is generated, and how it ended.

use std::time::Duration;

use hive_model::sampling::Sampled;
use hive_types::Trouble;

use crate::ring::PlacedStage;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop text appeared.
    Stop,
    /// It reached its maximum length or the end of the context.
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
    /// The tokens of the answer, including the resume tokens and an end token.
    pub tokens: Vec<u32>,
    /// How many of them are resume tokens.
    pub resumed_tokens: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were already in the stages' KV caches.
    pub cached_tokens: usize,
    /// From the request to the first token.
    pub time_to_first_token: Duration,
    /// From the first token to the last.
    pub decode_time: Duration,
    /// The stages that computed it, as they were when it ended.
    pub stages: Vec<PlacedStage>,
}

impl Summary {
    /// Tokens per second after the first.
    pub fn decode_tokens_per_s(&self) -> f64 {
        let after_first = self.tokens.len().saturating_sub(self.resumed_tokens + 1) as f64;
        if self.decode_time.is_zero() { 0.0 } else { after_first / self.decode_time.as_secs_f64() }
    }
}

/// Something that happens while an answer is generated.
#[derive(Debug, Clone)]
pub enum Event {
    /// Progress on the prompt, or on a replay to a new stage.
    Reading {
        /// Tokens computed so far.
        tokens: usize,
        /// All tokens to compute.
        of: usize,
    },
    /// A token arrived.
    Token {
        /// The token and, if requested, its probabilities.
        sampled: Sampled,
        /// Text that is now certain; may be empty.
        text: String,
    },
    /// It has run into trouble, and resumes as soon as it can.
    Recovering(Trouble),
    /// The answer is complete.
    Finished {
        /// Text that was held back until now.
        text: String,
        /// The answer in numbers.
        summary: Summary,
    },
    /// The answer broke off, for this reason. What arrived before remains valid.
    Failed(String),
}
