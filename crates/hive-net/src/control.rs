//! Questions and answers: length-prefixed postcard messages on a stream of their own.
//!
//! One stream is one exchange. The asker writes a question and reads answers until the stream ends, so that long work
//! can report its progress.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::endpoint::Channel;

/// Messages carry settings and prompts, never weights or activations.
const MAX_MESSAGE_BYTES: u32 = 16 << 20;

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The stream broke or ended early.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// A length beyond what messages have.
    #[error("a message of {0} bytes was announced; at most {MAX_MESSAGE_BYTES} are taken")]
    TooLarge(u32),
    /// Bytes that are no message of the kind expected.
    #[error("a message could not be read; the other machine may run another version: {0}")]
    Malformed(postcard::Error),
}

impl Channel {
    /// Writes one message.
    pub async fn write_message(&mut self, message: &impl Serialize) -> Result<(), ControlError> {
        let bytes = postcard::to_stdvec(message).map_err(ControlError::Malformed)?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if length > MAX_MESSAGE_BYTES {
            return Err(ControlError::TooLarge(length));
        }
        let framed = [&length.to_le_bytes()[..], &bytes].concat();
        self.send.write_all(&framed).await.map_err(|error| ControlError::Broken(error.to_string()))
    }

    /// Reads one message; `None` where the other side has said all it had to say.
    pub async fn read_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        use iroh::endpoint::ReadExactError;
        let mut prefix = [0; 4];
        match self.recv.read_exact(&mut prefix).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(ControlError::Broken(error.to_string())),
        }
        let length = u32::from_le_bytes(prefix);
        if length > MAX_MESSAGE_BYTES {
            return Err(ControlError::TooLarge(length));
        }
        let mut bytes = vec![0; length as usize];
        self.recv.read_exact(&mut bytes).await.map_err(|error| ControlError::Broken(error.to_string()))?;
        postcard::from_bytes(&bytes).map(Some).map_err(ControlError::Malformed)
    }
}
