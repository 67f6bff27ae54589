//! Stage frames and receipts, as they come from another machine.

use hive_net::wire::{Element, Frame, HEADER_BYTES, Header, Kind, RECEIPT_BYTES, Receipt};

/// Reads a stream of frames; then the same bytes as receipts. Whether they are frames to their end.
pub fn run(data: &[u8]) -> bool {
    let mut rest = data;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(header) else { break };
        let Some(payload) = after.get(..header.payload_bytes as usize) else { break };
        rest = &after[payload.len()..];
        let frame = header.with_payload(payload.to_vec().into());
        assert_eq!(Header::decode(&frame.header()).map(|header| header.payload_bytes as usize), Ok(payload.len()));
        hive_node::fuzzing::frame(frame);
    }
    for receipt in data.as_chunks::<RECEIPT_BYTES>().0 {
        assert_eq!(Receipt::decode(*receipt).encode(), *receipt);
    }
    rest.is_empty()
}

/// A frame of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let frame = |kind, element, position, [rows, width]: [u32; 2], payload: &[u8]| {
        let (sample, last, session, epoch) = (true, false, 7, 1);
        let payload = payload.to_vec().into();
        let frame = Frame { kind, element, sample, last, session, epoch, position, rows, width, payload };
        [&frame.header()[..], &frame.payload].concat()
    };
    let frames = [
        frame(Kind::Tokens, Element::U32, 0, [2, 1], &[1, 0, 0, 0, 2, 0, 0, 0]),
        frame(Kind::Hidden, Element::F16, 2, [1, 4], &[0, 60, 0, 60, 0, 60, 255, 255]),
        frame(Kind::Token, Element::Byte, 3, [1, 12], &[5, 0, 0, 0, 0, 0, 0, 191, 9, 0, 0, 0]),
        frame(Kind::Failed, Element::Byte, 0, [1, 5], &[1, 2, 2, b'n', b'o']),
        frame(Kind::Read, Element::Byte, u32::MAX, [1, 0], &[]),
    ];
    let all = frames.concat();
    frames.into_iter().chain([all]).collect()
}
