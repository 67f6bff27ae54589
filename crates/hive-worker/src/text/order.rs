//! What node and text worker say to each other.

use hive_host::sandbox::Confinement;
use hive_model::template::TemplateError;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::ModelCard;

/// From node to worker. An order carries all that it needs.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Say what the model is.
    Card,
    /// Load tokenizer and chat template.
    Prepare,
    /// The same; that there is no template that can be used is an error.
    Converse,
    /// The names of the chat template's options.
    Options,
    /// The tokens of a conversation.
    Prompt {
        /// A [`hive_model::template::Conversation`].
        json: Vec<u8>,
        /// When it began, if it does not say so itself.
        began: DateTime,
    },
    /// The text of the first `given` tokens, and of all.
    Texts { tokens: Vec<u32>, given: u32 },
}

/// An order with the number that its reply will have.
#[derive(Serialize, Deserialize)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) what: T,
}

/// From worker to node.
#[derive(Serialize, Deserialize)]
pub(super) enum Said {
    /// The first words: it is confined so far.
    Confined(Confinement),
    /// The reply to an order.
    Reply(Numbered<Result<Reply, TextFailure>>),
}

/// The reply to an order.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Card(Box<ModelCard>),
    Prepared,
    Options(Vec<String>),
    Tokens(Vec<u32>),
    Texts(String, String),
}

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
