//! The prefix cache: the sessions that the stages retain after their answers, and the choice of one that shares a
//! prefix with a new prompt.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hive_model::AdapterId;
use hive_protocol::Continued;
use hive_stage::{AdapterFiles, Pieces};

/// Maximum number of retained sessions.
const MOST_SESSIONS: usize = 8;
/// A shorter common prefix is most likely the chat template's own text and not worth a session.
const SHORTEST: usize = 16;
/// A person who has not sent the next turn after this time is probably doing something else.
const WARM_FOR: Duration = Duration::from_mins(10);

/// A session that the stages retain.
#[derive(Debug)]
struct Retained {
    session: u128,
    /// The tokens in its KV caches.
    tokens: Vec<u32>,
    /// The pieces in which they were computed.
    pieces: Pieces,
    /// The adapter that they were computed with.
    adapter: Option<AdapterFiles>,
}

/// The retained sessions, the most recent last.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    sessions: VecDeque<Retained>,
    most_tokens: usize,
    /// A session's fixed memory, as a number of tokens.
    own_tokens: usize,
    /// When the most recent one was retained.
    latest: Option<Instant>,
}

impl PrefixCache {
    /// Retains at most this many tokens in all, where each session takes `own_tokens` beside its own.
    pub(crate) fn new(most_tokens: usize, own_tokens: usize) -> Self {
        Self { sessions: VecDeque::new(), most_tokens, own_tokens, latest: None }
    }

    /// Retains a session; returns those that have to make room for it.
    pub(crate) fn retain(
        &mut self,
        session: u128,
        tokens: Vec<u32>,
        pieces: Pieces,
        adapter: Option<AdapterFiles>,
    ) -> Vec<u128> {
        self.sessions.push_back(Retained { session, tokens, pieces, adapter });
        self.latest = Some(Instant::now());
        let mut dropped = Vec::new();
        let own_tokens = self.own_tokens;
        let total = |sessions: &VecDeque<Retained>| {
            sessions.iter().map(|retained| retained.tokens.len() + own_tokens).sum::<usize>()
        };
        while self.sessions.len() > MOST_SESSIONS || total(&self.sessions) > self.most_tokens {
            dropped.extend(self.sessions.pop_front().map(|retained| retained.session));
        }
        dropped
    }

    /// Drops all sessions and returns them.
    pub(crate) fn clear(&mut self) -> Vec<u128> {
        self.sessions.drain(..).map(|retained| retained.session).collect()
    }

    /// The adapters of the retained sessions.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = &AdapterFiles> {
        self.sessions.iter().filter_map(|retained| retained.adapter.as_ref())
    }

    /// Whether no session is retained.
    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether a session was retained so recently that its next turn is likely.
    pub(crate) fn is_warm(&self, now: Instant) -> bool {
        !self.is_empty() && self.latest.is_some_and(|latest| now < latest + WARM_FOR)
    }

    /// Takes out the session that has the longest common prefix with `tokens`, and the pieces in which it was computed.
    /// At least one token is left to compute, from which the next is sampled. Only what this adapter computed counts.
    pub(crate) fn reuse(&mut self, tokens: &[u32], adapter: Option<AdapterId>) -> Option<(Continued, Pieces)> {
        let common = |retained: &[u32]| {
            let equal = retained.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            equal.min(tokens.len().saturating_sub(1))
        };
        let (index, position) = self
            .sessions
            .iter()
            .enumerate()
            .filter(|(_, retained)| retained.adapter.as_ref().map(AdapterFiles::id) == adapter)
            .map(|(index, retained)| (index, common(&retained.tokens)))
            .max_by_key(|(_, position)| *position)
            .filter(|(_, position)| *position >= SHORTEST)?;
        let Retained { session, pieces, .. } = self.sessions.remove(index)?;
        Some((Continued { session, position: position as u32 }, pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_TOKENS: usize = 4096;

    fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    fn retain(cache: &mut PrefixCache, session: u128, tokens: Vec<u32>) -> Vec<u128> {
        cache.retain(session, tokens, Pieces::default(), None)
    }

    fn reuse(cache: &mut PrefixCache, tokens: &[u32]) -> Option<Continued> {
        cache.reuse(tokens, None).map(|(continued, _)| continued)
    }

    #[test]
    fn the_longest_prefix_is_reused_once() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        assert!(retain(&mut cache, 1, tokens(0..30)).is_empty());
        assert!(retain(&mut cache, 2, tokens(0..60)).is_empty());
        assert_eq!(reuse(&mut cache, &tokens(0..100)), Some(Continued { session: 2, position: 60 }));
        assert_eq!(reuse(&mut cache, &tokens(0..100)), Some(Continued { session: 1, position: 30 }));
        assert_eq!(reuse(&mut cache, &tokens(0..100)), None);
    }

    #[test]
    fn a_session_comes_with_the_pieces_that_it_was_computed_in() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        let mut pieces = Pieces::default();
        pieces.began(20);
        cache.retain(1, tokens(0..30), pieces.clone(), None);
        assert_eq!(cache.reuse(&tokens(0..40), None).map(|(_, pieces)| pieces), Some(pieces));
    }

    #[test]
    fn what_another_adapter_computed_is_not_reused() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        let folder = tempfile::tempdir().unwrap();
        for name in ["adapter_config.json", "adapters.safetensors"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let files = AdapterFiles::open(folder.path()).unwrap();
        let (mine, other) = (Some(files.id()), Some(AdapterId([2; 32])));
        cache.retain(1, tokens(0..30), Pieces::default(), Some(files));
        assert_eq!(cache.adapters().map(AdapterFiles::id).collect::<Vec<_>>(), [mine.unwrap()]);
        cache.retain(2, tokens(0..30), Pieces::default(), None);
        assert!(cache.reuse(&tokens(0..40), other).is_none());
        let session = |reused: Option<(Continued, Pieces)>| reused.map(|(continued, _)| continued.session);
        assert_eq!(session(cache.reuse(&tokens(0..40), mine)), Some(1));
        assert_eq!(session(cache.reuse(&tokens(0..40), None)), Some(2));
    }

    #[test]
    fn a_session_that_was_left_long_ago_is_not_waited_for() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        let soon = Instant::now() + WARM_FOR / 2;
        assert!(!cache.is_warm(soon));
        retain(&mut cache, 1, tokens(0..30));
        assert!(cache.is_warm(soon) && !cache.is_warm(soon + WARM_FOR));
        reuse(&mut cache, &tokens(0..30));
        assert!(!cache.is_warm(soon));
    }

    #[test]
    fn all_sessions_that_are_dropped_are_named() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        retain(&mut cache, 1, tokens(0..30));
        retain(&mut cache, 2, tokens(0..60));
        assert_eq!(cache.clear(), [1, 2]);
        assert!(cache.is_empty() && reuse(&mut cache, &tokens(0..100)).is_none());
    }

    #[test]
    fn the_same_prompt_again_leaves_one_token_to_compute() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        retain(&mut cache, 1, tokens(0..50));
        assert_eq!(reuse(&mut cache, &tokens(0..40)), Some(Continued { session: 1, position: 39 }));
    }

    #[test]
    fn another_conversation_reuses_nothing() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        retain(&mut cache, 1, tokens(0..50));
        let other: Vec<u32> = tokens(0..10).into_iter().chain(tokens(70..120)).collect();
        assert_eq!(reuse(&mut cache, &other), None);
        assert_eq!(reuse(&mut cache, &tokens(0..51)), Some(Continued { session: 1, position: 50 }));
    }

    #[test]
    fn the_cache_stays_within_bounds_and_the_oldest_session_goes() {
        let mut cache = PrefixCache::new(MOST_TOKENS, 0);
        for session in 0..MOST_SESSIONS as u128 {
            assert!(retain(&mut cache, session, tokens(0..20)).is_empty());
        }
        assert_eq!(retain(&mut cache, 99, tokens(0..20)), [0]);
        let dropped = retain(&mut cache, 100, tokens(0..MOST_TOKENS as u32));
        assert_eq!(dropped.len(), MOST_SESSIONS);
        assert_eq!(retain(&mut cache, 101, tokens(0..MOST_TOKENS as u32 + 1)), [100, 101]);
        // A session's fixed memory counts as well.
        let mut cache = PrefixCache::new(100, 30);
        assert!(retain(&mut cache, 1, tokens(0..20)).is_empty());
        assert!(retain(&mut cache, 2, tokens(0..20)).is_empty());
        assert_eq!(retain(&mut cache, 3, tokens(0..20)), [1]);
    }
}
