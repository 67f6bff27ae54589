//! The messages that carry a model to another machine: its outline, or bytes of its files.

use hive_store::{FileName, Manifest};
use hive_worker::Raw;
use serde::{Deserialize, Serialize};

/// Bytes of a file in one message.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;

/// The reason given for a machine that does not finish.
pub(crate) const STOPPED: &str = "it stopped sending; it may have left, or HiveMind was restarted there";

/// A message on a stream that was opened with `Request::Outline` or `Request::Bytes`.
///
/// Contents come last in a message, after their length. So they can be sent from their own buffer, after a message with only
/// the length, and be borrowed from the buffer in which they are received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum TransferMessage<Contents = Raw> {
    /// The model's files. Comes first in an outline.
    Manifest(Box<Manifest>),
    /// Whole blocks of a file, from an offset on.
    Piece {
        /// The file.
        file: FileName,
        /// The offset of the first byte.
        at: u64,
        /// The contents.
        bytes: Contents,
    },
    /// The transfer is complete.
    End,
    /// The sender does not have the model, or the receiver may not have it.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_written_in_two_and_read_in_place_with_the_bytes_that_other_versions_know() {
        let file = FileName::new("a.gguf").unwrap();
        let contents = [7; 300];
        let (at, file_of) = (4096, || file.clone());
        let head = TransferMessage::Piece { file: file_of(), at, bytes: contents.len() };
        let sent = [&postcard::to_stdvec(&head).unwrap()[..], &contents].concat();
        assert_eq!(sent[..12], *b"\x01\x06a.gguf\x80\x20\xac\x02");
        let whole = TransferMessage::Piece { file: file_of(), at, bytes: Raw(contents.to_vec()) };
        assert_eq!(sent, postcard::to_stdvec(&whole).unwrap());
        let read: TransferMessage<&[u8]> = postcard::from_bytes(&sent).unwrap();
        assert_eq!(read, TransferMessage::Piece { file: file_of(), at, bytes: &contents[..] });
    }
}
