//! The request for a confinement, and its result.

use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The access that a confined process still has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confine {
    /// Files and folder trees it may read.
    pub read: Vec<PathBuf>,
    /// Where a GPU driver may cache compiled kernels; `None` without a GPU.
    pub gpu_cache: Option<PathBuf>,
    /// Limit on private memory, in bytes. Linux only: macOS does not enforce one.
    pub memory_bytes: Option<u64>,
}

/// The confinement in force on this system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// All other files can be neither read nor written.
    pub files: bool,
    /// Sockets, programs and other processes are unreachable.
    pub calls: bool,
}

impl Confinement {
    /// Whether every part is in force.
    pub fn is_whole(self) -> bool {
        self.files && self.calls
    }
}

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine this process: {0}")]
pub struct ConfineError(pub(crate) String);

/// The progress of a confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Confined as far as this system can.
    Done(Confinement),
    /// Libraries have already started threads, which can still reach files. The process must execute itself again; its
    /// new threads start confined, and [`confine_again`](crate::sandbox::confine_again) completes the rest.
    Restart,
}

/// Absolute folders in the loader's library search path.
pub(crate) fn search_path(variable: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(variable).filter(|folder| folder.is_absolute() && folder.parent().is_some())
}
