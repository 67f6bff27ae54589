//! Why a fetch fails, and whether the disk has room for it.

use std::io;
use std::path::Path;

use crate::beside::beside;
use crate::cache::{LEFT_FREE, free};
use crate::error::{FetchError, HubError};
use crate::file_name::FileName;
use crate::hub::Hub;

/// Why a file did not come.
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
    /// What it means for a fetch of this file into `folder`, with `needed` bytes to come.
    pub(crate) fn of(self, hub: &Hub, file: &FileName, folder: &Path, needed: u64) -> FetchError {
        match self {
            Self::Hub(error) => error.into(),
            Self::Disk(error) => disk_error(folder, needed, &error),
            Self::Checksum => FetchError::Checksum { host: hub.host(), file: file.clone() },
        }
    }
}

/// Fails if `needed` bytes do not fit on the disk of a folder.
pub(crate) async fn check_room(folder: &Path, needed: u64) -> Result<(), FetchError> {
    let of_folder = folder.to_owned();
    let free = beside(move || free(&of_folder)).await.map_err(|error| disk_error(folder, 0, &error))?;
    let needed = needed.saturating_add(LEFT_FREE);
    if needed > free { Err(FetchError::DiskFull { folder: folder.to_owned(), needed, free }) } else { Ok(()) }
}

/// What an error of the file system means.
pub(crate) fn disk_error(folder: &Path, needed: u64, error: &io::Error) -> FetchError {
    let path = folder.to_owned();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            FetchError::DiskFull { folder: path, needed, free: free(folder).unwrap_or(0) }
        }
        kind => {
            let read_only = matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
            FetchError::Cache { path, why: error.to_string(), read_only }
        }
    }
}
