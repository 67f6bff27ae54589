//! A failure detector, fed by answers to heartbeats. Pure: the caller passes the time.
//!
//! QUIC notices a dead peer after 15 to 30 seconds; people notice after two. A stopped process's machine still answers
//! at every layer below, so only an answer from the process itself counts.

use std::time::{Duration, Instant};

/// Interval between heartbeats.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Silence after which a peer is considered gone: five heartbeats, enough for a machine whose cores are all busy.
const SILENCE: Duration = Duration::from_millis(1250);

/// If this side did not run for this long, silence says nothing about the peer.
const OWN_LAG: Duration = Duration::from_millis(500);

/// A verdict of the failure detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Alive,
    /// It has not answered for too long.
    Silent,
}

/// The failure detector of one peer.
#[derive(Debug, Clone)]
pub struct FailureDetector {
    /// When the latest answer came.
    answered: Instant,
    /// Start of the silence that counts.
    heard: Instant,
    looked: Instant,
}

impl FailureDetector {
    /// Starts as if an answer had just come.
    pub fn new(now: Instant) -> Self {
        Self { answered: now, heard: now, looked: now }
    }

    /// Records an answer.
    pub fn answered(&mut self, now: Instant) {
        self.answered = now;
        self.heard = now;
    }

    /// When the latest answer came.
    pub fn last_answer(&self) -> Instant {
        self.answered
    }

    /// Judges the peer; call it once every [`INTERVAL`].
    pub fn judge(&mut self, now: Instant) -> Verdict {
        let lag = now.saturating_duration_since(self.looked).saturating_sub(INTERVAL);
        self.looked = now;
        if lag > OWN_LAG {
            // This machine slept, or its cores were all busy: answers may be waiting to be read.
            self.heard = self.heard.max(now.checked_sub(SILENCE / 2).unwrap_or(now));
        }
        if now.saturating_duration_since(self.heard) > SILENCE { Verdict::Silent } else { Verdict::Alive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_stops_answering_is_noticed_within_two_seconds() {
        let start = Instant::now();
        let mut detector = FailureDetector::new(start);
        let noticed =
            (1..100).map(|n| start + INTERVAL * n).find(|&now| detector.judge(now) == Verdict::Silent).unwrap();
        assert!(noticed - start <= Duration::from_millis(1750), "{:?}", noticed - start);
    }

    #[test]
    fn late_answers_are_answers() {
        let start = Instant::now();
        let mut detector = FailureDetector::new(start);
        for n in 1..1000 {
            let now = start + INTERVAL * n;
            if n % 4 == 0 {
                detector.answered(now);
            }
            assert_eq!(detector.judge(now), Verdict::Alive, "beat {n}");
        }
    }

    #[test]
    fn a_machine_that_wakes_up_does_not_blame_the_others() {
        let start = Instant::now();
        let mut detector = FailureDetector::new(start);
        let woken = start + Duration::from_hours(1);
        assert_eq!(detector.judge(woken), Verdict::Alive);
        let mut noticed = woken;
        while detector.judge(noticed) == Verdict::Alive {
            noticed += INTERVAL;
        }
        assert!(noticed - woken <= SILENCE, "and still notices the dead");
    }
}
