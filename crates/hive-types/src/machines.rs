//! Other machines, and the requests about them.

use serde::{Deserialize, Serialize};

use crate::{Absence, Condition, Profile, if_known};

/// Another machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerView {
    /// Its key, as text.
    pub id: String,
    /// This owner's name for it, else the name it gives itself.
    pub name: String,
    /// Its fingerprint: three words.
    pub fingerprint: String,
    /// Its state, as seen from this machine.
    #[serde(flatten)]
    pub state: PeerState,
    /// How it was approved, if it was.
    pub paired: Option<Paired>,
    /// The path in use, while it is connected.
    pub link: Option<Link>,
    /// A problem with its connection.
    pub condition: Option<Condition>,
    /// Measured rate of the path in use, in bits per second.
    pub bits_per_s: Option<u64>,
    /// Its other measured paths.
    pub other_paths: Vec<MeasuredPath>,
    /// Its profile, once approved and received.
    pub profile: Option<Profile>,
    /// Its rights on this machine, once approved.
    pub rights: Option<Rights>,
}

/// A machine's state, as seen from this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PeerState {
    /// It announces itself; no pairing has begun.
    #[default]
    Found,
    /// Both machines show a code, and the owners decide.
    Pending {
        /// The six digits, as "482 915".
        code: String,
        /// Whether the other machine asked first.
        #[serde(default)]
        asked_by_them: bool,
        /// Whether this owner has approved; the other's decision is pending.
        #[serde(default)]
        approved_here: bool,
    },
    /// Approved and online.
    Approved,
    /// Approved, but it does not answer.
    Unreachable {
        /// The likely reason, in words.
        why: String,
        /// The same reason, as a value.
        #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
        absence: Option<Absence>,
        /// Since when, in seconds since 1970; 0 if that is not known.
        #[serde(default)]
        since: u64,
    },
    /// It may not even pair.
    Blocked,
    /// Added by a newer version.
    #[serde(other)]
    Unknown,
}

/// How a machine was approved, for comparing the code again later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paired {
    /// The six digits that both owners compared, as "482 915"; `None` if approved by a version that did not keep them.
    pub code: Option<String>,
    /// When, in seconds since 1970.
    pub at_s: u64,
}

/// A path to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Its kind.
    pub kind: LinkKind,
    /// The other end: a socket address, or a relay.
    pub remote: String,
    /// Round trip in microseconds.
    pub round_trip_us: u64,
}

/// The kind of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Within this machine.
    Loopback,
    /// A Thunderbolt cable.
    Thunderbolt,
    /// An Ethernet cable.
    Ethernet,
    /// Wi-Fi.
    Wifi,
    /// Another program's tunnel.
    Vpn,
    /// A relay server.
    Relay,
    /// Through a router, or an interface of unknown kind.
    #[default]
    #[serde(other)]
    Other,
}

impl LinkKind {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Thunderbolt => "thunderbolt",
            Self::Ethernet => "ethernet",
            Self::Wifi => "wifi",
            Self::Vpn => "vpn",
            Self::Relay => "relay",
            Self::Other => "other",
        }
    }
}

/// A measured path to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasuredPath {
    /// The path.
    #[serde(flatten)]
    pub link: Link,
    /// Its rate in bits per second.
    pub bits_per_s: u64,
}

/// The rights and limits of an approved machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// It may use this machine's memory for layers of its models.
    pub memory: bool,
    /// It may see this machine's prompts: it may hold layers of the models that answer here.
    pub prompts: bool,
    /// Memory limit for its layers here, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Limit of its concurrent answers here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_limit: Option<u32>,
}

impl Default for Rights {
    fn default() -> Self {
        Self { memory: true, prompts: true, memory_limit_bytes: None, session_limit: None }
    }
}

/// Changes to a machine's rights: `POST /hive/v1/peers/{who}/rights`. Missing fields stay unchanged; a limit of 0
/// removes the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RightsChange {
    /// Whether it may use this machine's memory.
    pub memory: Option<bool>,
    /// Whether it may see this owner's prompts.
    pub prompts: Option<bool>,
    /// Memory limit for its layers here, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Limit of its concurrent answers here.
    pub session_limit: Option<u32>,
}

/// A new name for a machine: `POST /hive/v1/peers/{who}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerName {
    /// The name.
    pub name: String,
}
