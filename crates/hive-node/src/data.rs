//! The data folder: what must not be lost, and one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hive_host::folders;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system does not say where it would be.
    #[error("there is no home folder to keep data in; name one with --data-dir")]
    NoHome,
    /// It cannot be written.
    #[error("cannot use {path} for HiveMind's data: {error}")]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another process has it.
    #[error("HiveMind already runs with {path} ({by}); stop it first, or choose another --data-dir")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who.
        by: String,
    },
    /// A file is not what was written.
    #[error("{path} is damaged ({why}); put back a copy of it, or remove it to begin without what it held")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A data folder, held by this process.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// The lock lives as long as this.
    _lock: File,
}

impl DataFolder {
    /// Takes the folder, and makes it where it is missing.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let unusable = |error| DataError::Unusable { path: path.to_owned(), error };
        folders::create_private(path).map_err(unusable)?;
        let file = path.join(LOCK);
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file).map_err(unusable)?;
        match lock_in_time(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut by = String::new();
                let _ = lock.read_to_string(&mut by);
                let by = if by.is_empty() { "another process".to_owned() } else { by.trim().to_owned() };
                return Err(DataError::InUse { path: path.to_owned(), by });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let name = std::env::current_exe().ok();
        let name = name.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        lock.set_len(0).map_err(unusable)?;
        lock.rewind().map_err(unusable)?;
        writeln!(lock, "process {}, {name}", std::process::id()).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of this folder; `None` where it has never been written.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataError> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(DataError::Damaged { path, why: error.to_string() }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DataError::Unusable { path, error }),
        }
    }

    /// Replaces a file of this folder, all at once.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataError> {
        let path = self.path.join(name);
        let text = serde_json::to_vec_pretty(value).map_err(std::io::Error::other);
        let written = text.and_then(|text| folders::write_private(&path, &text));
        written.map_err(|error| DataError::Unusable { path, error })
    }
}

/// The file whose lock says that a process has the folder.
const LOCK: &str = "lock";

/// [`is_held`] has the lock for an instant; that does not keep a node from starting.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn lock_in_time(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            locked => return locked,
        }
    }
    lock.try_lock()
}

/// Whether a process holds the folder now; `None` where the file system does not tell.
pub fn is_held(folder: &Path) -> Option<bool> {
    let lock = match File::open(folder.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    // Shared, so that two who ask at once do not see each other.
    match lock.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// Where data is kept unless somebody says otherwise.
pub fn default_folder() -> Result<PathBuf, DataError> {
    folders::data().ok_or(DataError::NoHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_the_other_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataFolder::open(folder.path()).unwrap();
        let message = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(held);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn who_asks_whether_a_folder_is_held_does_not_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_held(folder.path()), Some(false));
        let held = DataFolder::open(folder.path()).unwrap();
        assert_eq!(is_held(folder.path()), Some(true));
        drop(held);
        assert_eq!(is_held(folder.path()), Some(false));
        // Somebody asks at the very moment of a start.
        let asking = File::open(folder.path().join(LOCK)).unwrap();
        asking.lock_shared().unwrap();
        std::thread::scope(|scope| {
            let start = scope.spawn(|| DataFolder::open(folder.path()).map(|_| ()));
            std::thread::sleep(LOCK_PAUSE * 2);
            drop(asking);
            start.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        assert_eq!(data.read::<Vec<u32>>("x.json").unwrap(), None);
        data.write("x.json", &vec![1u32, 2]).unwrap();
        assert_eq!(data.read::<Vec<u32>>("x.json").unwrap(), Some(vec![1, 2]));
        std::fs::write(folder.path().join("x.json"), "[1, 2").unwrap();
        let message = data.read::<Vec<u32>>("x.json").unwrap_err().to_string();
        assert!(message.contains("x.json is damaged"), "{message}");
        assert_eq!(std::fs::read_to_string(folder.path().join("x.json")).unwrap(), "[1, 2");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let message = DataFolder::open(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(message.contains("/proc/nowhere"), "{message}");
    }
}
