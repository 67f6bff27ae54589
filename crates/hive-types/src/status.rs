//! A node's status and its notices.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{LoadingView, ModelView, PeerView, Profile};

/// A snapshot of a node: `GET /hive/v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// This machine's key, as text.
    pub id: String,
    /// Its fingerprint: three words.
    pub fingerprint: String,
    /// Its report about itself.
    pub profile: Profile,
    /// Whether its owner turned sharing on; the profile says what prevents it.
    pub share: bool,
    /// Whether its owner has paused sharing.
    pub paused: bool,
    /// The addresses it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Whether discovery on this network runs, or why not.
    pub discovery: String,
    /// The other machines.
    pub peers: Vec<PeerView>,
    /// Announcements excluded from `peers`: too many machines announce themselves, or their addresses are impossible.
    pub left_out: u64,
    /// Tokens generated for people and programs on this machine since the node started.
    pub answered_tokens: u64,
    /// Each machine's work of today for people and programs on this machine.
    pub today: Vec<MachineWork>,
    /// The model in memory, if there is one.
    pub model: Option<ModelView>,
    /// The model that is being fetched or loaded, if there is one: the first of `loads`.
    pub loading: Option<LoadingView>,
    /// All of them, the one that began first first.
    pub loads: Vec<LoadingView>,
}

/// A machine's work on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineWork {
    /// The machine's key, as text.
    pub id: String,
    /// Answers that it took part in.
    pub answers: u64,
    /// Tokens of these answers.
    pub tokens: u64,
}

/// A notice about machines for the owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    /// Increases with each notice, so that a listener can tell which are new.
    pub number: u64,
    /// The machine concerned, as text.
    pub peer: String,
    /// What happened, in words.
    pub text: String,
}

/// An event of `GET /hive/v1/events`: the whole status whenever it has changed, and new notices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Update {
    /// The node's status.
    pub status: Status,
    /// Notices since the last update.
    pub notices: Vec<Notice>,
}

/// The reply to a request that returns nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always true.
    pub done: bool,
}

impl Done {
    /// The only value.
    pub const DONE: Self = Self { done: true };
}
