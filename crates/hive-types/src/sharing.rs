//! What the owner gives the swarm.

use serde::{Deserialize, Serialize};

use crate::Status;

/// What the owner wants of sharing from now on: `POST /hive/v1/sharing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SharingChange {
    /// On or off.
    Share(bool),
    /// Not for this number of minutes; 0 ends a pause.
    PauseMinutes(u32),
    /// At most this much memory, in bytes; `None` is as much as the settings say.
    MemoryBytes(Option<u64>),
}

/// How it is now, and what of it will not survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharingReply {
    /// How the node is now.
    #[serde(flatten)]
    pub status: Status,
    /// Why the change will not survive a restart, if it will not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
}
