//! Why a fetch fails, and whether the disk has room for it.

use std::io;
use std::path::Path;

use crate::beside::beside;
use crate::cache::{LEFT_FREE, free};
use crate::error::{FetchError, HubError};
use crate::file_name::FileName;
use crate::hub::Hub;

/// The folder that a fetch writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    /// The variable of the environment that decides on the folder.
    pub(crate) setting: &'static str,
}

/// Why a file could not be fetched.
#[derive(Debug)]
pub(crate) enum Failure {
    Hub(HubError),
    Disk(io::Error),
    Checksum,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Failure {
    /// The error of a fetch of this file, with `needed` bytes to come.
    pub(crate) fn of(self, hub: &Hub, file: &FileName, place: Place<'_>, needed: u64) -> FetchError {
        match self {
            Self::Hub(error) => error.into(),
            Self::Disk(error) => place.error(needed, &error),
            Self::Checksum => FetchError::Checksum { host: hub.host(), file: file.clone() },
        }
    }
}

impl Place<'_> {
    /// Fails if `needed` bytes do not fit on the disk.
    pub(crate) async fn check_room(self, needed: u64) -> Result<(), FetchError> {
        let folder = self.folder.to_owned();
        let free = beside(move || free(&folder)).await.map_err(|error| self.error(0, &error))?;
        let needed = needed.saturating_add(LEFT_FREE);
        if needed > free { Err(self.full(needed, free)) } else { Ok(()) }
    }

    /// The error for an error of the file system, with `needed` bytes to come.
    pub(crate) fn error(self, needed: u64, error: &io::Error) -> FetchError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.full(needed, free(self.folder).unwrap_or(0))
            }
            kind => {
                let read_only = matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
                let (path, setting) = (self.folder.to_owned(), self.setting);
                FetchError::Cache { path, why: error.to_string(), read_only, setting }
            }
        }
    }

    fn full(self, needed: u64, free: u64) -> FetchError {
        FetchError::DiskFull { folder: self.folder.to_owned(), needed, free, setting: self.setting }
    }
}
