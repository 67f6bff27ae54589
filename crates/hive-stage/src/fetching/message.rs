//! The messages that carry a model to another machine: its outline, or bytes of its files.

use hive_store::{FileName, Manifest};
use hive_worker::Raw;
use serde::{Deserialize, Serialize};

/// Bytes of a file in one message.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;

/// The reason given for a machine that does not finish.
pub(crate) const STOPPED: &str = "it stopped sending; it may have left, or HiveMind was restarted there";

/// A message on a stream that was opened with `Request::Outline` or `Request::Bytes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum TransferMessage {
    /// The model's files. Comes first in an outline.
    Manifest(Box<Manifest>),
    /// Whole blocks of a file, from an offset on.
    Piece {
        /// The file.
        file: FileName,
        /// The offset of the first byte.
        at: u64,
        /// The contents.
        bytes: Raw,
    },
    /// The transfer is complete.
    End,
    /// The sender does not have the model, or the receiver may not have it.
    Nothing,
}
