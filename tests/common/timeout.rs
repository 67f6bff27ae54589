//! Waiting for something that other processes do.

use std::time::{Duration, Instant};

/// Longer than anything here takes by far; it ends what hangs, it measures nothing.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(100);

/// Waits until something holds.
#[track_caller]
pub(crate) fn patiently(what: &str, holds: impl FnMut() -> bool) {
    patiently_or(|| what.to_owned(), holds);
}

/// Waits until something holds; what is there instead is told after waiting in vain.
#[track_caller]
pub(crate) fn patiently_or(instead: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < TEST_TIMEOUT, "in vain: {}", instead());
        std::thread::sleep(Duration::from_millis(30));
    }
}
