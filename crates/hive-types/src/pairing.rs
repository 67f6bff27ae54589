//! Pairing and invitations.

use serde::{Deserialize, Serialize};

/// The code that both machines show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingCode {
    /// The other machine's key, as text.
    pub id: String,
    /// The six digits, as "482 915".
    pub code: String,
}

/// This owner's approval: `POST /hive/v1/peers/{who}/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The code that both machines show, which the owner has compared.
    pub code: String,
}

/// Requests an invitation: `POST /hive/v1/invites`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRequest {
    /// Validity in seconds; `None` is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_for_s: Option<u64>,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The ticket for the other machine's owner.
    pub ticket: String,
    /// Validity in seconds.
    pub valid_for_s: u64,
}

/// Accepts an invitation: `POST /hive/v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The ticket.
    pub ticket: String,
}
