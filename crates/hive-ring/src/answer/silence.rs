//! The time since an answer's last progress, and the checkups of its stages since then.

use std::time::{Duration, Instant};

use crate::ring::checkup::{Checkup, News};
use crate::ring::timing::silence_limit;

/// The time since the answer last made progress.
pub(super) struct SilenceTimer {
    pub(super) since: Instant,
    /// When the stages are checked next.
    pub(super) due: Instant,
    pub(super) checkup: Option<Checkup>,
    pub(super) idle_checks: u32,
    /// Whether the reader was notified; once is enough.
    pub(super) was_notified: bool,
}

/// The measures taken for a stalled answer: all its stages report that they are idle.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// The answer's tokens when it stalled. The next token ends the investigation.
    pub(super) tokens: usize,
    /// Whether the stages were rejoined and the missing rows replayed.
    pub(super) rejoined: bool,
    /// The stages that were replaced because of it.
    pub(super) suspected: Vec<usize>,
}

impl SilenceTimer {
    pub(super) fn new(expected: Duration) -> Self {
        let now = Instant::now();
        Self { since: now, due: now + silence_limit(expected), checkup: None, idle_checks: 0, was_notified: false }
    }

    /// Ends a checkup; the next one is due after this time.
    pub(super) fn check_in(&mut self, time: Duration) {
        self.checkup = None;
        self.due = Instant::now() + time;
    }

    /// Waits until a checkup is due (`None`) or has found something.
    pub(super) async fn next(&mut self) -> Option<News> {
        if let Some(checkup) = &mut self.checkup {
            return Some(checkup.next().await);
        }
        tokio::time::sleep_until(self.due.into()).await;
        None
    }
}
