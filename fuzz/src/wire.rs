//! Stage frames and receipts, as they come from another machine.

use hive_net::wire::{HEADER_BYTES, Header, RECEIPT_BYTES, Receipt};

/// Reads a stream of frames; then the same bytes as receipts.
pub fn run(data: &[u8]) {
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
}

/// A frame of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    // Magic, version, kind, element, flags, session, epoch, position, rows, width, payload.
    let frame = |kind: u8, element: u8, position: u32, rows: u32, width: u32, payload: &[u8]| {
        let words = [1, position, rows, width, payload.len() as u32].map(u32::to_le_bytes).concat();
        [b"HM", &[1, kind, element, 1, 0, 0][..], &7u64.to_le_bytes(), &words, payload].concat()
    };
    let frames = [
        frame(0, 1, 0, 2, 1, &[1, 0, 0, 0, 2, 0, 0, 0]),
        frame(1, 3, 2, 1, 4, &[0, 60, 0, 60, 0, 60, 255, 255]),
        frame(2, 0, 3, 1, 12, &[5, 0, 0, 0, 0, 0, 0, 191, 9, 0, 0, 0]),
        frame(3, 0, 0, 1, 5, &[1, 2, 2, b'n', b'o']),
        frame(4, 0, u32::MAX, 1, 0, &[]),
    ];
    let all = frames.concat();
    frames.into_iter().chain([all]).collect()
}
