//! A limit on bytes per second, for all connections that share it.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How far ahead of the limit bytes may come: one write of each connection, without a pause between.
const BURST: Duration = Duration::from_millis(100);

/// The most bytes per second of all fetches together; no limit unless set. Clones are one limit.
///
/// A token bucket: a caller that takes more than it holds waits until it is refilled.
#[derive(Debug, Clone, Default)]
pub struct RateLimit {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bucket: Mutex<Bucket>,
    /// Ends every wait under the limit before.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Bucket {
    bytes_per_s: Option<NonZeroU64>,
    /// When all bytes so far are paid; `None` before the first.
    paid: Option<Instant>,
}

impl RateLimit {
    /// Sets the limit, for fetches under way, too; `None` is no limit.
    pub fn set(&self, bytes_per_s: Option<NonZeroU64>) {
        let mut bucket = self.bucket();
        if bucket.bytes_per_s != bytes_per_s {
            // The new limit starts with an empty debt.
            *bucket = Bucket { bytes_per_s, paid: None };
            self.shared.changed.notify_waiters();
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges bytes that have arrived, and waits until the limit allows more.
    pub(crate) async fn pay(&self, bytes: usize) {
        if self.bucket().bytes_per_s.is_none() {
            return;
        }
        let changed = self.shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let until = {
            let mut bucket = self.bucket();
            let Some(rate) = bucket.bytes_per_s else { return };
            let now = Instant::now();
            let paid = bucket.paid.map_or(now, |paid| paid.max(now));
            let paid = paid + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
            bucket.paid = Some(paid);
            paid
        };
        if until > Instant::now() + BURST {
            tokio::select! {
                () = tokio::time::sleep_until(until - BURST) => {}
                () = changed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bytes_per_s: u64) -> RateLimit {
        let limit = RateLimit::default();
        limit.set(NonZeroU64::new(bytes_per_s));
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn all_connections_together_stay_below_the_limit() {
        let start = Instant::now();
        let limit = limit(1_000_000);
        let connection = async |limit: RateLimit| {
            for _ in 0..50 {
                limit.pay(50_000).await;
            }
        };
        tokio::join!(connection(limit.clone()), connection(limit));
        let took = start.elapsed();
        assert!((Duration::from_millis(4900)..=Duration::from_secs(5)).contains(&took), "{took:?}");
        RateLimit::default().pay(usize::MAX).await;
        assert_eq!(start.elapsed(), took);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_changed_counts_at_once() {
        let start = Instant::now();
        let limit = limit(1_000);
        limit.pay(100).await;
        limit.set(NonZeroU64::new(1_000_000));
        limit.pay(1_000_000).await;
        let took = start.elapsed();
        assert!((Duration::from_millis(900)..=Duration::from_millis(1_100)).contains(&took), "{took:?}");
        limit.set(None);
        limit.pay(usize::MAX).await;
        assert_eq!(start.elapsed(), took);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_under_a_limit_that_is_lifted_waits_no_longer() {
        let start = Instant::now();
        let limit = limit(1);
        let lifted = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            limit.set(None);
        };
        tokio::join!(limit.pay(1_000_000), lifted);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}
