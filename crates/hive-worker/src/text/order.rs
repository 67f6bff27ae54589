//! Messages between node and text worker.

use std::ops::Range;

use hive_host::sandbox::Confinement;
use hive_text::reasoning::Markers;
use hive_weights::Extent;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::ModelCard;
use super::error::TextFailure;
use crate::protocol::Raw;

/// From node to worker. An order carries all its state.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Return the model's card.
    Card,
    /// Return the bytes of the model's files that say what it is.
    Outline,
    /// Return the bytes of the model's files that hold these layers.
    Extents(Range<usize>),
    /// Load tokenizer and chat template.
    Prepare,
    /// The same, but a missing or unusable template is an error.
    Converse,
    /// Return the names of the chat template's options.
    Options,
    /// Return the tokens of a conversation.
    Prompt {
        /// A [`hive_text::template::Conversation`].
        json: Vec<u8>,
        /// Its start time, unless it has one itself.
        began: DateTime,
    },
    /// Return how the model marks its thinking, and whether the answer to a
    /// [`Conversation`](hive_text::template::Conversation) begins with it.
    Thinking(Vec<u8>),
    /// Check that an adapter suits the model: the bytes of its configuration, and of the file with its matrices.
    Adapter(Raw, Raw),
    /// Return the number of tokens of a text.
    Count(String),
    /// Return the text of the first `given` tokens, and of all.
    Texts { tokens: Vec<u32>, given: u32 },
}

/// An order or reply with its number.
#[derive(Serialize, Deserialize)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) what: T,
}

/// From worker to node.
#[derive(Serialize, Deserialize)]
pub(super) enum Said {
    /// The first message: the confinement in force.
    Confined(Confinement),
    /// The reply to an order.
    Reply(Numbered<Result<Reply, TextFailure>>),
}

/// The reply to an order.
#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Card(Box<ModelCard>),
    Extents(Vec<Extent>),
    Prepared,
    Options(Vec<String>),
    Tokens(Vec<u32>),
    Thinking(Option<(Markers, bool)>),
    Counted(u64),
    Texts(String, String),
}
