//! A limit on bytes per second, for all connections of a fetch together.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far ahead of the limit bytes may come: one write of each connection, without a pause between.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket. Whoever takes more than there is waits until it is paid.
#[derive(Debug)]
pub(crate) struct Limit {
    bytes_per_s: Option<NonZeroU64>,
    /// When all bytes so far are paid.
    paid: Mutex<Instant>,
}

impl Limit {
    pub(crate) fn new(bytes_per_s: Option<NonZeroU64>) -> Self {
        Self { bytes_per_s, paid: Mutex::new(Instant::now()) }
    }

    /// Pays for bytes that have arrived.
    pub(crate) async fn pay(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else { return };
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid = (*paid).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
            *paid
        };
        if until > Instant::now() + BURST {
            tokio::time::sleep_until(until - BURST).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_connections_together_stay_below_the_limit() {
        let start = Instant::now();
        let limit = Limit::new(NonZeroU64::new(1_000_000));
        let connection = async || {
            for _ in 0..50 {
                limit.pay(50_000).await;
            }
        };
        tokio::join!(connection(), connection());
        let took = start.elapsed();
        assert!((Duration::from_millis(4900)..=Duration::from_secs(5)).contains(&took), "{took:?}");
        Limit::new(None).pay(usize::MAX).await;
        assert_eq!(start.elapsed(), took);
    }
}
