//! How fast a machine may send, where its owner has set a limit: what is over it waits its turn.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// What may go at once after a silence: a token's few kilobytes never wait, a prompt's megabytes do.
const BURST: Duration = Duration::from_millis(50);

/// A limit that all streams of a machine share. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Mutex<Line>>);

/// The line that bytes wait in.
#[derive(Debug, Default)]
struct Line {
    bytes_per_s: Option<f64>,
    /// When everything let through so far will have gone, at that speed.
    gone_at: Option<Instant>,
}

impl Line {
    /// How long so many bytes wait from `now` on.
    fn wait(&mut self, bytes: usize, now: Instant) -> Duration {
        let Some(bytes_per_s) = self.bytes_per_s else { return Duration::ZERO };
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = self.gone_at.map_or(earliest, |gone_at| gone_at.max(earliest));
        self.gone_at = Some(start + Duration::from_secs_f64(bytes as f64 / bytes_per_s));
        start.saturating_duration_since(now)
    }
}

impl Pace {
    /// Limits what is sent to so many bits per second, or not at all.
    pub fn limit(&self, bits_per_s: Option<u64>) {
        let bytes_per_s = bits_per_s.map(|bits| (bits.max(1) as f64) / 8.0);
        let mut line = lock(&self.0);
        if line.bytes_per_s != bytes_per_s {
            *line = Line { bytes_per_s, gone_at: None };
        }
    }

    /// Waits until so many bytes may go.
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
        assert_eq!(Line::default().wait(1 << 30, Instant::now()), Duration::ZERO);
    }

    #[test]
    fn bytes_over_the_limit_wait_for_those_before_them() {
        let (mut line, now) = (Line { bytes_per_s: Some(1e6), gone_at: None }, Instant::now());
        assert_eq!(line.wait(300_000, now), Duration::ZERO);
        assert_eq!(line.wait(1000, now), Duration::from_millis(250));
        assert_eq!(line.wait(1000, now), Duration::from_millis(251));
        // After a silence a token goes at once.
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
