//! How long to wait before another attempt, and when to give up: after several attempts in a row without progress.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::HubError;
use crate::hub::trouble::Trouble;
use crate::settings::Patience;

/// Attempts at a question that a person waits for.
const SHORT: u32 = 3;
/// How long a person waits without a word.
pub(crate) const SHORT_WAIT: Duration = Duration::from_secs(10);

/// The failures in a row of one request.
#[derive(Debug)]
pub(crate) struct Backoff<'a> {
    patience: &'a Patience,
    attempts: u32,
    longest_wait: Duration,
    failures: u32,
}

impl<'a> Backoff<'a> {
    /// As patient as the settings.
    pub(crate) fn new(patience: &'a Patience) -> Self {
        Self { patience, attempts: patience.attempts, longest_wait: patience.longest_wait, failures: 0 }
    }

    /// For a question that a person waits for.
    pub(crate) fn short(patience: &'a Patience) -> Self {
        let (attempts, longest_wait) = (patience.attempts.min(SHORT), patience.longest_wait.min(SHORT_WAIT));
        Self { patience, attempts, longest_wait, failures: 0 }
    }

    /// Something came.
    pub(crate) fn progress(&mut self) {
        self.failures = 0;
    }

    /// The wait after a failure, or the error if waiting does not help.
    pub(crate) fn after(&mut self, trouble: Trouble) -> Result<Duration, HubError> {
        let (error, asked) = match trouble {
            Trouble::Lasting(error) => return Err(error),
            Trouble::Passing(error, asked) => (error, asked),
        };
        self.failures += 1;
        let longest = self.longest_wait;
        if self.failures >= self.attempts || asked.is_some_and(|wait| wait > longest) {
            return Err(error);
        }
        let doubled = self.patience.first_wait.saturating_mul(1 << (self.failures - 1).min(16)).min(longest);
        // Those who failed together do not come back together.
        Ok(asked.unwrap_or_default() + doubled.mul_f64(0.75 + 0.5 * random()))
    }
}

/// A random number from 0 to 1, good enough to spread requests.
fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(again_in: Option<Duration>) -> Trouble {
        Trouble::Passing(HubError::Busy { host: "hub".into(), status: 429, again_in }, again_in)
    }

    #[test]
    fn waits_double_and_end_after_several_attempts_without_progress() {
        let patience = Patience { attempts: 4, first_wait: Duration::from_secs(1), ..Patience::default() };
        let mut backoff = Backoff::new(&patience);
        for _ in 0..2 {
            for base in [1.0, 2.0, 4.0] {
                let wait = backoff.after(busy(None)).unwrap().as_secs_f64();
                assert!((base * 0.75..=base * 1.25).contains(&wait), "{wait} for {base}");
            }
            backoff.progress();
        }
        for _ in 0..3 {
            backoff.after(busy(None)).unwrap();
        }
        assert!(backoff.after(busy(None)).is_err());
    }

    #[test]
    fn the_hub_is_not_asked_before_it_wants_and_not_waited_for_too_long() {
        let patience = Patience::default();
        let mut backoff = Backoff::new(&patience);
        assert!(backoff.after(busy(Some(Duration::from_mins(2)))).unwrap() >= Duration::from_mins(2));
        assert!(backoff.after(busy(Some(Duration::from_hours(1)))).is_err());
        assert!(backoff.after(Trouble::Lasting(HubError::Offline)).is_err());
    }
}
