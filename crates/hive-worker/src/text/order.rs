//! What node and text worker say to each other.

use hive_host::sandbox::Confinement;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::ModelCard;
use super::error::TextFailure;

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
