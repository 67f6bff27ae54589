//! A session in transit, from the stage that leaves to the one that takes over: split into parts and reassembled.

use bytes::Bytes;
use hive_model::CarriedSession;
use hive_net::{Frame, HEADER_BYTES, Header};
use serde::{Deserialize, Serialize};

use super::sent::Sent;
use super::spec_bytes::bytes_of;
use hive_protocol::SessionSpec;
use hive_worker::Raw;

/// Maximum size of a part of a cache, in bytes.
const PART_BYTES: usize = 1 << 20;

/// The parts, in this order, one session after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Part {
    /// A session begins: its spec, whether it is retained for a next turn, and its worker's state.
    Session(Box<SessionSpec>, bool, CarriedSession),
    /// A frame of the log of the stage's output.
    Sent(Raw),
    /// The next part of a layer's cache.
    Cache(Raw),
    /// The layer's cache is complete.
    LayerEnds,
    /// The session is complete.
    Whole,
}

impl Part {
    pub(super) fn sent(frame: &Frame) -> Self {
        Self::Sent(Raw([&frame.header()[..], &frame.payload].concat()))
    }

    /// A layer's cache, in parts.
    pub(super) fn of_cache(cache: &[u8]) -> impl Iterator<Item = Self> {
        cache.chunks(PART_BYTES).map(|part| Self::Cache(Raw(part.to_vec()))).chain([Self::LayerEnds])
    }

    /// The memory that it takes at the receiver, in bytes; about the size of the message.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sent(Raw(bytes)) => size_of::<Frame>() + bytes.len(),
            Self::Cache(Raw(bytes)) => bytes.len(),
            Self::Session(spec, _, state) => {
                size_of::<SessionSpec>() + bytes_of(spec) + size_of_val(state.answer.as_slice())
            }
            Self::LayerEnds => size_of::<Vec<u8>>(),
            Self::Whole => 1,
        }
    }
}

/// A session that is being reassembled.
#[derive(Debug)]
pub(crate) struct Transit {
    pub(super) spec: SessionSpec,
    pub(super) retained: bool,
    pub(super) state: CarriedSession,
    pub(super) sent: Sent,
    /// The caches of complete layers.
    pub(super) layers: Vec<Vec<u8>>,
    layer: Vec<u8>,
}

impl Transit {
    pub(crate) fn new(spec: SessionSpec, retained: bool, state: CarriedSession) -> Self {
        Self { spec, retained, state, sent: Sent::default(), layers: Vec::new(), layer: Vec::new() }
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// The part is invalid.
    pub(crate) fn add(&mut self, part: Part) -> Result<(), String> {
        match part {
            Part::Sent(Raw(bytes)) => self.sent.note(&frame_of(&bytes)?),
            Part::Cache(Raw(bytes)) => self.layer.extend_from_slice(&bytes),
            Part::LayerEnds => self.layers.push(std::mem::take(&mut self.layer)),
            Part::Session(..) | Part::Whole => {}
        }
        Ok(())
    }
}

/// Decodes a frame from its header and payload.
fn frame_of(bytes: &[u8]) -> Result<Frame, String> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("a frame is cut")?;
    let header = Header::decode(header).map_err(|error| error.to_string())?;
    if header.payload_bytes as usize != payload.len() {
        return Err("a frame has another length than it says".to_owned());
    }
    Ok(header.with_payload(Bytes::copy_from_slice(payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::frames::hidden_frame;
    use hive_model::{ActivationType, Hidden, KvLayout, SessionOptions};

    fn transit() -> Transit {
        let spec = SessionSpec {
            session: 7,
            answer: 1,
            options: SessionOptions::default(),
            end_tokens: vec![2],
            last_position: 10,
            continues: None,
        };
        Transit::new(spec, false, CarriedSession { position: 3, answer: Vec::new(), layout: KvLayout::Fast })
    }

    #[test]
    fn a_cache_of_any_size_arrives_as_it_was() {
        let caches = [vec![1; PART_BYTES + 5], Vec::new(), vec![2; PART_BYTES]];
        let mut transit = transit();
        for part in caches.iter().flat_map(|cache| Part::of_cache(cache)) {
            assert!(part.bytes() <= PART_BYTES);
            assert!(part.bytes() > 0, "what costs nothing can be sent without end");
            transit.add(part).unwrap();
        }
        assert!(transit.layers == caches);
    }

    #[test]
    fn a_session_counts_with_what_was_said_in_it() {
        let Transit { spec, state, .. } = transit();
        let mut long = spec.clone();
        long.options.prompt = vec![1; 1000];
        let bytes = |spec: SessionSpec| Part::Session(Box::new(spec), false, state.clone()).bytes();
        assert_eq!(bytes(long), bytes(spec) + 4000);
        assert!(Part::LayerEnds.bytes() >= size_of::<Vec<u8>>());
    }

    #[test]
    fn what_was_sent_can_be_sent_again_from_the_new_machine() {
        let hidden = Hidden { activation: ActivationType::F16, rows: 3, width: 2, bytes: (0..12).collect() };
        let frame = hidden_frame(7, 0, false, hidden);
        let mut transit = transit();
        transit.add(Part::sent(&frame)).unwrap();
        assert_eq!(transit.sent.all(7), [frame]);
    }

    #[test]
    fn a_frame_that_is_cut_or_lies_is_refused() {
        let hidden = Hidden { activation: ActivationType::F16, rows: 1, width: 2, bytes: vec![0; 4] };
        let Part::Sent(Raw(bytes)) = Part::sent(&hidden_frame(7, 0, false, hidden)) else { unreachable!() };
        assert!(transit().add(Part::Sent(Raw(bytes[..20].to_vec()))).is_err());
        assert!(transit().add(Part::Sent(Raw(bytes[..bytes.len() - 1].to_vec()))).is_err());
        assert!(transit().add(Part::Sent(Raw(bytes))).is_ok());
    }
}
