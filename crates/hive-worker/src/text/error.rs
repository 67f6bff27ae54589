//! Errors of a model's text.

use hive_text::template::TemplateError;
use serde::{Deserialize, Serialize};

/// An error of a model's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextFault {
    /// The file does not exist.
    Missing,
    /// A file cannot be read, or has an unknown format.
    File,
    /// The tokenizer is unusable.
    Tokens,
    /// The chat template is missing or unusable.
    Template,
    /// The chat template rejects this conversation, or fails on it.
    Conversation,
    /// An adapter does not suit the model.
    Adapter,
}

/// A fault and its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextFailure {
    pub(super) fault: TextFault,
    pub(super) why: String,
}

/// Why a model's text could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The files are faulty.
    #[error("{1}")]
    Fault(TextFault, String),
    /// The files crashed the process that read them.
    #[error(
        "the model's files brought down the process that reads them ({0}); they are damaged or hostile: download them again"
    )]
    Died(String),
    /// The process did not finish in time.
    #[error(
        "the model's files kept the process that reads them busy for {0} seconds; they are damaged or hostile: download them again"
    )]
    Late(u64),
    /// The process could not be started.
    #[error(transparent)]
    Start(#[from] StartFailure),
}

/// Why the process could not be started, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartFailure(pub(super) String);

impl TextError {
    /// A reply that no working worker sends.
    pub(super) fn nonsense() -> Self {
        Self::Died("it said what makes no sense".to_owned())
    }
}

impl TextFailure {
    pub(super) fn new(fault: TextFault, why: impl std::fmt::Display) -> Self {
        Self { fault, why: why.to_string() }
    }

    pub(super) fn of_template(error: &TemplateError) -> Self {
        let fault = match error {
            TemplateError::Missing | TemplateError::Parse(_) => TextFault::Template,
            _ => TextFault::Conversation,
        };
        Self::new(fault, error)
    }
}
