//! The wait before another attempt, and when to stop: after several attempts in a row without progress.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::HubError;
use crate::hub::failure::RequestFailure;
use crate::settings::RetryPolicy;

/// Attempts at a request that a person waits for.
const SHORT: u32 = 3;
/// How long a person waits without a word.
pub(crate) const SHORT_WAIT: Duration = Duration::from_secs(10);

/// The failures in a row of one request.
#[derive(Debug)]
pub(crate) struct Backoff<'a> {
    retry_policy: &'a RetryPolicy,
    attempts: u32,
    longest_wait: Duration,
    failures: u32,
}

impl<'a> Backoff<'a> {
    /// With the settings' attempts and waits.
    pub(crate) fn new(retry_policy: &'a RetryPolicy) -> Self {
        Self { retry_policy, attempts: retry_policy.attempts, longest_wait: retry_policy.longest_wait, failures: 0 }
    }

    /// For a request that a person waits for.
    pub(crate) fn short(retry_policy: &'a RetryPolicy) -> Self {
        let (attempts, longest_wait) = (retry_policy.attempts.min(SHORT), retry_policy.longest_wait.min(SHORT_WAIT));
        Self { retry_policy, attempts, longest_wait, failures: 0 }
    }

    /// Resets the count: bytes arrived.
    pub(crate) fn progress(&mut self) {
        self.failures = 0;
    }

    /// The wait after a failure, or the error if waiting does not help.
    pub(crate) fn after(&mut self, failure: RequestFailure) -> Result<Duration, HubError> {
        let (error, asked) = match failure {
            RequestFailure::Permanent(error) => return Err(error),
            RequestFailure::Transient(error, asked) => (error, asked),
        };
        self.failures += 1;
        let longest = self.longest_wait;
        if self.failures >= self.attempts || asked.is_some_and(|wait| wait > longest) {
            return Err(error);
        }
        let doubled = self.retry_policy.first_wait.saturating_mul(1 << (self.failures - 1).min(16)).min(longest);
        // Jitter: requests that failed together are not repeated together.
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

    fn busy(again_in: Option<Duration>) -> RequestFailure {
        RequestFailure::Transient(HubError::Busy { host: "hub".into(), status: 429, again_in }, again_in)
    }

    #[test]
    fn waits_double_and_end_after_several_attempts_without_progress() {
        let retry_policy = RetryPolicy { attempts: 4, first_wait: Duration::from_secs(1), ..RetryPolicy::default() };
        let mut backoff = Backoff::new(&retry_policy);
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
        let retry_policy = RetryPolicy::default();
        let mut backoff = Backoff::new(&retry_policy);
        assert!(backoff.after(busy(Some(Duration::from_mins(2)))).unwrap() >= Duration::from_mins(2));
        assert!(backoff.after(busy(Some(Duration::from_hours(1)))).is_err());
        assert!(backoff.after(RequestFailure::Permanent(HubError::Offline)).is_err());
    }
}
