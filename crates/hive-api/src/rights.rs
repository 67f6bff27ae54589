//! Rights that routes require of a token.
//!
//! The owner's own token has every right. Rights do not imply each other: a program that chats and lists models has
//! both. Each route names its requirement where it is registered ([`crate::routes`]).

use hive_types::Right;

/// The right that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No token.
    Nothing,
    /// A token with at least one of these rights.
    OneOf(&'static [Right]),
}

pub(crate) const CHAT: Needs = Needs::OneOf(&[Right::Chat]);
pub(crate) const MODELS: Needs = Needs::OneOf(&[Right::Models]);
pub(crate) const MACHINES: Needs = Needs::OneOf(&[Right::Machines]);
/// Chat programs fill their model pickers from such routes.
pub(crate) const CHAT_OR_MODELS: Needs = Needs::OneOf(&[Right::Chat, Right::Models]);
pub(crate) const CONVERSATIONS: Needs = Needs::OneOf(&[Right::Conversations, Right::Admin]);
pub(crate) const ADMIN: Needs = Needs::OneOf(&[Right::Admin]);
