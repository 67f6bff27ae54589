//! How two approved machines keep in touch: first words, then heartbeats.

use serde::{Deserialize, Serialize};

use crate::Profile;

/// First words between two approved machines. They travel as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Greeting {
    /// Versions of the control protocol spoken, oldest and newest.
    pub speaks: (u32, u32),
    /// Tells one run of a node from the next.
    #[serde(default)]
    #[serde(rename = "life")]
    pub incarnation: u64,
    /// What the machine says of itself.
    pub profile: Profile,
}

/// A heartbeat and its answer, with the profile where it has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// The answer has its heartbeat's number.
    pub number: u32,
    /// JSON, see [`Profile`].
    pub profile: Option<String>,
}
