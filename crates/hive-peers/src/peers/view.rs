//! The machines as people and programs see them.

use hive_net::Link;
use serde::{Deserialize, Serialize};

pub use hive_types::{Notice, Paired, PeerState};

use super::rights::Rights;
use crate::reach::Condition;
use hive_protocol::Profile;

/// A machine, as people and programs see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its key, as text.
    pub id: String,
    /// This owner's name for it, or else its own.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
    /// Its state.
    #[serde(flatten)]
    pub state: PeerState,
    /// How it was approved, if it is.
    pub paired: Option<Paired>,
    /// The path in use, while connected.
    pub link: Option<Link>,
    /// The condition that keeps it away or on a detour, under a name that programs can rely on.
    pub condition: Option<Condition>,
    /// The measured rate of the path in use, in bits per second.
    pub bits_per_s: Option<u64>,
    /// The other measured paths to it.
    pub other_paths: Vec<MeasuredPath>,
    /// Its profile, once it is approved and was heard.
    pub profile: Option<Profile>,
    /// Its rights, once it is approved.
    #[serde(default)]
    pub rights: Option<Rights>,
}

/// A measured path to a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredPath {
    /// The path.
    #[serde(flatten)]
    pub link: Link,
    /// Its rate, in bits per second.
    pub bits_per_s: u64,
}
