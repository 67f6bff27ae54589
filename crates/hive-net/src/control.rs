//! Requests and replies: length-prefixed postcard messages, one stream per exchange.
//!
//! The client writes a request and reads replies until the stream ends, so that long work can report its progress.

use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::{ReadExactError, RecvStream, SendStream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::border;
use crate::endpoint::Channel;

/// Messages carry settings and prompts, never weights or activations: at most 300,000 tokens of a conversation.
const MAX_MESSAGE_BYTES: u32 = 1 << 20;

/// Parts of a migration, whose bytes the receiver counts.
const MAX_PART_BYTES: u32 = 4 << 20;

/// A message must arrive within this time of its first byte, or the stream ends: a partial message takes memory.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a message's length, which comes before it.
const PREFIX_BYTES: usize = 4;

/// Read size of a message.
const PIECE_BYTES: usize = 64 << 10;

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The stream broke, or ended early.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The announced length exceeds the limit.
    #[error("a message of {0} bytes was announced; that is too long")]
    TooLarge(u32),
    /// The message did not arrive in time.
    #[error("a message did not arrive within {} s", MESSAGE_TIMEOUT.as_secs())]
    TooLate,
    /// The bytes do not decode as the expected message.
    #[error("a message could not be read; the other machine may run another version: {0}")]
    Malformed(postcard::Error),
}

/// The whole chain of causes: the first, "connection lost", says nothing.
fn broken(error: &dyn std::error::Error) -> ControlError {
    let causes = std::iter::successors(Some(error), |error| error.source());
    // The reason of a closed connection is written by the other machine.
    ControlError::Broken(border::reason(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")))
}

impl Channel {
    /// Writes one message.
    pub async fn write_message(&mut self, message: &impl Serialize) -> Result<(), ControlError> {
        write_to(&mut self.send, message).await
    }

    /// Writes one part of a migration.
    pub async fn write_part(&mut self, part: &impl Serialize) -> Result<(), ControlError> {
        write_within(&mut self.send, part, MAX_PART_BYTES).await
    }

    /// Writes one part that ends with many bytes, without copying them. `head` encodes to all that comes before them, their
    /// number included.
    pub async fn write_part_ending(&mut self, head: &impl Serialize, bytes: Bytes) -> Result<(), ControlError> {
        write_framed(&mut self.send, head, bytes, MAX_PART_BYTES).await
    }

    /// Writes raw bytes. For tests of malformed input.
    pub async fn write_raw(&mut self, bytes: &[u8]) -> Result<(), ControlError> {
        self.send.write_all(bytes).await.map_err(|error| broken(&error))
    }

    /// Reads one message; `None` once the other side has finished.
    pub async fn read_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        read_from(&mut self.recv, MAX_MESSAGE_BYTES).await
    }

    /// Reads the first message, which the opener writes immediately.
    pub async fn read_first<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let read = tokio::time::timeout(MESSAGE_TIMEOUT, self.read_message()).await;
        read.unwrap_or(Err(ControlError::TooLate))
    }

    /// Reads one part of a migration; `None` once the other side has finished.
    pub async fn read_part<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        read_from(&mut self.recv, MAX_PART_BYTES).await
    }

    /// Reads one part, which may borrow from `buffer`; `None` once the other side has finished.
    ///
    /// The buffer grows to the longest part and is meant to be used again: each fresh one costs as much as its bytes do.
    pub async fn read_part_into<'a, T: Deserialize<'a>>(
        &mut self,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<T>, ControlError> {
        let Some(length) = read_framed(&mut self.recv, MAX_PART_BYTES, buffer).await? else { return Ok(None) };
        postcard::from_bytes(&buffer[..length]).map(Some).map_err(ControlError::Malformed)
    }

    /// Splits the channel into its two directions, for full-duplex exchanges.
    pub fn split(self) -> (Writer, Reader) {
        (Writer { send: self.send }, Reader { recv: self.recv })
    }
}

/// The writing half of a channel.
#[derive(Debug)]
pub struct Writer {
    send: SendStream,
}

impl Writer {
    /// Writes one message.
    pub async fn write(&mut self, message: &impl Serialize) -> Result<(), ControlError> {
        write_to(&mut self.send, message).await
    }
}

/// The reading half of a channel.
#[derive(Debug)]
pub struct Reader {
    recv: RecvStream,
}

impl Reader {
    /// Reads one message; `None` once the other side has finished.
    pub async fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        read_from(&mut self.recv, MAX_MESSAGE_BYTES).await
    }
}

pub(crate) async fn write_to(send: &mut SendStream, message: &impl Serialize) -> Result<(), ControlError> {
    write_within(send, message, MAX_MESSAGE_BYTES).await
}

async fn write_within(send: &mut SendStream, message: &impl Serialize, limit: u32) -> Result<(), ControlError> {
    write_framed(send, message, Bytes::new(), limit).await
}

/// Writes a message and the bytes that it ends with, behind the length of both.
async fn write_framed(
    send: &mut SendStream,
    message: &impl Serialize,
    end: Bytes,
    limit: u32,
) -> Result<(), ControlError> {
    let start = framed(message, end.len(), limit)?;
    send.write_all_chunks(&mut [start.into(), end]).await.map_err(|error| broken(&error))
}

/// A message behind its length, which includes the bytes that follow it.
fn framed(message: &impl Serialize, following_bytes: usize, limit: u32) -> Result<Vec<u8>, ControlError> {
    let mut framed = postcard::to_extend(message, vec![0; PREFIX_BYTES]).map_err(ControlError::Malformed)?;
    let length = u32::try_from(framed.len() - PREFIX_BYTES + following_bytes).unwrap_or(u32::MAX);
    if length > limit {
        return Err(ControlError::TooLarge(length));
    }
    framed[..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(framed)
}

pub(crate) async fn read_from<T: DeserializeOwned>(
    recv: &mut RecvStream,
    limit: u32,
) -> Result<Option<T>, ControlError> {
    let mut bytes = Vec::new();
    let Some(length) = read_framed(recv, limit, &mut bytes).await? else { return Ok(None) };
    postcard::from_bytes(&bytes[..length]).map(Some).map_err(ControlError::Malformed)
}

/// Reads a message's bytes to the start of a buffer, and returns their number; `None` once the other side has finished.
async fn read_framed(recv: &mut RecvStream, limit: u32, bytes: &mut Vec<u8>) -> Result<Option<usize>, ControlError> {
    let mut prefix = [0; PREFIX_BYTES];
    match recv.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(broken(&error)),
    }
    let length = u32::from_le_bytes(prefix);
    if length > limit {
        return Err(ControlError::TooLarge(length));
    }
    let length = length as usize;
    let rest = async {
        let mut start = 0;
        while start < length {
            let end = (start + PIECE_BYTES).min(length);
            // Grows with the bytes received, so that a large announced length costs nothing.
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            let read = recv.read_exact(&mut bytes[start..end]).await;
            read.map_err(|error| broken(&error))?;
            start = end;
        }
        Ok(Some(length))
    };
    tokio::time::timeout(MESSAGE_TIMEOUT, rest).await.unwrap_or(Err(ControlError::TooLate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_behind_its_length_in_four_bytes() {
        assert_eq!(framed(&(5_u8, "hi"), 0, MAX_MESSAGE_BYTES).unwrap(), *b"\x04\0\0\0\x05\x02hi");
        assert_eq!(framed(&300_u32, 256, MAX_PART_BYTES).unwrap(), *b"\x02\x01\0\0\xac\x02");
        assert!(matches!(framed(&0_u8, 9, 9), Err(ControlError::TooLarge(10))));
    }
}
