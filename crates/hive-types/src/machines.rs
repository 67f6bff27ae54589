//! The machines, as people and programs see them.

use serde::{Deserialize, Serialize};

use crate::Profile;

/// A machine, as people and programs see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerView {
    /// Its key, as text.
    pub id: String,
    /// What this owner calls it, else what it calls itself.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
    /// How it stands to this one.
    #[serde(flatten)]
    pub state: PeerState,
    /// How it was approved, if it was.
    pub paired: Option<Paired>,
    /// The path in use, while it is connected.
    pub link: Option<Link>,
    /// What keeps it away or on a detour.
    pub condition: Option<Condition>,
    /// What the path in use carries, in bits per second, once measured.
    pub bits_per_s: Option<u64>,
    /// The other paths to it that were measured.
    pub other_paths: Vec<MeasuredPath>,
    /// What it says of itself, once approved and heard.
    pub profile: Option<Profile>,
    /// What it may do here, and see, once approved.
    pub rights: Option<Rights>,
}

/// How a machine stands to this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PeerState {
    /// It announces itself; nothing has been asked yet.
    #[default]
    Found,
    /// A code is shown on both machines, and the owners decide.
    Pending {
        /// The six digits, as "482 915".
        code: String,
        /// Whether the other machine asked first.
        #[serde(default)]
        asked_by_them: bool,
        /// Whether this owner has approved and the other's decision is awaited.
        #[serde(default)]
        approved_here: bool,
    },
    /// It is in, and answers.
    Approved,
    /// It is in, and does not answer.
    Unreachable {
        /// Why, as far as one can tell.
        why: String,
        /// Since when, in seconds since 1970.
        #[serde(default)]
        since: u64,
    },
    /// It is refused everything.
    Blocked,
    /// Something that only a newer version knows.
    #[serde(other)]
    Unknown,
}

/// How a machine was approved, to be compared again later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paired {
    /// The six digits that both owners compared, as "482 915"; `None` where it was approved before they were remembered.
    pub code: Option<String>,
    /// When, in seconds since 1970.
    pub at_s: u64,
}

/// A path to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// What it is made of.
    pub kind: LinkKind,
    /// The other end: a socket address, or a relay.
    pub remote: String,
    /// Round trip in microseconds.
    pub round_trip_us: u64,
}

/// What a path is made of.
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
    /// A tunnel of another program.
    Vpn,
    /// A relay server.
    Relay,
    /// Through a router, or an interface of no known kind.
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

/// A path to a machine, as it was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasuredPath {
    /// The path.
    #[serde(flatten)]
    pub link: Link,
    /// What it carries, in bits per second.
    pub bits_per_s: u64,
}

/// Something that keeps machines apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// macOS has not been told that this program may talk to the local network.
    LocalNetworkDenied,
    /// The machine is on this network and announces itself, but nothing else comes through.
    Firewalled,
    /// The two machines are on one network but talk through a relay.
    RelayedNearby,
    /// Something that only a newer version knows.
    #[serde(other)]
    Unknown,
}

impl Condition {
    /// What it is and what to do, in a sentence or two.
    pub fn explain(self) -> &'static str {
        match self {
            Self::LocalNetworkDenied => {
                "macOS keeps HiveMind from the local network. Open System Settings, Privacy & Security, Local Network, \
                 and switch HiveMind on"
            }
            Self::Firewalled => {
                "it announces itself but does not answer: a firewall on one of the two machines stops UDP, or the Wi-Fi \
                 keeps its guests apart"
            }
            Self::RelayedNearby => {
                "both machines are on this network but can only talk through a relay: a firewall on one of them stops \
                 UDP"
            }
            Self::Unknown => "something keeps it away that only a newer version knows",
        }
    }
}

/// What an approved machine may do, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// It may use this machine's memory: have layers of its models here.
    pub memory: bool,
    /// It may see this machine's prompts: hold layers of the models that answer here.
    pub prompts: bool,
    /// The most memory that its layers may take here, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// The most answers of its that are computed here at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_limit: Option<u32>,
}

impl Default for Rights {
    fn default() -> Self {
        Self { memory: true, prompts: true, memory_limit_bytes: None, session_limit: None }
    }
}

/// What changes of a machine's rights: `POST /hive/v1/peers/{who}/rights`. What is missing stays as it is; a limit of 0
/// ends the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RightsChange {
    /// Whether it may use this machine's memory.
    pub memory: Option<bool>,
    /// Whether it may see this owner's prompts.
    pub prompts: Option<bool>,
    /// The most memory that its layers may take here, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// The most answers of its that are computed here at a time.
    pub session_limit: Option<u32>,
}

/// What a machine is called from now on: `POST /hive/v1/peers/{who}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerName {
    /// The name.
    pub name: String,
}
