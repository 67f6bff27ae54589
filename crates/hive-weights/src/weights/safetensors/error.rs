//! Errors of a model folder, worded for the person who put it there.

use std::path::PathBuf;

/// Why a folder is not a usable model.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Listing or reading failed.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder has no weights.
    #[error("{0} holds no .safetensors file")]
    Empty(PathBuf),
    /// The weights are in another format.
    #[error(
        "{folder} has its weights in {file}; HiveMind reads .safetensors and .gguf files, so take a model that has these"
    )]
    Foreign {
        /// The model.
        folder: PathBuf,
        /// One of the files.
        file: String,
    },
    /// A dangling link: a cache whose downloads were deleted, or a folder copied without them.
    #[error("{file} is a link to a file that is not there; download the model again")]
    Dangling {
        /// The link.
        file: PathBuf,
    },
    /// The file ends before its header begins.
    #[error("{file} has only {bytes} bytes: it is truncated, or was downloaded only in part")]
    Short {
        /// The file.
        file: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The header's length is impossible.
    #[error("{file}: the header claims {claimed} bytes, more than the file holds or the format allows")]
    HeaderLength {
        /// The file.
        file: PathBuf,
        /// The length it claims.
        claimed: u64,
    },
    /// The header is not valid.
    #[error("{file}: the header is corrupt: {why}")]
    Header {
        /// The file.
        file: PathBuf,
        /// The parser's message.
        why: String,
    },
    /// A file named in the index is missing.
    #[error("{file} is missing, but the index lists it; download the model again")]
    NoShard {
        /// The file.
        file: PathBuf,
    },
    /// The index is not valid.
    #[error("{file}: the index is corrupt: {why}")]
    Index {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: String,
    },
    /// Two files hold a tensor with the same name.
    #[error("{file} and {other} both hold \"{name}\"; remove the one that does not belong to the model")]
    Twice {
        /// The tensor.
        name: String,
        /// A file.
        file: PathBuf,
        /// The other file.
        other: PathBuf,
    },
    /// A Git LFS pointer instead of the file.
    #[error("{file} is a Git LFS pointer, not the file itself; run `git lfs pull`")]
    Pointer {
        /// The file.
        file: PathBuf,
    },
    /// There is less or more data than the header describes.
    #[error("{file} has {found} bytes of tensors where its header describes {expected}: it is truncated or corrupt")]
    DataLength {
        /// The file.
        file: PathBuf,
        /// Bytes after the header.
        found: u64,
        /// Bytes the header describes.
        expected: u64,
    },
}
