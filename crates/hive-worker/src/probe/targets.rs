//! The targets of a probe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The targets that a probe tries to access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// A file or folder that it was not given.
    pub secret: PathBuf,
    /// A folder that anyone may write to.
    pub folder: PathBuf,
}
