//! What is asked of a confinement, and what has come of it.

use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a process may still do once it is confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confine {
    /// Files, and folders with everything below, that it may read.
    pub read: Vec<PathBuf>,
    /// Where a GPU's driver may keep kernels it has compiled; `None` where no GPU is used.
    pub gpu_cache: Option<PathBuf>,
    /// The most private memory it may have, in bytes. Linux only: macOS does not enforce such a limit.
    pub memory_bytes: Option<u64>,
}

/// What has come of it on this system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Other files can neither be read nor written.
    pub files: bool,
    /// Sockets, programs and other processes are out of reach.
    pub calls: bool,
}

impl Confinement {
    /// Whether everything asked for is in force.
    pub fn is_whole(self) -> bool {
        self.files && self.calls
    }
}

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine this process: {0}")]
pub struct ConfineError(pub(crate) String);

/// How far a process has been confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// As far as this system can.
    Done(Confinement),
    /// Libraries have started threads before it was its turn, and those can still reach files. The process must execute
    /// itself again; threads of its next life are born confined, and [`confine_again`](crate::sandbox::confine_again) does the rest.
    Restart,
}

/// The folders that the loader searches for libraries, as the environment names them.
pub(crate) fn search_path(variable: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(variable).filter(|folder| folder.is_absolute() && folder.parent().is_some())
}
