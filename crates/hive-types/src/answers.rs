//! What HiveMind adds to OpenAI's answers, under `hivemind`.

use serde::{Deserialize, Serialize};

use crate::StageLayers;

/// What a part of an answer says beside the text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnswerNews {
    /// Something happened on the way; the answer continues.
    Status {
        /// In words.
        status: String,
    },
    /// The prompt is being read.
    Reading {
        /// How far it is.
        reading: ReadingProgress,
    },
    /// The answer is complete.
    Figures(AnswerFigures),
}

/// How much of a prompt has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingProgress {
    /// Tokens that have been read.
    pub tokens: usize,
    /// All tokens to be read.
    pub of: usize,
}

/// An answer in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerFigures {
    /// Who computed it, in the order a token passes them.
    pub stages: Vec<StageLayers>,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Time to first token, in milliseconds.
    pub ttft_ms: f64,
    /// Tokens of the answer per second.
    pub decode_tokens_per_s: f64,
    /// Fields of the request that changed nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}
