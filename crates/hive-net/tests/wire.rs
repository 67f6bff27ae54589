//! Frames, receipts and invitations keep the bytes that other versions know: one file for each in `wire/`.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/golden.rs"]
mod golden;

use std::path::Path;

use bytes::Bytes;
use golden::Golden;
use hive_net::invite::Ticket;
use hive_net::wire::Receipt;
use hive_net::{Element, Frame, HEADER_BYTES, Header, Identity, Kind, PeerAddr};

fn frame(kind: Kind, element: Element, rows: u32, width: u32, payload: &'static [u8]) -> Frame {
    Frame {
        kind,
        element,
        sample: false,
        last: false,
        session: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        epoch: 5,
        position: 70_000,
        rows,
        width,
        payload: Bytes::from_static(payload),
    }
}

/// The name of a frame's file. A new kind or element needs one, and an example below.
fn name(frame: &Frame) -> String {
    let kind = match frame.kind {
        Kind::Tokens => "tokens",
        Kind::Hidden => "hidden",
        Kind::Token => "token",
        Kind::Failed => "failed",
        Kind::Read => "read",
    };
    let element = match frame.element {
        Element::Byte => "byte",
        Element::U32 => "u32",
        Element::F32 => "f32",
        Element::F16 => "f16",
        Element::Bf16 => "bf16",
    };
    let flags = [(frame.sample, "-sample"), (frame.last, "-last")];
    let flags: String = flags.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag)).collect();
    format!("frame-{kind}-{element}{flags}")
}

fn read(bytes: &[u8]) -> Frame {
    let (header, payload) = bytes.split_at(HEADER_BYTES);
    let header = Header::decode(header.try_into().unwrap()).unwrap();
    assert_eq!(header.payload_bytes as usize, payload.len());
    header.with_payload(Bytes::copy_from_slice(payload))
}

#[test]
fn frames_have_the_bytes_that_other_versions_know() {
    let examples = [
        frame(Kind::Tokens, Element::U32, 2, 1, &[1, 0, 0, 0, 44, 1, 0, 0]),
        Frame { sample: true, ..frame(Kind::Tokens, Element::U32, 1, 1, &[7, 0, 0, 0]) },
        frame(Kind::Hidden, Element::F32, 1, 2, &[1, 2, 3, 4, 5, 6, 7, 8]),
        Frame { sample: true, ..frame(Kind::Hidden, Element::F16, 2, 2, &[1, 2, 3, 4, 5, 6, 7, 8]) },
        frame(Kind::Hidden, Element::Bf16, 2, 1, &[1, 2, 3, 4]),
        frame(Kind::Token, Element::Byte, 1, 4, &[7, 0, 0, 0]),
        Frame { last: true, ..frame(Kind::Token, Element::Byte, 1, 8, &[7, 0, 0, 0, 0, 0, 0, 0xbf]) },
        Frame { last: true, ..frame(Kind::Failed, Element::Byte, 1, 3, &[1, 1, 120]) },
        frame(Kind::Read, Element::Byte, 1, 0, &[]),
    ];
    // The third byte of every frame is the version.
    let version = examples[0].header()[2];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/wire/stage-{version}"));
    let mut golden = Golden::open(folder, "`VERSION` (wire.rs)");
    for example in examples {
        let bytes = [&example.header()[..], &example.payload].concat();
        golden.bytes(&name(&example), &bytes, |bytes| read(bytes) == example);
    }
    let receipt = Receipt { session: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, epoch: 5, position: 70_000 };
    golden.bytes("receipt", &receipt.encode(), |bytes| Receipt::decode(bytes.try_into().unwrap()) == receipt);
    golden.finish();
    let mut beyond = frame(Kind::Read, Element::Byte, 1, 0, &[]).header();
    beyond[3] = 5;
    assert!(Header::decode(&beyond).is_err(), "the last kind of frame has no example");
    beyond[3..5].copy_from_slice(&[1, 5]);
    assert!(Header::decode(&beyond).is_err(), "the last element has no example");
}

#[test]
fn invitations_are_the_text_that_other_versions_know() {
    let peer = Identity::from_text(&format!("1 - {}", "07".repeat(32)), None).unwrap().id();
    let sockets = ["192.168.1.2:7000".parse().unwrap(), "[fd00::2]:7001".parse().unwrap()];
    let addr = PeerAddr::new(peer, sockets);
    let (secret, relayed) = ([9; 16], addr.clone().with_relay("https://relay.example"));
    let mut golden = Golden::open(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/invite-1"),
        "`VERSION` (invite.rs), and the name of this folder in the test",
    );
    for (name, ticket) in [("ticket", Ticket { addr, secret }), ("ticket-relay", Ticket { addr: relayed, secret })] {
        golden.bytes(name, ticket.to_text().as_bytes(), |bytes| {
            Ticket::parse(std::str::from_utf8(bytes).unwrap()).as_ref() == Ok(&ticket)
        });
    }
    golden.finish();
}
