//! Tombstones: sessions that ended before they arrived.
//!
//! A session may end while it is handed over to another machine. The request to end it goes to the new machine, which
//! remembers it until the session arrives.

use std::collections::VecDeque;

/// Maximum number remembered; fewer are on their way to a stage at a time.
const REMEMBERED: usize = 256;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is closed: it must not arrive or be opened any more.
    Closed,
    /// Its answer is done, and its cache is kept.
    Kept,
}

/// The latest tombstones.
#[derive(Debug, Default)]
pub(super) struct Tombstones(VecDeque<(u128, End)>);

impl Tombstones {
    pub(super) fn note(&mut self, session: u128, end: End) {
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front((session, end));
    }

    /// The latest request to end a session.
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
