//! How machines get to know each other.

use serde::{Deserialize, Serialize};

/// A code is shown on both machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingCode {
    /// The other machine's key, as text.
    pub id: String,
    /// The six digits, as "482 915".
    pub code: String,
}

/// The owner lets a machine in: `POST /hive/v1/peers/{who}/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// As both machines show it. Whoever approves has looked.
    pub code: String,
}

/// An invitation is wanted: `POST /hive/v1/invites`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRequest {
    /// How long it is valid, in seconds; `None` is as long as is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_for_s: Option<u64>,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// What the other machine's owner needs.
    pub ticket: String,
    /// How long it is valid, in seconds.
    pub valid_for_s: u64,
}

/// An invitation is accepted: `POST /hive/v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The invitation.
    pub ticket: String,
}
