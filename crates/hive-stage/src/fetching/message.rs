//! What a machine sends of a model: its outline, or bytes of its files.

use hive_store::{FileName, Manifest};
use hive_worker::Raw;
use serde::{Deserialize, Serialize};

/// Bytes of a file in one message.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;

/// What is said of a machine that does not finish.
pub(crate) const STOPPED: &str = "it stopped sending; it may have left, or HiveMind was restarted there";

/// A message on a stream that was opened with `Request::Outline` or `Request::Bytes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Given {
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
    /// Everything that can be sent has been.
    End,
    /// The sender does not have the model, or does not give it away.
    Nothing,
}
