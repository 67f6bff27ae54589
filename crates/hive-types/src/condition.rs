//! What is in the way of a connection, and the remedy.

use serde::{Deserialize, Serialize};

/// A problem with a connection.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// macOS has not granted this program access to the local network.
    LocalNetworkDenied,
    /// The machine announces itself on this network, but nothing else gets through.
    Firewalled,
    /// Both machines are on one network but talk through a relay.
    RelayedNearby,
    /// Added by a newer version.
    #[cfg_attr(feature = "specta", specta(skip))]
    #[serde(other)]
    Unknown,
}

impl Condition {
    /// The problem and its remedy, in a sentence or two.
    pub fn explain(self) -> &'static str {
        match self {
            Self::LocalNetworkDenied => {
                "macOS keeps HiveMind from the local network. Open System Settings, Privacy & Security, Local Network, \
                 and switch HiveMind on"
            }
            Self::Firewalled => {
                "it announces itself but does not answer: a firewall on one of the two machines stops UDP, or the Wi-Fi \
                 isolates its guests"
            }
            Self::RelayedNearby => {
                "both machines are on this network but can only talk through a relay: a firewall on one of them stops \
                 UDP"
            }
            Self::Unknown => "something is in the way that only a newer version of HiveMind knows",
        }
    }
}
