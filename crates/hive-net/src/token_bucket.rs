//! A limit on how often, or how much: what is taken comes back over time.

use std::time::{Duration, Instant};

/// A token bucket.
#[derive(Debug)]
pub struct TokenBucket {
    most: f64,
    regained_per_s: f64,
    left: f64,
    since: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(most: f64, regained_per_s: f64, now: Instant) -> Self {
        Self { most, regained_per_s, left: most, since: now }
    }

    fn refill(&mut self, now: Instant) {
        let regained = now.saturating_duration_since(self.since).as_secs_f64() * self.regained_per_s;
        self.left = (self.left + regained).min(self.most);
        self.since = now;
    }

    /// Whether a token is available.
    pub fn has_one(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= 1.0
    }

    /// Whether the bucket is full.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= self.most
    }

    /// Takes a token if one is available.
    pub fn take(&mut self, now: Instant) -> bool {
        let has_one = self.has_one(now);
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }

    /// Takes this much, whether or not the bucket holds it, and returns how long to wait until it has regained what was taken
    /// before.
    pub(crate) fn borrow(&mut self, amount: f64, now: Instant) -> Duration {
        self.refill(now);
        let owed = (-self.left).max(0.0);
        self.left -= amount;
        Duration::try_from_secs_f64(owed / self.regained_per_s).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_over_time() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(2.0, 1.0, now);
        assert!(bucket.take(now) && bucket.take(now) && !bucket.take(now));
        assert!(bucket.take(now + Duration::from_secs(1)));
        assert!(!bucket.is_full(now + Duration::from_secs(2)) && bucket.is_full(now + Duration::from_secs(3)));
    }

    #[test]
    fn what_is_borrowed_is_waited_for_by_the_next() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(1.0, 2.0, now);
        assert_eq!(bucket.borrow(5.0, now), Duration::ZERO);
        assert_eq!(bucket.borrow(1.0, now), Duration::from_secs(2));
        assert!(!bucket.take(now + Duration::from_secs(2)));
        assert_eq!(bucket.borrow(1.0, now + Duration::from_mins(1)), Duration::ZERO);
    }
}
