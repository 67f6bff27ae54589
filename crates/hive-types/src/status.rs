//! How a node is, and what happens to it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{LoadingView, ModelView, PeerView, Profile};

/// How a node is, at one moment: `GET /hive/v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// This machine's key, as text.
    pub id: String,
    /// Three words of it.
    pub fingerprint: String,
    /// What it says of itself.
    pub profile: Profile,
    /// Whether its owner wants it to share; what keeps it from that is in the profile.
    pub share: bool,
    /// Whether its owner has paused sharing for now.
    pub paused: bool,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Whether machines on this network are searched for, or why not.
    pub discovery: String,
    /// The other machines.
    pub peers: Vec<PeerView>,
    /// Announcements that are not among them: too many machines announce themselves, or from where none can be.
    pub left_out: u64,
    /// Tokens of answers to people and programs here, since the node started.
    pub answered_tokens: u64,
    /// The model in memory, if there is one.
    pub model: Option<ModelView>,
    /// The model on its way into memory, if there is one.
    pub loading: Option<LoadingView>,
}

/// Something about machines that an owner should hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// Counts up, so that a listener can tell what is new.
    pub number: u64,
    /// The machine concerned, as text.
    pub peer: String,
    /// What happened, in words.
    pub text: String,
}

/// What a listener of `GET /hive/v1/events` hears: the whole status whenever something in it has changed, and notices as
/// they come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Update {
    /// How the node is now.
    pub status: Status,
    /// What has happened since the last update.
    pub notices: Vec<Notice>,
}

/// It is done, and there is nothing else to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always true.
    pub done: bool,
}

impl Done {
    /// It is.
    pub const DONE: Self = Self { done: true };
}
