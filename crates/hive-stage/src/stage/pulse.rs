//! Whether a stage is alive: what its worker owes, how long it has been silent, and whether the next machine holds it
//! up.
//!
//! The actor updates this, and checks read it without the actor: while the actor waits for a machine that accepts
//! nothing, it cannot answer, but it is not the one that hangs. The time of each token step is passed on to the copies of
//! models, which give way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hive_protocol::{Arithmetic, Pulse};

use crate::copies::{Copies, Steps};

/// The state of a worker, known without asking it. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    arithmetic: Arithmetic,
    /// Rows ordered in each session that are not done yet.
    owed: HashMap<u128, u32>,
    /// The same for sessions that ended since the worker last spoke: it may still be computing them.
    ended: u32,
    /// Since when the worker has owed rows and been silent.
    since: Option<Instant>,
    is_sending: bool,
    copies: Copies,
    /// The token steps so far, and the one that is being timed.
    steps: Steps,
    timed: Option<Timed>,
}

/// A token that is timed from its order to its output. Of a batch, only one session is: the outputs of the others follow at
/// once.
#[derive(Debug)]
struct Timed {
    session: u128,
    since: Instant,
    /// What had been copied when it began.
    copied_bytes: u64,
    /// Tokens that have come since, of any session.
    tokens: usize,
}

impl State {
    fn owed_rows(&self) -> u32 {
        self.owed.values().fold(self.ended, |sum, rows| sum.saturating_add(*rows))
    }

    /// Notes a token, which may be the end of a step.
    fn token(&mut self, session: u128) {
        let Some(timed) = &mut self.timed else { return };
        timed.tokens += 1;
        if timed.session == session {
            let (took, tokens) = (timed.since.elapsed(), timed.tokens);
            let copied_bytes = self.copies.bytes().saturating_sub(timed.copied_bytes);
            self.copies.stepped(&mut self.steps, took, tokens, copied_bytes);
            self.timed = None;
        }
    }
}

impl Activity {
    pub(super) fn new(arithmetic: Arithmetic, copies: Copies) -> Self {
        Self(Arc::new(Mutex::new(State {
            arithmetic,
            owed: HashMap::new(),
            ended: 0,
            since: None,
            is_sending: false,
            copies,
            steps: Steps::default(),
            timed: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records rows ordered from the worker.
    pub(super) fn ordered(&self, session: u128, rows: u32) {
        let mut state = self.lock();
        let owed = state.owed.entry(session).or_default();
        *owed = owed.saturating_add(rows);
        if rows > 1 {
            // What follows a prompt is another answer.
            state.steps = Steps::default();
            state.timed = None;
        } else if state.timed.is_none() {
            let copied_bytes = state.copies.bytes();
            state.timed = Some(Timed { session, since: Instant::now(), copied_bytes, tokens: 0 });
        }
        state.since.get_or_insert_with(Instant::now);
    }

    /// Records a message of the worker, and the rows of a session that are done with it.
    pub(super) fn spoke(&self, done: Option<(u128, u32)>) {
        let mut state = self.lock();
        if let Some((session, 1)) = done {
            state.token(session);
        }
        state.ended = 0;
        if let Some((session, rows)) = done
            && let Some(owed) = state.owed.get_mut(&session)
        {
            *owed = owed.saturating_sub(rows);
            if *owed == 0 {
                state.owed.remove(&session);
            }
        }
        state.since = (!state.owed.is_empty()).then(Instant::now);
    }

    /// Records that a session has ended.
    pub(super) fn ended(&self, session: u128) {
        let mut state = self.lock();
        if let Some(rows) = state.owed.remove(&session) {
            state.ended = state.ended.saturating_add(rows);
        }
        if state.timed.as_ref().is_some_and(|timed| timed.session == session) {
            state.timed = None;
        }
    }

    /// Records whether a frame is waiting for the next machine to accept it.
    pub(super) fn sending(&self, is_sending: bool) {
        self.lock().is_sending = is_sending;
    }

    /// The pulse for a check that began at `asked`; `passed` is whether its request has passed the worker.
    pub(super) fn pulse(&self, passed: bool, asked: Instant) -> Pulse {
        let state = self.lock();
        let since = state.since.map_or(asked, |since| since.min(asked));
        Pulse {
            passed,
            owed_rows: state.owed_rows(),
            quiet_ms: if passed && state.since.is_none() { 0 } else { since.elapsed().as_millis() as u64 },
            held_up: !passed && state.is_sending,
            arithmetic: state.arithmetic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(activity: &Activity) -> u32 {
        activity.pulse(false, Instant::now()).owed_rows
    }

    #[test]
    fn sessions_that_are_computed_together_are_one_step() {
        let activity = Activity::new(Arithmetic::Exact, Copies::default());
        for _ in 0..3 {
            for session in 1..=4 {
                activity.ordered(session, 1);
            }
            assert_eq!(activity.lock().timed.as_ref().map(|timed| timed.session), Some(1));
            activity.spoke(Some((2, 1)));
            activity.spoke(Some((3, 1)));
            assert_eq!(activity.lock().timed.as_ref().map(|timed| timed.tokens), Some(2));
            activity.spoke(Some((4, 1)));
            activity.spoke(Some((1, 1)));
            assert!(activity.lock().timed.is_none(), "it was noted");
        }
        // Whoever ends is not waited for, and a prompt is no token.
        activity.ordered(1, 1);
        activity.ended(1);
        activity.ordered(5, 1);
        assert_eq!(activity.lock().timed.as_ref().map(|timed| timed.session), Some(5));
        activity.ordered(6, 30);
        assert!(activity.lock().timed.is_none());
    }

    #[test]
    fn a_worker_owes_what_it_was_given_until_it_is_done() {
        let activity = Activity::new(Arithmetic::Exact, Copies::default());
        activity.ordered(1, 256);
        activity.ordered(2, 1);
        assert_eq!(owed(&activity), 257);
        activity.spoke(Some((1, 100)));
        assert_eq!(owed(&activity), 157);
        activity.spoke(Some((1, 156)));
        activity.spoke(Some((2, 1)));
        assert_eq!(owed(&activity), 0);
        assert_eq!(activity.pulse(true, Instant::now()).quiet_ms, 0);
    }

    #[test]
    fn a_worker_may_still_be_busy_with_what_nobody_wants_any_more() {
        let activity = Activity::new(Arithmetic::Exact, Copies::default());
        activity.ordered(1, 1024);
        activity.ended(1);
        assert_eq!(owed(&activity), 1024);
        activity.spoke(None);
        assert_eq!(owed(&activity), 0);
    }

    #[test]
    fn only_a_stage_that_did_not_answer_is_held_up() {
        let activity = Activity::new(Arithmetic::Exact, Copies::default());
        activity.sending(true);
        assert!(activity.pulse(false, Instant::now()).held_up);
        assert!(!activity.pulse(true, Instant::now()).held_up);
    }
}
