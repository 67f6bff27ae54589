//! The machines as people and programs see them.

use hive_net::Link;
use serde::{Deserialize, Serialize};

use super::rights::Rights;
use crate::reach::Condition;
use hive_protocol::Profile;

/// How a machine stands to this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PeerState {
    /// It announces itself; nothing has been asked yet.
    Found,
    /// A code is shown on both machines, and the owners decide.
    Pending {
        /// The six digits, as "482 915".
        code: String,
        /// Whether the other machine asked first.
        asked_by_them: bool,
        /// Whether this owner has approved and the other's decision is awaited.
        approved_here: bool,
    },
    /// It is in, and answers.
    Approved,
    /// It is in, and does not answer.
    Unreachable {
        /// Why, as far as one can tell.
        why: String,
        /// Since when, in seconds since 1970.
        since: u64,
    },
    /// It is refused everything.
    Blocked,
}

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

/// How a machine was approved, to be compared again later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The six digits that both owners compared, as "482 915"; `None` where it was approved before they were remembered.
    pub code: Option<String>,
    /// When, in seconds since 1970.
    pub at_s: u64,
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

/// Something about machines that an owner should hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Counts up, so that a listener can tell what is new.
    pub number: u64,
    /// The machine concerned, as text.
    pub peer: String,
    /// What happened, in words.
    pub text: String,
}
