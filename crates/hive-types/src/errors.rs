//! Error replies.

use serde::{Deserialize, Serialize};

use crate::Right;

/// An error reply, in the form that OpenAI's clients read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The error.
    pub error: ErrorBody,
}

/// Why a request failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What happened and why, in words.
    pub message: String,
    /// Who is at fault.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// A stable name for programs.
    pub code: String,
    /// The request field it is about.
    pub param: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Details for HiveMind's own clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hivemind: Option<ErrorDetails>,
}

/// Who is at fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The client.
    InvalidRequestError,
    /// The server.
    #[default]
    #[serde(other)]
    ServerError,
}

/// Details of an error for HiveMind's own clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErrorDetails {
    /// The token has none of these rights, one of which is needed.
    MissingRight {
        /// The rights.
        missing: Vec<Right>,
    },
    /// The answer broke off. To resume it, send its beginning again.
    BrokenAnswer {
        /// The text so far.
        text: String,
        /// The tokens so far.
        tokens: Vec<u32>,
        /// Its sampling seed.
        seed: u64,
    },
    /// Added by a newer version.
    Unknown {},
}
