//! Frames of the ring: a small typed header, then raw bytes.
//!
//! ```text
//! offset  size  field
//!      0     2  magic "HM"
//!      2     1  version
//!      3     1  kind: tokens, hidden, token, failed, read
//!      4     1  element type of the payload
//!      5     1  flags: bit 0 sample, bit 1 the answer ends here
//!      6     2  zero
//!      8    16  session
//!     24     4  epoch
//!     28     4  position of the first row
//!     32     4  rows
//!     36     4  width
//!     40     4  payload length in bytes
//! ```
//!
//! Numbers are little-endian. A decoder trusts nothing: kinds, element types and lengths are checked against each other
//! and against a limit before a byte of payload is read.

use bytes::Bytes;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 44;

/// Largest payload, in bytes: a prompt chunk of 4,096 rows at hidden size 16,384 in single precision.
const MAX_PAYLOAD_BYTES: u32 = 256 << 20;

/// Largest reason for a failure, in bytes: a few sentences.
const MAX_REASON_BYTES: u32 = 16 << 10;

/// Largest token payload, in bytes: a token with its alternatives and their probabilities.
const MAX_TOKEN_BYTES: u32 = 4 << 10;

const MAGIC: [u8; 2] = *b"HM";
const VERSION: u8 = 2;
const FLAG_SAMPLE: u8 = 1;
const FLAG_LAST: u8 = 2;

/// The kind of a frame's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Prompt tokens, for the first stage.
    Tokens,
    /// Hidden states, for the next stage.
    Hidden,
    /// A sampled token, for the first stage and the coordinator.
    Token,
    /// A session failed, with the reason; for the coordinator.
    Failed,
    /// The last stage has read everything before this position; for the coordinator.
    Read,
}

/// The element type of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Opaque bytes.
    Byte,
    /// 32-bit unsigned integers.
    U32,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::U32 | Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// One message between stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The kind of its contents.
    pub kind: Kind,
    /// The payload's element type.
    pub element: Element,
    /// Whether the last stage samples the token after the last row.
    pub sample: bool,
    /// Whether this token is the answer's last.
    pub last: bool,
    /// The session.
    pub session: u128,
    /// The session's incarnation: a receiver drops frames of an earlier one.
    pub epoch: u32,
    /// Position of the first row.
    pub position: u32,
    /// Number of rows.
    pub rows: u32,
    /// Elements per row.
    pub width: u32,
    /// The elements.
    pub payload: Bytes,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The magic does not match.
    #[error("this is not a HiveMind frame")]
    Magic,
    /// The version is not supported.
    #[error("frame version {0} is not understood; this machine speaks version {VERSION}")]
    Version(u8),
    /// A field has an invalid value.
    #[error("the frame's {field} is {value}, which means nothing")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// The lengths contradict each other, or exceed the limit.
    #[error("the frame claims {payload} bytes for {rows} rows of {width}")]
    Length {
        /// Announced payload in bytes.
        payload: u32,
        /// Announced rows.
        rows: u32,
        /// Announced width.
        width: u32,
    },
}

/// A decoded header; its payload is still to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    frame: Frame,
    /// Payload bytes that follow.
    pub payload_bytes: u32,
}

impl Header {
    /// Decodes and validates a header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..2] != MAGIC {
            return Err(WireError::Magic);
        }
        if bytes[2] != VERSION {
            return Err(WireError::Version(bytes[2]));
        }
        let field = |field, value| WireError::Field { field, value };
        let kind = match bytes[3] {
            0 => Kind::Tokens,
            1 => Kind::Hidden,
            2 => Kind::Token,
            3 => Kind::Failed,
            4 => Kind::Read,
            value => return Err(field("kind", value)),
        };
        let element = match bytes[4] {
            0 => Element::Byte,
            1 => Element::U32,
            2 => Element::F32,
            3 => Element::F16,
            4 => Element::Bf16,
            value => return Err(field("element type", value)),
        };
        if bytes[5] & !(FLAG_SAMPLE | FLAG_LAST) != 0 {
            return Err(field("flags", bytes[5]));
        }
        let (rows, width, payload) = (word(32), word(36), word(40));
        let suits = match kind {
            Kind::Tokens => element == Element::U32 && width == 1 && rows > 0,
            Kind::Hidden => matches!(element, Element::F32 | Element::F16 | Element::Bf16) && rows > 0 && width > 0,
            Kind::Token => element == Element::Byte && rows == 1 && (4..=MAX_TOKEN_BYTES).contains(&payload),
            Kind::Failed => element == Element::Byte && rows == 1 && payload <= MAX_REASON_BYTES,
            Kind::Read => element == Element::Byte && rows == 1 && payload == 0,
        };
        let expected = u64::from(rows).checked_mul(u64::from(width)).and_then(|n| n.checked_mul(element.bytes()));
        if !suits || payload > MAX_PAYLOAD_BYTES || expected != Some(u64::from(payload)) {
            return Err(WireError::Length { payload, rows, width });
        }
        let mut session = [0; 16];
        session.copy_from_slice(&bytes[8..24]);
        let frame = Frame {
            kind,
            element,
            sample: bytes[5] & FLAG_SAMPLE != 0,
            last: bytes[5] & FLAG_LAST != 0,
            session: u128::from_le_bytes(session),
            epoch: word(24),
            position: word(28),
            rows,
            width,
            payload: Bytes::new(),
        };
        Ok(Self { frame, payload_bytes: payload })
    }

    /// The frame with its payload.
    pub fn with_payload(self, payload: Bytes) -> Frame {
        Frame { payload, ..self.frame }
    }
}

impl Frame {
    /// Encodes the header of this frame.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = match self.kind {
            Kind::Tokens => 0,
            Kind::Hidden => 1,
            Kind::Token => 2,
            Kind::Failed => 3,
            Kind::Read => 4,
        };
        bytes[4] = match self.element {
            Element::Byte => 0,
            Element::U32 => 1,
            Element::F32 => 2,
            Element::F16 => 3,
            Element::Bf16 => 4,
        };
        bytes[5] = (u8::from(self.sample) * FLAG_SAMPLE) | (u8::from(self.last) * FLAG_LAST);
        bytes[8..24].copy_from_slice(&self.session.to_le_bytes());
        let words = [self.epoch, self.position, self.rows, self.width, self.payload.len() as u32];
        for (at, word) in (24..).step_by(4).zip(words) {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The receipt for this frame.
    pub(crate) fn receipt(&self) -> Receipt {
        Receipt { session: self.session, epoch: self.epoch, position: self.position }
    }
}

/// Bytes of a receipt.
pub const RECEIPT_BYTES: usize = 24;

/// Acknowledges one frame, on receipt and not on completion, so that a dead peer differs from a slow one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The frame's session.
    pub session: u128,
    /// The frame's epoch.
    pub epoch: u32,
    /// The frame's position.
    pub position: u32,
}

impl Receipt {
    /// Encodes the receipt.
    pub fn encode(self) -> [u8; RECEIPT_BYTES] {
        let mut bytes = [0; RECEIPT_BYTES];
        bytes[..16].copy_from_slice(&self.session.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[20..].copy_from_slice(&self.position.to_le_bytes());
        bytes
    }

    /// Decodes a receipt; all bytes are valid.
    pub fn decode(bytes: [u8; RECEIPT_BYTES]) -> Self {
        let (mut session, mut epoch, mut position) = ([0; 16], [0; 4], [0; 4]);
        session.copy_from_slice(&bytes[..16]);
        epoch.copy_from_slice(&bytes[16..20]);
        position.copy_from_slice(&bytes[20..]);
        Self {
            session: u128::from_le_bytes(session),
            epoch: u32::from_le_bytes(epoch),
            position: u32::from_le_bytes(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(rows: u32, width: u32, element: Element) -> Frame {
        let payload = Bytes::from(vec![7; (u64::from(rows * width) * element.bytes()) as usize]);
        Frame {
            kind: Kind::Hidden,
            element,
            sample: true,
            last: false,
            session: u128::MAX - 3,
            epoch: 5,
            position: 1 << 20,
            rows,
            width,
            payload,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in 1u32..40, width in 1u32..40, element in 2usize..5, sample: bool, last: bool) {
            let element = [Element::Byte, Element::U32, Element::F32, Element::F16, Element::Bf16][element];
            let frame = Frame { sample, last, ..hidden(rows, width, element) };
            let header = Header::decode(&frame.header()).unwrap();
            prop_assert_eq!(header.payload_bytes as usize, frame.payload.len());
            prop_assert_eq!(header.with_payload(frame.payload.clone()), frame);
        }

        #[test]
        fn no_header_panics_or_asks_for_too_much(mut bytes: [u8; HEADER_BYTES], valid_start: bool) {
            if valid_start {
                bytes[..3].copy_from_slice(&hidden(1, 1, Element::F32).header()[..3]);
                bytes[3] %= 4;
                bytes[4] %= 5;
                bytes[5] %= 4;
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert!(header.payload_bytes <= MAX_PAYLOAD_BYTES);
            }
        }

        #[test]
        fn receipts_come_back(session: u128, epoch: u32, position: u32) {
            let receipt = Receipt { session, epoch, position };
            prop_assert_eq!(Receipt::decode(receipt.encode()), receipt);
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = hidden(4, 8, Element::F16).header();
        for (at, value) in [(32, u32::MAX), (36, u32::MAX), (40, 1 << 31), (40, 63), (32, 0)] {
            let mut bytes = good;
            bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            assert!(matches!(Header::decode(&bytes), Err(WireError::Length { .. })), "{at} {value}");
        }
        let mut other_version = good;
        other_version[2] = 9;
        assert_eq!(Header::decode(&other_version), Err(WireError::Version(9)));
    }
}
