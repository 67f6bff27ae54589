//! The lock of a blob, which `huggingface_hub` takes too: whoever holds it writes the blob, the others wait.

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

    fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        // Several people may share a cache.
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o664).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Some(Self { _file: None }));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Others may have removed the file since it was opened: then they hold the lock of another one.
        let is_same = fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
        Ok(is_same.then_some(Self { _file: Some(file) }))
    }
}
