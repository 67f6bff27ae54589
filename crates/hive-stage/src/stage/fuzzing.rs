//! A stage's handling of a frame, for the fuzzer.

use std::hint::black_box;

use hive_net::{Frame, Kind};

use super::frames::{failure_of, input_of, sampled_of, turns};
use super::sent::{Arrival, Sent, arrival, without};
use hive_protocol::Replay;

pub(crate) fn frame(frame: Frame) {
    let mut sent = Sent::default();
    sent.note(&frame);
    let Frame { session, position, rows, .. } = frame;
    for next in [0, position, position.saturating_add(1), u32::MAX] {
        if let Arrival::PartlyKnown(known) = arrival(next, position, rows) {
            black_box(without(&frame, known));
        }
        black_box(sent.replay(Replay { session, from: next, sample_from: position }));
    }
    black_box(turns(&frame));
    match frame.kind {
        Kind::Token => drop(black_box(sampled_of(&frame))),
        Kind::Failed => drop(black_box(failure_of(&frame))),
        _ => {}
    }
    black_box(input_of(frame));
}
