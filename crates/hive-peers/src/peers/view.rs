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
    /// What this owner calls it, else what it calls itself.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: PeerState,
    /// How it was approved, if it was.
    pub paired: Option<Paired>,
    /// The path in use, while it is connected.
    pub link: Option<Link>,
    /// What keeps it away or on a detour, by a name that programs can rely on.
    pub condition: Option<Condition>,
    /// What the path in use carries, in bits per second, once measured.
    pub bits_per_s: Option<u64>,
    /// The other paths to it that were measured.
    pub other_paths: Vec<MeasuredPath>,
    /// What it says of itself, once approved and heard.
    pub profile: Option<Profile>,
    /// What it may do here, and see, once approved.
    #[serde(default)]
    pub rights: Option<Rights>,
}

/// A path to a machine, as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredPath {
    /// The path.
    #[serde(flatten)]
    pub link: Link,
    /// What it carries, in bits per second.
    pub bits_per_s: u64,
}
