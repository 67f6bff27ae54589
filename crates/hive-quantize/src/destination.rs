//! The folder that is written: under another name until it is whole.
//!
//! While it is written, it is `NAME.partial` with a marker in it, which is locked. A run that was killed leaves both, and
//! the next one starts over: it removes what is marked and not locked, and nothing else.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::QuantizeError;

/// In the unfinished folder, so that nobody else's is taken for one.
const MARKER: &str = ".hivemind-quantizing";

/// An unfinished output folder.
#[derive(Debug)]
pub(crate) struct Destination {
    to: PathBuf,
    partial: PathBuf,
    /// Locked for as long as it is open.
    marker: File,
    finished: bool,
}

/// The unfinished folder's path, if there is nothing in the way of the finished one.
pub(crate) fn free(to: &Path) -> Result<PathBuf, QuantizeError> {
    match (to.file_name(), to.symlink_metadata()) {
        (Some(name), Err(error)) if error.kind() == ErrorKind::NotFound => {
            let mut name = name.to_owned();
            name.push(".partial");
            Ok(to.with_file_name(name))
        }
        (Some(_), Err(source)) => Err(QuantizeError::Write { path: to.to_owned(), source }),
        _ => Err(QuantizeError::Exists(to.to_owned())),
    }
}

impl Destination {
    /// Begins a folder. What an earlier run left is removed.
    pub(crate) fn begin(to: &Path) -> Result<Self, QuantizeError> {
        let partial = free(to)?;
        let write = |source| QuantizeError::Write { path: partial.clone(), source };
        clear(&partial)?;
        if let Some(parent) = partial.parent() {
            std::fs::create_dir_all(parent).map_err(write)?;
        }
        std::fs::create_dir(&partial).map_err(write)?;
        let marker = File::create_new(partial.join(MARKER)).inspect_err(|_| {
            let _ = std::fs::remove_dir(&partial);
        });
        let marker = marker.map_err(write)?;
        let begun = Self { to: to.to_owned(), partial, marker, finished: false };
        taken(begun.marker.try_lock(), &begun.partial)?;
        Ok(begun)
    }

    /// Where a file of it is now.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Gives it its name. Everything in it is on the disk.
    pub(crate) fn finish(mut self) -> Result<(), QuantizeError> {
        let write = |source| QuantizeError::Write { path: self.to.clone(), source };
        File::open(&self.partial).and_then(|folder| folder.sync_all()).map_err(write)?;
        // Renaming would replace an empty folder.
        free(&self.to)?;
        std::fs::rename(&self.partial, &self.to).map_err(write)?;
        self.finished = true;
        // Left behind, it would harm nothing.
        let _ = std::fs::remove_file(self.to.join(MARKER));
        if let Some(parent) = self.to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let _ = File::open(parent).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_dir_all(&self.partial);
        }
    }
}

/// Whether the lock of an unfinished folder was taken. Some network volumes have no locks; there, nobody is known to hold
/// it.
fn taken(tried: Result<(), TryLockError>, partial: &Path) -> Result<(), QuantizeError> {
    match tried {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(QuantizeError::Busy(partial.to_owned())),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(source)) => Err(QuantizeError::Write { path: partial.to_owned(), source }),
    }
}

/// Removes what an earlier run left there.
fn clear(partial: &Path) -> Result<(), QuantizeError> {
    let write = |source| QuantizeError::Write { path: partial.to_owned(), source };
    match partial.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(write(error)),
        Ok(_) => {}
    }
    let path = partial.join(MARKER);
    let is_marked = path.symlink_metadata().is_ok_and(|about| about.is_file());
    if partial.is_symlink() || !is_marked {
        return Err(QuantizeError::InTheWay(partial.to_owned()));
    }
    let marker = File::open(&path).map_err(write)?;
    taken(marker.try_lock(), partial)?;
    std::fs::remove_dir_all(partial).map_err(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_without_locks_is_written_to_and_one_whose_locks_fail_is_not() {
        let tried = |kind: ErrorKind| taken(Err(TryLockError::Error(kind.into())), Path::new("to.partial"));
        assert!(tried(ErrorKind::Unsupported).is_ok());
        assert!(matches!(tried(ErrorKind::StorageFull), Err(QuantizeError::Write { .. })));
        let busy = taken(Err(TryLockError::WouldBlock), Path::new("to.partial")).unwrap_err();
        assert_eq!(busy.to_string(), "another process is writing to.partial");
    }
}
