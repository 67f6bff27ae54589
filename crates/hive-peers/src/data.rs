//! The data folder: holds the state that survives a restart, and is used by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hive_host::folders;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system names no default location.
    #[error("there is no home folder to keep data in; name one with --data-dir")]
    NoHome,
    /// A file or the folder cannot be read or written.
    #[error("cannot use {path} for HiveMind's data: {error}")]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Another process is using it.
    #[error("HiveMind already runs with {path} ({by}); stop it first, or choose another --data-dir")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process.
        by: String,
    },
    /// A file's content is damaged.
    #[error("{path} is damaged ({why}). Restore a backup, or delete it to start fresh")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        why: String,
    },
}

impl DataError {
    /// How to fix it, unless the error says so itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unusable { error, .. } if is_full(error) => Some("free some space on that disk, then try again"),
            Self::Unusable { .. } | Self::NoHome | Self::InUse { .. } | Self::Damaged { .. } => None,
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A change that is in effect, but could not be saved.
#[derive(Debug, thiserror::Error)]
#[error("this counts now, but will not survive a restart, as it could not be saved: {0}")]
pub struct NotKept(#[from] DataError);

impl NotKept {
    /// How to fix it.
    pub fn hint(&self) -> &'static str {
        self.0.hint().unwrap_or("make the data folder writable, then do it again")
    }
}

/// A problem with a data folder that its owner should know of, although the folder works.
#[derive(Debug, thiserror::Error)]
pub enum DataWarning {
    /// Other users of this machine can read it.
    #[error("others on this machine may look into {path}, and it cannot be closed to them: {error}")]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// A file in it cannot be written.
    #[error("{path} cannot be written ({error}); free some space: until then, what changes will not survive a restart")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
}

/// A data folder that this process has locked.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    warnings: Vec<DataWarning>,
    /// Holds the lock.
    _lock: File,
}

impl DataFolder {
    /// Locks the folder, and creates it if it is missing.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let unusable = |error| DataError::Unusable { path: path.to_owned(), error };
        folders::create_private(path).map_err(unusable)?;
        let file = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&file).map_err(unusable)?;
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
        let mut warnings = Vec::new();
        for place in [path, &file] {
            if let Err(error) = folders::make_private(place) {
                warnings.push(DataWarning::Exposed { path: place.to_owned(), error });
            }
        }
        if let Err(error) = folders::remove_half_written(path) {
            tracing::warn!("files that were half written could not be removed: {error}");
        }
        let named = lock.set_len(0).and_then(|()| lock.rewind());
        // On a full disk the lock still works, but does not name its process.
        if let Err(error) = named.and_then(|()| writeln!(lock, "process {}, {name}", std::process::id())) {
            warnings.push(DataWarning::Unwritable { path: file, error });
        }
        Ok(Self { path: path.to_owned(), warnings, _lock: lock })
    }

    /// Problems that its owner should know of.
    pub fn warnings(&self) -> &[DataWarning] {
        &self.warnings
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of this folder; `None` if it was never written.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataError> {
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

    /// Replaces a file of this folder atomically.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataError> {
        let path = self.path.join(name);
        let text = serde_json::to_vec_pretty(value).map_err(std::io::Error::other);
        let written = text.and_then(|text| folders::write_private(&path, &text));
        written.map_err(|error| DataError::Unusable { path, error })
    }
}

/// The file whose lock marks the folder as in use.
const LOCK: &str = "lock";

/// [`is_held`] takes the lock for an instant, so a starting node tries several times.
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

/// Whether a process is using the folder; `None` if the file system cannot tell.
pub fn is_held(folder: &Path) -> Option<bool> {
    let lock = match File::open(folder.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    // A shared lock, so that concurrent checks do not see each other.
    match lock.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// The data folder's default location.
pub fn default_folder() -> Result<PathBuf, DataError> {
    folders::data().ok_or(DataError::NoHome)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    fn the_folder_and_its_lock_are_closed_to_others_and_left_overs_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let lock = folder.path().join("lock");
        std::fs::write(&lock, "").unwrap();
        for (path, mode) in [(folder.path(), 0o755), (lock.as_path(), 0o644)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::write(folder.path().join("peers.json.4711.new"), "{").unwrap();
        let held = DataFolder::open(folder.path()).unwrap();
        assert!(held.warnings().is_empty(), "{:?}", held.warnings());
        assert_eq!((mode(folder.path()), mode(&lock)), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the lock");
    }

    #[test]
    fn a_folder_for_everybody_is_named_and_used() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let held = DataFolder::open(folder.path()).unwrap();
        let [warning @ DataWarning::Exposed { .. }] = held.warnings() else { panic!("{:?}", held.warnings()) };
        assert!(warning.to_string().contains("may look into"), "{warning}");
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
