//! Sessions that ended before they were here.
//!
//! A session that is carried to another machine may end while it is on its way: whoever ends it asks the machine that is to
//! have it. What was asked is remembered until it comes.

use std::collections::VecDeque;

/// Sessions that are remembered; a stage has fewer on their way to it at a time.
const REMEMBERED: usize = 256;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It must not come, or be opened, after that.
    Closed,
    /// Its answer is done, and its cache is kept.
    Kept,
}

/// The latest of them.
#[derive(Debug, Default)]
pub(super) struct Tombstones(VecDeque<(u128, End)>);

impl Tombstones {
    pub(super) fn note(&mut self, session: u128, end: End) {
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front((session, end));
    }

    /// What was asked for last.
    pub(super) fn of(&self, session: u128) -> Option<End> {
        self.0.iter().find(|(other, _)| *other == session).map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let mut ended = Tombstones::default();
        assert_eq!(ended.of(7), None);
        ended.note(7, End::Kept);
        ended.note(8, End::Closed);
        assert_eq!((ended.of(7), ended.of(8)), (Some(End::Kept), Some(End::Closed)));
        ended.note(7, End::Closed);
        assert_eq!(ended.of(7), Some(End::Closed));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut ended = Tombstones::default();
        for session in 0..=REMEMBERED as u128 {
            ended.note(session, End::Closed);
        }
        assert_eq!((ended.of(0), ended.of(1)), (None, Some(End::Closed)));
    }
}
