//! The lock of a blob, which `huggingface_hub` takes too, or of a copy of parts: its holder writes, and others wait.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::beside::beside;

/// How often a lock that another program holds is tried. The system cannot wake us without a thread that waits.
const POLL: Duration = Duration::from_millis(100);

/// A held lock; given back when it is dropped, and by the system when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    /// `None` on a file system without locks. There two programs may do the work twice, and the checksum decides.
    _file: Option<File>,
}

impl Lock {
    /// Takes the lock at `path`; calls `on_wait` once if another program holds it.
    pub(crate) async fn take(path: &Path, on_wait: impl FnOnce()) -> io::Result<Self> {
        let mut on_wait = Some(on_wait);
        loop {
            let of_path = path.to_owned();
            if let Some(lock) = beside(move || Self::try_take(&of_path)).await? {
                return Ok(lock);
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes the lock at `path`, and blocks the thread while another holds it.
    pub(crate) fn wait(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            match file.lock() {
                Ok(()) if is_at(&file, path) => return Ok(Self { _file: Some(file) }),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Self { _file: None }),
                Err(error) => return Err(error),
            }
        }
    }

    fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Some(Self { _file: None }));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(is_at(&file, path).then_some(Self { _file: Some(file) }))
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Several people may share a cache.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o664).open(path)
}

/// Whether this file is still the one at `path`: others may have removed it since, and hold the lock of another one.
fn is_at(file: &File, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()))
}
