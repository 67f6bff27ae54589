//! The name of a session.

use serde::{Deserialize, Serialize};

/// Identifies a session on all stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u128);
