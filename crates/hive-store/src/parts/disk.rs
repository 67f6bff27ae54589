//! Files below a folder, opened one part of their path after the other: no link on the way, or at its end, is followed.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, statat};

/// The file in a copy's folder with the model's identity.
pub(super) const KNOWN: &str = "known.json";
/// The same from before a power cut took some of it.
pub(super) const WAS_KNOWN: &str = "was-known.json";

/// The purpose of opening a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading an existing file.
    Read,
    /// Reading and writing; it is made, with its folders, if it is not there.
    Write,
}

/// For the user alone.
const PRIVATE_FOLDER: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens `path`, its parts separated by `/`, below `folder`. Anything but a regular file is an error.
pub(crate) fn open(folder: &Path, path: &str, access: Access) -> io::Result<File> {
    let (parent, name) = parent(folder, path, access)?;
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let flags = match access {
        Access::Read => flags | OFlags::RDONLY,
        Access::Write => flags | OFlags::RDWR | OFlags::CREATE,
    };
    let file = File::from(openat(&parent, name, flags, PRIVATE_FILE)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other(format!("{path} is not a file"))) }
}

/// The length of a file, if it is one.
pub(crate) fn length(folder: &Path, path: &str) -> Option<u64> {
    let (parent, name) = parent(folder, path, Access::Read).ok()?;
    let found = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    (FileType::from_raw_mode(found.st_mode) == FileType::RegularFile).then_some(found.st_size as u64)
}

/// The folder that a file is in, and the file's name there.
fn parent<'a>(folder: &Path, path: &'a str, access: Access) -> io::Result<(OwnedFd, &'a str)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parent = openat(CWD, folder, flags, Mode::empty())?;
    let mut rest = path;
    while let Some((next, below)) = rest.split_once('/') {
        if access == Access::Write {
            match mkdirat(&parent, next, PRIVATE_FOLDER) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        parent = openat(&parent, next, flags, Mode::empty())?;
        rest = below;
    }
    Ok((parent, rest))
}
