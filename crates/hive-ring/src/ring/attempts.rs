//! Whether the next token of a session failed because of a machine or because of the conversation. Pure.
//!
//! A stage that computes no usable numbers is replaced, and the session is replayed. If the session fails again before
//! it has got any further, replacing machines does not help: the model cannot compute this conversation, or its files
//! are damaged. Without this rule, one such conversation would cost every machine in turn its place.

use std::time::Instant;

/// A failure of a session for which a machine was blamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed<M> {
    /// The epoch of the ring; `None` if it was in a ring that is gone.
    epoch: Option<u32>,
    /// The machine.
    pub(super) blamed: M,
    /// When it was blamed.
    pub(super) at: Instant,
}

/// How far a session has got, and its failure since.
#[derive(Debug)]
pub(super) struct Attempts<M> {
    reached: u32,
    failed: Option<Failed<M>>,
}

impl<M: Copy> Attempts<M> {
    /// The attempts of a session that is opened; `failed` if the same answer failed in an earlier ring.
    pub(super) fn new(failed: Option<Failed<M>>) -> Self {
        Self { reached: 0, failed: failed.map(|failed| Failed { epoch: None, ..failed }) }
    }

    /// A token or a part of the prompt was computed, up to this position.
    pub(super) fn reach(&mut self, position: u32) {
        if position > self.reached {
            (self.reached, self.failed) = (position, None);
        }
    }

    /// The session failed in this epoch, and a machine is blamed. Returns the earlier failure if this is the second one
    /// without progress, for which no machine is to blame.
    pub(super) fn fail(&mut self, epoch: u32, blamed: M, at: Instant) -> Option<Failed<M>> {
        let earlier = self.failed.filter(|earlier| earlier.epoch.is_none_or(|before| before < epoch));
        if self.failed.is_none() {
            self.failed = Some(Failed { epoch: Some(epoch), blamed, at });
        }
        earlier
    }

    /// The failure since the latest progress.
    pub(super) fn failed(&self) -> Option<Failed<M>> {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine that was blamed first, if the conversation is at fault.
    fn fails(attempts: &mut Attempts<char>, epoch: u32, blamed: char) -> Option<char> {
        attempts.fail(epoch, blamed, Instant::now()).map(|earlier| earlier.blamed)
    }

    #[test]
    fn what_fails_again_on_another_machine_is_the_conversations_fault() {
        let mut attempts = Attempts::new(None);
        attempts.reach(7);
        assert_eq!(fails(&mut attempts, 0, 'a'), None);
        assert_eq!(fails(&mut attempts, 0, 'a'), None, "the same failure once more");
        // The new machine computes the same rows again.
        attempts.reach(5);
        attempts.reach(7);
        assert_eq!(fails(&mut attempts, 1, 'b'), Some('a'));
    }

    #[test]
    fn a_conversation_that_got_further_may_fail_again() {
        let mut attempts = Attempts::new(None);
        for (epoch, position) in (0..5).zip(10..) {
            attempts.reach(position);
            assert_eq!(fails(&mut attempts, epoch, 'a'), None);
        }
    }

    #[test]
    fn a_failure_in_a_ring_that_is_gone_counts_in_the_next() {
        let mut attempts = Attempts::new(None);
        assert_eq!(fails(&mut attempts, 4, 'a'), None);
        let mut elsewhere = Attempts::new(attempts.failed());
        assert_eq!(fails(&mut elsewhere, 0, 'b'), Some('a'));
        let mut further = Attempts::new(attempts.failed());
        further.reach(1);
        assert_eq!(fails(&mut further, 0, 'b'), None);
    }
}
