//! An answer that hears nothing: since when, and what it has done about it.

use std::time::{Duration, Instant};

use crate::ring::checkup::{Checkup, News};
use crate::ring::patience::patience;

/// The silence since something last came that brings the answer on.
pub(super) struct Silence {
    pub(super) since: Instant,
    /// When the stages are looked at next.
    pub(super) due: Instant,
    pub(super) checkup: Option<Checkup>,
    pub(super) idle_looks: u32,
    /// Whether whoever waits was told; once is enough.
    pub(super) was_told: bool,
}

/// What has been done to get an answer going whose stages all say that they have nothing to do.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    /// Its tokens then; with the next one all is well.
    pub(super) tokens: usize,
    /// Whether the stages were joined anew, and have sent on what was missing.
    pub(super) rejoined: bool,
    /// The stages that were replaced for it.
    pub(super) suspected: Vec<usize>,
}

impl Silence {
    pub(super) fn new(expected: Duration) -> Self {
        let now = Instant::now();
        Self { since: now, due: now + patience(expected), checkup: None, idle_looks: 0, was_told: false }
    }

    /// Ends a look; the next one is due after this time.
    pub(super) fn look_in(&mut self, time: Duration) {
        self.checkup = None;
        self.due = Instant::now() + time;
    }

    /// When it is time to look, or what a look has found.
    pub(super) async fn next(&mut self) -> Option<News> {
        if let Some(checkup) = &mut self.checkup {
            return Some(checkup.next().await);
        }
        tokio::time::sleep_until(self.due.into()).await;
        None
    }
}
