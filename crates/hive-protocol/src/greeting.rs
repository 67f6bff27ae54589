//! The messages of presence: greetings, then heartbeats.

use serde::{Deserialize, Serialize};

use crate::Profile;

/// A greeting between two approved machines, sent as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Greeting {
    /// Versions of the control protocol that the sender speaks, oldest and newest.
    pub speaks: (u32, u32),
    /// Distinguishes one run of the node from the next.
    #[serde(default)]
    #[serde(rename = "life")]
    pub incarnation: u64,
    /// The sender's profile.
    pub profile: Profile,
}

/// A heartbeat or its reply, with the profile if it has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// A reply has the number of its heartbeat.
    pub number: u32,
    /// A [`Profile`] as JSON.
    pub profile: Option<String>,
}
