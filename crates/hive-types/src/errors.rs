//! What a program is told when its request is refused.

use serde::{Deserialize, Serialize};

use crate::Right;

/// A refusal, in the form that OpenAI's clients read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// It.
    pub error: ErrorBody,
}

/// Why a request was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What happened and why, in words.
    pub message: String,
    /// Whose fault it is.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// A name that programs can rely on.
    pub code: String,
    /// The field of the request that it is about.
    pub param: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// What HiveMind's own clients can use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hivemind: Option<ErrorDetails>,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request's.
    InvalidRequestError,
    /// The server's.
    #[default]
    #[serde(other)]
    ServerError,
}

/// What HiveMind's own clients can use of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErrorDetails {
    /// The token lacks all of these rights, one of which is needed.
    MissingRight {
        /// The rights.
        missing: Vec<Right>,
    },
    /// The answer broke off. It continues when its beginning is sent again.
    BrokenAnswer {
        /// The text so far.
        text: String,
        /// The tokens so far.
        tokens: Vec<u32>,
        /// The seed of its sampling.
        seed: u64,
    },
    /// Of a newer version.
    Unknown {},
}
