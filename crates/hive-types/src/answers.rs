//! HiveMind's additions to OpenAI's responses, under `hivemind`.

use serde::{Deserialize, Serialize};

use crate::StageLayers;

/// The fields of a chunk of an answer besides its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnswerNews {
    /// Something happened; the answer continues.
    Status {
        /// A sentence for people.
        status: String,
    },
    /// The prompt is being read.
    Reading {
        /// The progress.
        reading: ReadingProgress,
    },
    /// The answer is complete.
    Figures(AnswerFigures),
}

/// How much of a prompt has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingProgress {
    /// Tokens read so far.
    pub tokens: usize,
    /// Tokens to read in all.
    pub of: usize,
}

/// The figures of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerFigures {
    /// The stages that computed it, in the order a token passes them.
    pub stages: Vec<StageLayers>,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Time to first token, in milliseconds.
    pub ttft_ms: f64,
    /// Tokens of the answer per second.
    pub decode_tokens_per_s: f64,
    /// Fields of the request that had no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}
