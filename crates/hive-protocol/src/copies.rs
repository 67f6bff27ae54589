//! A model on a machine's disk, as it tells others.

use serde::{Deserialize, Serialize};

/// A model on a machine's disk, as it tells others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCopy {
    /// What it is called there; nothing for a file that has no name but its path, which is told to nobody.
    pub name: Option<String>,
    /// Tells whether it is the same elsewhere; nothing where it cannot be used.
    pub digest: Option<String>,
}
