//! Conversations that may go on: which sessions are kept in the stages' caches after their answers, and which of them has the
//! beginning of a new prompt.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hive_protocol::Continued;

/// Sessions kept at a time.
const MOST_SESSIONS: usize = 8;
/// A shorter beginning in common is most likely the template's own words, and not worth a kept session.
const SHORTEST: usize = 16;
/// Whoever has not gone on by then most likely does something else.
const WARM_FOR: Duration = Duration::from_mins(10);

/// The sessions, the one used last at the end.
#[derive(Debug)]
pub(crate) struct Kept {
    sessions: VecDeque<(u128, Vec<u32>)>,
    most_tokens: usize,
    /// When the latest of them came.
    latest: Option<Instant>,
}

impl Kept {
    /// Keeps so many tokens in all.
    pub(crate) fn new(most_tokens: usize) -> Self {
        Self { sessions: VecDeque::new(), most_tokens, latest: None }
    }

    /// Keeps a session; gives those that have to make room for it.
    pub(crate) fn add(&mut self, session: u128, tokens: Vec<u32>) -> Vec<u128> {
        self.sessions.push_back((session, tokens));
        self.latest = Some(Instant::now());
        let mut forgotten = Vec::new();
        let total =
            |sessions: &VecDeque<(u128, Vec<u32>)>| sessions.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
        while self.sessions.len() > MOST_SESSIONS || total(&self.sessions) > self.most_tokens {
            forgotten.extend(self.sessions.pop_front().map(|(session, _)| session));
        }
        forgotten
    }

    /// Forgets all of them; gives them.
    pub(crate) fn clear(&mut self) -> Vec<u128> {
        self.sessions.drain(..).map(|(session, _)| session).collect()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether there are some, and one of them is likely to be gone on with.
    pub(crate) fn is_warm(&self, now: Instant) -> bool {
        !self.is_empty() && self.latest.is_some_and(|latest| now < latest + WARM_FOR)
    }

    /// Takes out the session that has the longest beginning of `tokens`. One token at least is left to compute: it brings
    /// the next.
    pub(crate) fn take(&mut self, tokens: &[u32]) -> Option<Continued> {
        let common = |kept: &[u32]| {
            let alike = kept.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            alike.min(tokens.len().saturating_sub(1))
        };
        let (index, position) = self
            .sessions
            .iter()
            .enumerate()
            .map(|(index, (_, kept))| (index, common(kept)))
            .max_by_key(|(_, position)| *position)
            .filter(|(_, position)| *position >= SHORTEST)?;
        let (session, _) = self.sessions.remove(index)?;
        Some(Continued { session, position: position as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_TOKENS: usize = 4096;

    fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    #[test]
    fn the_longest_beginning_is_taken_once() {
        let mut kept = Kept::new(MOST_TOKENS);
        assert!(kept.add(1, tokens(0..30)).is_empty());
        assert!(kept.add(2, tokens(0..60)).is_empty());
        assert_eq!(kept.take(&tokens(0..100)), Some(Continued { session: 2, position: 60 }));
        assert_eq!(kept.take(&tokens(0..100)), Some(Continued { session: 1, position: 30 }));
        assert_eq!(kept.take(&tokens(0..100)), None);
    }

    #[test]
    fn what_was_left_long_ago_is_not_waited_for() {
        let mut kept = Kept::new(MOST_TOKENS);
        let soon = Instant::now() + WARM_FOR / 2;
        assert!(!kept.is_warm(soon));
        kept.add(1, tokens(0..30));
        assert!(kept.is_warm(soon) && !kept.is_warm(soon + WARM_FOR));
        kept.take(&tokens(0..30));
        assert!(!kept.is_warm(soon));
    }

    #[test]
    fn all_that_is_forgotten_is_named() {
        let mut kept = Kept::new(MOST_TOKENS);
        kept.add(1, tokens(0..30));
        kept.add(2, tokens(0..60));
        assert_eq!(kept.clear(), [1, 2]);
        assert!(kept.is_empty() && kept.take(&tokens(0..100)).is_none());
    }

    #[test]
    fn the_same_prompt_again_leaves_one_token_to_compute() {
        let mut kept = Kept::new(MOST_TOKENS);
        kept.add(1, tokens(0..50));
        assert_eq!(kept.take(&tokens(0..40)), Some(Continued { session: 1, position: 39 }));
    }

    #[test]
    fn another_conversation_begins_anew() {
        let mut kept = Kept::new(MOST_TOKENS);
        kept.add(1, tokens(0..50));
        let other: Vec<u32> = tokens(0..10).into_iter().chain(tokens(70..120)).collect();
        assert_eq!(kept.take(&other), None);
        assert_eq!(kept.take(&tokens(0..51)), Some(Continued { session: 1, position: 50 }));
    }

    #[test]
    fn what_is_kept_stays_within_bounds_and_the_oldest_goes() {
        let mut kept = Kept::new(MOST_TOKENS);
        for session in 0..MOST_SESSIONS as u128 {
            assert!(kept.add(session, tokens(0..20)).is_empty());
        }
        assert_eq!(kept.add(99, tokens(0..20)), [0]);
        let forgotten = kept.add(100, tokens(0..MOST_TOKENS as u32));
        assert_eq!(forgotten.len(), MOST_SESSIONS);
        assert_eq!(kept.add(101, tokens(0..MOST_TOKENS as u32 + 1)), [100, 101]);
    }
}
