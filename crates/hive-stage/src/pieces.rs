//! The pieces in which a session's rows are computed.
//!
//! On a GPU, a row's numbers depend on how many rows are computed together: a prompt's kernels round differently
//! from a token's. Whoever replays rows to a stage that takes over therefore sends them in the same pieces
//! as the first time.

use std::ops::Range;

/// The positions at which pieces begin, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    starts: Vec<u32>,
}

impl Pieces {
    /// Records that a piece begins at `position`.
    pub fn began(&mut self, position: u32) {
        if let Err(at) = self.starts.binary_search(&position) {
            self.starts.insert(at, position);
        }
    }

    /// Forgets the pieces that begin at `position` or later.
    pub fn truncate(&mut self, position: u32) {
        self.starts.truncate(self.starts.partition_point(|start| *start < position));
    }

    /// Takes the pieces before `position` from another session, whose rows this one continues.
    pub fn continue_from(&mut self, mut before: Self, position: u32) {
        before.truncate(position);
        before.began(position);
        before.starts.extend(self.starts.iter().filter(|start| **start > position));
        *self = before;
    }

    /// These rows, cut where their pieces begin. No cut has more than `most` rows.
    pub fn cut(&self, rows: Range<u32>, most: u32) -> impl Iterator<Item = Range<u32>> {
        let mut at = rows.start;
        let mut starts = self.starts[self.starts.partition_point(|start| *start <= rows.start)..].iter().copied();
        let mut border = starts.next();
        std::iter::from_fn(move || {
            if at >= rows.end {
                return None;
            }
            while border.is_some_and(|start| start <= at) {
                border = starts.next();
            }
            let until = border.unwrap_or(rows.end).min(rows.end).min(at.saturating_add(most));
            let piece = at..until;
            at = until;
            Some(piece)
        })
    }

    /// Its size, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.starts.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(starts: &[u32]) -> Pieces {
        let mut pieces = Pieces::default();
        for start in starts {
            pieces.began(*start);
        }
        pieces
    }

    fn cut(pieces: &Pieces, rows: Range<u32>) -> Vec<(u32, u32)> {
        pieces.cut(rows, 256).map(|piece| (piece.start, piece.end)).collect()
    }

    #[test]
    fn rows_are_cut_where_their_pieces_began() {
        let pieces = pieces(&[0, 40, 300, 301, 302]);
        assert_eq!(cut(&pieces, 0..303), [(0, 40), (40, 296), (296, 300), (300, 301), (301, 302), (302, 303)]);
        assert_eq!(cut(&pieces, 10..45), [(10, 40), (40, 45)]);
        assert_eq!(cut(&pieces, 301..302), [(301, 302)]);
        assert!(cut(&pieces, 302..302).is_empty());
        assert_eq!(cut(&Pieces::default(), 5..300), [(5, 261), (261, 300)]);
    }

    #[test]
    fn pieces_are_in_order_however_they_are_heard_of() {
        assert_eq!(pieces(&[300, 0, 40, 300]), pieces(&[0, 40, 300]));
    }

    #[test]
    fn what_is_computed_again_may_have_other_pieces() {
        let mut pieces = pieces(&[0, 40, 80]);
        pieces.truncate(40);
        assert_eq!(cut(&pieces, 0..100), [(0, 100)]);
    }

    #[test]
    fn a_session_that_continues_another_has_its_pieces_up_to_there() {
        let mut mine = pieces(&[0, 100, 101]);
        mine.continue_from(pieces(&[0, 30, 31, 32]), 31);
        assert_eq!(cut(&mine, 0..102), [(0, 30), (30, 31), (31, 100), (100, 101), (101, 102)]);
    }
}
