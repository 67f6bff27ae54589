//! A limit on a machine's sending rate, set by its owner: sends above it wait.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::token_bucket::TokenBucket;

/// Allowed burst after a pause: a token's few kilobytes never wait, a prompt's megabytes do.
const BURST: Duration = Duration::from_millis(50);

/// A rate limit shared by all streams of a machine. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Mutex<Limit>>);

/// The limit, and its unused part at this moment; none without a limit.
#[derive(Debug, Default)]
struct Limit {
    bytes_per_s: Option<f64>,
    bytes: Option<TokenBucket>,
}

impl Limit {
    fn new(bytes_per_s: Option<f64>, now: Instant) -> Self {
        let bucket = |bytes_per_s: f64| TokenBucket::new(bytes_per_s * BURST.as_secs_f64(), bytes_per_s, now);
        Self { bytes_per_s, bytes: bytes_per_s.map(bucket) }
    }

    /// How long `bytes` must wait from `now` on.
    fn wait(&mut self, bytes: usize, now: Instant) -> Duration {
        self.bytes.as_mut().map_or(Duration::ZERO, |bucket| bucket.borrow(bytes as f64, now))
    }
}

impl Pace {
    /// Sets the limit in bits per second; `None` removes it.
    pub fn limit(&self, bits_per_s: Option<u64>) {
        let bytes_per_s = bits_per_s.map(|bits| (bits.max(1) as f64) / 8.0);
        let mut limit = lock(&self.0);
        if limit.bytes_per_s != bytes_per_s {
            *limit = Limit::new(bytes_per_s, Instant::now());
        }
    }

    /// Waits until this many bytes may be sent.
    pub async fn pass(&self, bytes: usize) {
        let wait = lock(&self.0).wait(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(Limit::default().wait(1 << 30, Instant::now()), Duration::ZERO);
    }

    #[test]
    fn bytes_over_the_limit_wait_for_those_before_them() {
        let now = Instant::now();
        let mut line = Limit::new(Some(1e6), now);
        assert_eq!(line.wait(300_000, now), Duration::ZERO);
        assert_eq!(line.wait(1000, now), Duration::from_millis(250));
        assert_eq!(line.wait(1000, now), Duration::from_millis(251));
        // After a pause a token is sent immediately.
        let later = now + Duration::from_secs(1);
        assert_eq!(line.wait(1000, later), Duration::ZERO);
        assert_eq!(line.wait(1000, later), Duration::ZERO);
    }

    #[test]
    fn a_limit_that_is_lifted_counts_no_more() {
        let pace = Pace::default();
        pace.limit(Some(8));
        let wait = |bytes| pace.0.lock().unwrap().wait(bytes, Instant::now());
        assert_eq!(wait(1000), Duration::ZERO);
        assert!(wait(1000) > Duration::from_mins(15));
        pace.limit(None);
        assert_eq!(wait(1000), Duration::ZERO);
    }
}
