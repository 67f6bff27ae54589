//! Opens a model's files, and only regular ones.
//!
//! A folder may hold a pipe that never opens, an endless device, or a link to one. Links to regular files are fine: the
//! download cache consists of them.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file; also returns its length.
pub fn open(path: &Path) -> std::io::Result<(File, u64)> {
    // A pipe without a writer would block.
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// Reads a regular file of at most this many bytes. Virtual files (`/proc`) report no length and count as empty.
pub fn read(path: &Path, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
    let (file, length) = open(path)?;
    if length > limit_bytes {
        let why = format!("it has {length} bytes; more than {limit_bytes} are not accepted");
        return Err(Error::new(ErrorKind::InvalidData, why));
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a file is a Git LFS pointer instead of the large file itself.
pub fn is_lfs_pointer(path: &Path) -> bool {
    read(path, 1024).is_ok_and(|text| text.starts_with(LFS_POINTER))
}

/// The error for a pointer.
pub const IS_LFS_POINTER: &str = "it is a Git LFS pointer, not the file itself; run `git lfs pull`";

/// The first bytes of a Git LFS pointer.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_and_folders_are_refused_without_waiting_and_links_to_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link, file) = (folder.path().join("pipe"), folder.path().join("link"), folder.path().join("file"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [pipe.as_path(), Path::new("/dev/zero"), folder.path()] {
            assert!(read(path, 100).is_err(), "{path:?}");
        }
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert!(read(&link, 100).is_err());
        std::fs::write(&file, b"text").unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read(&link, 4).unwrap(), b"text");
        assert!(read(&link, 3).unwrap_err().to_string().contains("4 bytes"));
    }
}
