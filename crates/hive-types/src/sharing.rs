//! Sharing: the memory that the owner offers the swarm.

use serde::{Deserialize, Serialize};

use crate::Status;

/// A change to sharing: `POST /hive/v1/sharing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SharingChange {
    /// Turns sharing on or off.
    Share(bool),
    /// Pauses sharing for this many minutes; 0 ends a pause.
    PauseMinutes(u32),
    /// Memory limit in bytes; `None` restores the one in the settings.
    MemoryBytes(Option<u64>),
}

/// The status after a change to sharing, and whether the change was saved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharingReply {
    /// The node's status.
    #[serde(flatten)]
    pub status: Status,
    /// Why the change will not survive a restart, if it will not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
}
