//! What is wrong with a model's text, as node and text worker say it.

use hive_model::template::TemplateError;
use serde::{Deserialize, Serialize};

/// What is wrong with a model's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextFault {
    /// There is no such file.
    Missing,
    /// A file cannot be read or is not of a kind that is known.
    File,
    /// The tokenizer cannot be used.
    Tokens,
    /// There is no chat template, or none that can be used.
    Template,
    /// The chat template refuses this conversation, or fails on it.
    Conversation,
}

/// A fault with what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextFailure {
    pub(super) fault: TextFault,
    pub(super) why: String,
}

/// Why a model's text could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The files are at fault.
    #[error("{1}")]
    Fault(TextFault, String),
    /// The files brought down the process that read them.
    #[error(
        "the model's files brought down the process that reads them ({0}); they are damaged or hostile: download them anew"
    )]
    Died(String),
    /// The process did not come to an end.
    #[error(
        "the model's files kept the process that reads them busy for {0} seconds; they are damaged or hostile: download them anew"
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
    /// What a whole worker does not say.
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
