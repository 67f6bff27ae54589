//! When the next spot check is due.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tokens between two checks.
const EVERY: u32 = 128;

/// Counts the tokens since the last spot check.
#[derive(Debug)]
pub(super) struct Due {
    tokens: AtomicU32,
    /// The count at the last check that could not be completed: the next one waits as long as after any other.
    tokens_at_last_try: AtomicU32,
}

impl Default for Due {
    fn default() -> Self {
        // The first check comes sooner.
        Self { tokens: AtomicU32::new(EVERY / 2), tokens_at_last_try: AtomicU32::new(0) }
    }
}

impl Due {
    pub(super) fn count_token(&self) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a check is due.
    pub(super) fn is_due(&self) -> bool {
        self.tokens.load(Ordering::Relaxed).saturating_sub(self.tokens_at_last_try.load(Ordering::Relaxed)) >= EVERY
    }

    /// Whether enough tokens went unchecked that a check is worth waiting for.
    pub(super) fn is_overdue(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) >= 3 * EVERY
    }

    /// Records that a check has ended; `compared` is false if it could not be completed.
    pub(super) fn checked(&self, compared: bool) {
        if compared {
            self.tokens.store(0, Ordering::Relaxed);
        }
        self.tokens_at_last_try.store(self.tokens.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_could_not_be_completed_does_not_count_as_one() {
        let due = Due::default();
        let count = |tokens: u32| (0..tokens).for_each(|_| due.count_token());
        count(EVERY / 2 - 1);
        assert!(!due.is_due());
        count(1);
        assert!(due.is_due());
        due.checked(false);
        assert!(!due.is_due(), "it is not tried again at every token");
        count(EVERY);
        assert!(due.is_due());
        due.checked(false);
        count(EVERY);
        assert!(due.is_due() && due.is_overdue());
        due.checked(true);
        assert!(!due.is_due() && !due.is_overdue());
        count(EVERY);
        assert!(due.is_due());
    }
}
