//! A model on a machine's disk, as the machine reports it.

use serde::{Deserialize, Serialize};

/// A model on a machine's disk, as the machine reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCopy {
    /// Its name there; `None` for a file known only by its path, which is never sent.
    pub name: Option<String>,
    /// Identifies its content across machines; `None` if the machine cannot use it.
    pub digest: Option<String>,
}
