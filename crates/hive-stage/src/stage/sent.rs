//! The log of a stage's output in a session, to replay it to the machine that takes over the next stage.
//!
//! It holds the hidden states of every position, contiguously, and where each frame began; for the last stage, its
//! tokens. A replay has the frames of the first time, so that a GPU computes the same numbers from them. A receiver
//! drops frames that it already has, so replaying too much is harmless, and replaying from its next position is enough.

use std::ops::Range;

use bytes::Bytes;
use hive_model::Hidden;
use hive_net::{Frame, Kind};

use super::frames::activation;
use crate::pieces::Pieces;
use hive_protocol::Replay;

/// Bytes of hidden states per frame of a handover: a message has room for several. Longer frames are cut, and no longer
/// have the rows of the first time.
const HANDOVER_BYTES: usize = 2 << 20;

/// The log of one session.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Hidden states from position 0 on.
    hidden: Vec<u8>,
    /// The frames that these states were sent in.
    pieces: Pieces,
    /// A frame of these states without its payload: their type and width.
    like: Option<Frame>,
    row_bytes: usize,
    tokens: Vec<Frame>,
    /// The size of `tokens`, in bytes.
    tokens_bytes: usize,
}

fn bytes_of(token: &Frame) -> usize {
    size_of::<Frame>() + token.payload.len()
}

impl Sent {
    /// Records a frame that is being sent.
    pub(super) fn note(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Hidden => {
                self.row_bytes = frame.payload.len() / frame.rows as usize;
                self.hidden.truncate(frame.position as usize * self.row_bytes);
                self.pieces.truncate(frame.position);
                self.pieces.began(frame.position);
                self.hidden.extend_from_slice(&frame.payload);
                self.like = Some(Frame { payload: Bytes::new(), ..frame.clone() });
            }
            Kind::Token => {
                // A token that is sampled again replaces the earlier one, and all after it.
                while let Some(later) = self.tokens.pop_if(|token| token.position >= frame.position) {
                    self.tokens_bytes -= bytes_of(&later);
                }
                self.tokens_bytes += bytes_of(frame);
                self.tokens.push(frame.clone());
            }
            Kind::Tokens | Kind::Failed | Kind::Read => {}
        }
    }

    /// The log of a conversation that continues from `position` in another session.
    pub(super) fn continued(mut self, position: u32) -> Self {
        self.hidden.truncate(position as usize * self.row_bytes);
        self.pieces.truncate(position);
        self.tokens.clear();
        self.tokens_bytes = 0;
        self
    }

    /// The whole log, for a handover.
    pub(super) fn all(&self, session: u128) -> Vec<Frame> {
        let mut frames = self.tokens.clone();
        if let Some(like) = &self.like {
            let pieces = self.pieces.cut(0..self.rows(), (HANDOVER_BYTES / self.row_bytes).max(1) as u32);
            frames.extend(pieces.map(|rows| self.piece(like, session, rows, false)));
        }
        frames
    }

    /// Its size, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.hidden.capacity() + self.pieces.bytes() + self.tokens_bytes
    }

    /// The number of rows of hidden states.
    fn rows(&self) -> u32 {
        (self.hidden.len() / self.row_bytes) as u32
    }

    /// These rows, if all of them were sent.
    pub(super) fn hidden(&self, rows: &Range<u32>) -> Option<Hidden> {
        let like = self.like.as_ref()?;
        let (start, end) = (rows.start as usize * self.row_bytes, rows.end as usize * self.row_bytes);
        let bytes = self.hidden.get(start..end)?.to_vec();
        Some(Hidden { activation: activation(like.element), rows: rows.len(), width: like.width as usize, bytes })
    }

    /// These rows as a frame.
    fn piece(&self, like: &Frame, session: u128, rows: Range<u32>, sample: bool) -> Frame {
        let bytes = rows.start as usize * self.row_bytes..rows.end as usize * self.row_bytes;
        let payload = Bytes::copy_from_slice(&self.hidden[bytes]);
        Frame { sample, session, position: rows.start, rows: rows.len() as u32, payload, ..like.clone() }
    }

    /// The missing frames. From `sample_from` on, each row asks for its token; a frame asks for that of its last row.
    pub(super) fn replay(&self, wanted: Replay) -> Vec<Frame> {
        // Tokens also go to the coordinator, which wants those that it does not know.
        let from = wanted.from.min(wanted.sample_from.saturating_add(1));
        let mut frames: Vec<Frame> = self.tokens.iter().filter(|token| token.position >= from).cloned().collect();
        let Some(like) = &self.like else { return frames };
        let mut pieces = self.pieces.clone();
        for row in wanted.sample_from.max(wanted.from)..self.rows() {
            pieces.began(row.saturating_add(1));
        }
        for rows in pieces.cut(wanted.from..self.rows(), u32::MAX) {
            let sample = rows.end > wanted.sample_from;
            frames.push(self.piece(like, wanted.session, rows, sample));
        }
        frames
    }
}

/// How a frame relates to the session's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is next.
    Next,
    /// All of it is known.
    Known,
    /// This many of its rows are known.
    PartlyKnown(u32),
    /// Rows before it are missing; it will be replayed after them.
    Early,
}

/// Classifies a frame of `rows` rows at `position`, where `next` is the session's next position.
pub(super) fn arrival(next: u32, position: u32, rows: u32) -> Arrival {
    if position > next {
        Arrival::Early
    } else if position == next {
        Arrival::Next
    } else if position.saturating_add(rows) <= next {
        Arrival::Known
    } else {
        Arrival::PartlyKnown(next - position)
    }
}

/// A frame without its first rows.
pub(super) fn without(frame: &Frame, rows: u32) -> Frame {
    let row_bytes = frame.payload.len() / frame.rows as usize;
    let payload = frame.payload.slice(rows as usize * row_bytes..);
    Frame { position: frame.position + rows, rows: frame.rows - rows, payload, ..frame.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_net::Element;

    fn hidden(position: u32, rows: u32) -> Frame {
        let payload: Vec<u8> = (position..position + rows).flat_map(|row| [row as u8; 4]).collect();
        Frame {
            kind: Kind::Hidden,
            element: Element::F16,
            sample: false,
            last: false,
            session: 7,
            epoch: 0,
            position,
            rows,
            width: 2,
            payload: payload.into(),
        }
    }

    fn shape(frames: &[Frame]) -> Vec<(u32, u32, bool)> {
        frames.iter().map(|frame| (frame.position, frame.rows, frame.sample)).collect()
    }

    fn replay(from: u32, sample_from: u32) -> Replay {
        Replay { session: 7, from, sample_from }
    }

    #[test]
    fn what_is_missing_comes_again_row_for_row() {
        let mut sent = Sent::default();
        for frame in [hidden(0, 300), hidden(300, 1), hidden(301, 1)] {
            sent.note(&frame);
        }
        let frames = sent.replay(replay(0, 300));
        assert_eq!(shape(&frames), [(0, 300, false), (300, 1, true), (301, 1, true)]);
        assert_eq!(frames[1].payload, hidden(300, 1).payload);
        assert_eq!(shape(&sent.replay(replay(301, 300))), [(301, 1, true)]);
        assert!(sent.replay(replay(302, 301)).is_empty());
    }

    #[test]
    fn what_is_missing_comes_in_the_frames_of_the_first_time() {
        let mut sent = Sent::default();
        for frame in [hidden(0, 256), hidden(256, 40), hidden(296, 1), hidden(297, 1)] {
            sent.note(&frame);
        }
        let first_time = [(0, 256, false), (256, 40, true), (296, 1, true), (297, 1, true)];
        assert_eq!(shape(&sent.replay(replay(0, 295))), first_time, "no token is known yet");
        assert_eq!(shape(&sent.replay(replay(270, 297))), [(270, 26, false), (296, 1, false), (297, 1, true)]);
        // Also after it was handed over, and from the machine that took over.
        let mut carried = Sent::default();
        for frame in sent.all(7) {
            carried.note(&frame);
        }
        assert_eq!(shape(&carried.replay(replay(0, 295))), first_time);
    }

    #[test]
    fn frames_of_a_handover_fit_into_a_message() {
        let row_bytes = 4096 * 4;
        let frame = Frame { width: 4096, payload: vec![7; 256 * row_bytes].into(), ..hidden(0, 256) };
        let mut sent = Sent::default();
        sent.note(&frame);
        let frames = sent.all(7);
        assert!(frames.iter().all(|frame| frame.payload.len() <= HANDOVER_BYTES));
        assert_eq!(frames.iter().map(|frame| frame.rows).sum::<u32>(), 256);
    }

    #[test]
    fn tokens_come_again_where_the_first_stage_or_the_coordinator_misses_them() {
        let mut sent = Sent::default();
        for position in 7..10 {
            sent.note(&Frame { kind: Kind::Token, ..hidden(position, 1) });
        }
        assert_eq!(shape(&sent.replay(replay(9, 8))), [(9, 1, false)]);
        assert_eq!(shape(&sent.replay(replay(10, 7))), [(8, 1, false), (9, 1, false)]);
        assert!(sent.replay(replay(10, 9)).is_empty());
        assert!(sent.replay(replay(u32::MAX, u32::MAX)).is_empty());
    }

    #[test]
    fn a_token_that_is_chosen_again_is_kept_once_and_its_bytes_are_counted_once() {
        let mut sent = Sent::default();
        for position in [7, 8, 9, 8] {
            sent.note(&Frame { kind: Kind::Token, ..hidden(position, 1) });
        }
        assert_eq!(shape(&sent.all(7)), [(7, 1, false), (8, 1, false)]);
        assert_eq!(sent.bytes(), 2 * (size_of::<Frame>() + 4));
        assert_eq!(sent.continued(8).bytes(), 0);
    }

    #[test]
    fn rows_can_be_looked_at_as_they_were_sent() {
        let mut sent = Sent::default();
        sent.note(&hidden(0, 3));
        sent.note(&hidden(3, 1));
        let rows = sent.hidden(&(2..4)).unwrap();
        assert_eq!((rows.rows, rows.width, rows.bytes), (2, 2, [[2; 4], [3; 4]].concat()));
        assert!(sent.hidden(&(3..5)).is_none());
        assert!(Sent::default().hidden(&(0..0)).is_none());
    }

    #[test]
    fn a_conversation_that_goes_on_forgets_what_came_after() {
        let mut sent = Sent::default();
        sent.note(&hidden(0, 10));
        let mut sent = sent.continued(4);
        sent.note(&hidden(4, 2));
        assert_eq!(shape(&sent.replay(replay(0, 5))), [(0, 4, false), (4, 2, true)]);
    }

    #[test]
    fn frames_are_taken_once_and_in_their_order() {
        assert_eq!(arrival(5, 5, 1), Arrival::Next);
        assert_eq!(arrival(5, 3, 2), Arrival::Known);
        assert_eq!(arrival(5, 3, 4), Arrival::PartlyKnown(2));
        assert_eq!(arrival(5, 6, 1), Arrival::Early);
        assert_eq!(without(&hidden(3, 4), 2), hidden(5, 2));
    }
}
