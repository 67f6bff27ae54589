//! Digests of a stage's inputs, row by row, for comparison with another machine's.

use std::ops::Range;

use hive_net::{Frame, Kind};
use hive_protocol::{RowDigest, digests};

/// The digests of a session's rows, from the position at which it arrived on this machine.
#[derive(Debug, Default)]
pub(super) struct Received {
    from: u32,
    digests: Vec<RowDigest>,
}

impl Received {
    /// For a session whose next row is at `position`.
    pub(super) fn starting_at(position: u32) -> Self {
        Self { from: position, digests: Vec::new() }
    }

    /// Records rows. After a failure, rows at known positions replace the earlier ones.
    pub(super) fn note(&mut self, frame: &Frame) {
        *self = std::mem::take(self).continued(frame.position);
        match frame.kind {
            Kind::Token => self.digests.extend(frame.payload.get(..4).map(RowDigest::of)),
            _ => self.digests.extend(digests(&frame.payload, frame.rows as usize)),
        }
    }

    /// The digests of a conversation that continues from `position`.
    pub(super) fn continued(mut self, position: u32) -> Self {
        if position < self.from {
            return Self::starting_at(position);
        }
        self.digests.truncate((position - self.from) as usize);
        // If rows before `position` are missing, none are kept.
        if self.from + self.digests.len() as u32 == position { self } else { Self::starting_at(position) }
    }

    /// The digests of these rows, if all of them are known.
    pub(super) fn rows(&self, rows: &Range<u32>) -> Option<Vec<RowDigest>> {
        let (start, end) = (rows.start.checked_sub(self.from)?, rows.end.checked_sub(self.from)?);
        self.digests.get(start as usize..end as usize).map(<[RowDigest]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use hive_protocol::token_digests;

    use super::*;
    use crate::stage::prompt_frame;

    #[test]
    fn rows_are_known_however_they_came() {
        let (mut together, mut apart) = (Received::default(), Received::default());
        together.note(&prompt_frame(1, 0, &[5, 6, 7], false));
        for (position, token) in [5, 6, 7].into_iter().enumerate() {
            apart.note(&prompt_frame(1, position as u32, &[token], false));
        }
        assert_eq!(together.rows(&(0..3)), apart.rows(&(0..3)));
        assert_eq!(together.rows(&(1..3)), Some(token_digests(&[6, 7])));
        assert_eq!(together.rows(&(1..4)), None);
    }

    #[test]
    fn a_position_that_comes_again_is_noted_once() {
        let mut received = Received::starting_at(10);
        received.note(&prompt_frame(1, 10, &[5, 6, 7], false));
        received.note(&prompt_frame(1, 11, &[8], false));
        assert_eq!(received.rows(&(10..12)), Some(token_digests(&[5, 8])));
        assert_eq!(received.rows(&(12..13)), None);
    }

    #[test]
    fn what_was_before_is_not_known() {
        let mut received = Received::starting_at(10);
        received.note(&prompt_frame(1, 10, &[5, 6], false));
        assert_eq!(received.rows(&(9..11)), None);
        assert_eq!(received.rows(&(10..12)), Some(token_digests(&[5, 6])));
        let received = received.continued(11);
        assert_eq!(received.rows(&(10..11)), Some(token_digests(&[5])));
        assert_eq!(received.continued(3).rows(&(3..4)), None);
    }
}
