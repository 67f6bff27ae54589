//! What answers show of the machines that computed them.

use std::time::Duration;

use hive_plan::Costs;
use hive_ring::Ring;

use super::Serving;

/// A prediction this far off is the noise of machines that people work on.
const NOISE: f64 = 1.5;
/// A machine that was this much faster than it says, says so from then on.
const WORTH_LEARNING: f64 = 1.1;
/// No machine is counted as slower than this part of what it says.
const SLOWEST: f64 = 1e-4;
/// Answers of fewer tokens say little about speed.
const ENOUGH_TOKENS: usize = 16;

/// The part of its claimed speed that the other machines have shown, where a token took `token_us`. What this machine's own
/// stages took is known; the rest of what is too much is the others'.
fn others_pace(token_us: f64, own_us: f64, claimed: &Costs, is_own: &[bool]) -> f64 {
    let others_claim: f64 = claimed.reading_us.iter().zip(is_own).filter(|(_, own)| !**own).map(|(us, _)| us).sum();
    let theirs = token_us - own_us - claimed.rest_us;
    if others_claim <= 0.0 || theirs <= others_claim * NOISE { 1.0 } else { (others_claim / theirs).max(SLOWEST) }
}

/// How many times as fast this machine was as it says, where that is worth a word: it measured itself when something else
/// was going on. That it was slower is no news: its owner works on it.
fn own_gain(own_us: f64, claimed: &Costs, is_own: &[bool]) -> Option<f64> {
    let own_claim: f64 = claimed.reading_us.iter().zip(is_own).filter(|(_, own)| **own).map(|(us, _)| us).sum();
    Some(own_claim / own_us).filter(|times| times.is_finite() && *times > WORTH_LEARNING)
}

impl Serving {
    /// Learns from an answer that had its stages to itself: so many tokens after the first, in so much time.
    pub(crate) async fn judge(&self, ring: &Ring, tokens: usize, time: Duration) {
        let stages = ring.stages();
        let is_own: Vec<bool> = stages.iter().map(|stage| stage.placement.addr.id() == self.member().id()).collect();
        if tokens < ENOUGH_TOKENS {
            return;
        }
        let Some(claimed) = ring.claimed_costs() else { return };
        let own_us = ring.own_token_us(&is_own).await;
        if let Some(times) = own_gain(own_us, &claimed, &is_own) {
            self.member().is_faster(times);
        }
        let pace = others_pace(time.as_secs_f64() * 1e6 / tokens as f64, own_us, &claimed, &is_own);
        let (present, own) = (self.member().peers().present(), self.member().profile().bytes_per_s);
        for stage in stages.iter().zip(&is_own).filter(|(_, own)| !**own).map(|(stage, _)| stage) {
            let id = stage.placement.addr.id();
            let claimed = present.iter().find(|(peer, _)| *peer == id).and_then(|(_, profile)| profile.bytes_per_s);
            if let (Some(claimed), true) = (claimed, pace >= 1.0) {
                self.member().trust().has_shown(id, self.member().trust().credible(id, claimed, own));
            }
            if pace < 1.0 {
                tracing::info!("{} computes at {pace:.2} of the speed it is planned with", stage.placement.name);
            }
            self.member().trust().saw(id, pace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_learns_that_it_is_faster_and_not_that_it_was_busy() {
        let claimed = Costs { reading_us: vec![8000.0, 1000.0], rest_us: 300.0 };
        assert_eq!(own_gain(4000.0, &claimed, &[true, false]), Some(2.0));
        assert_eq!(own_gain(7900.0, &claimed, &[true, false]), None);
        assert_eq!(own_gain(90_000.0, &claimed, &[true, false]), None);
        assert_eq!(own_gain(0.0, &claimed, &[false, false]), None);
    }

    #[test]
    fn what_is_too_much_is_the_others_beyond_noise() {
        let claimed = Costs { reading_us: vec![5000.0, 1000.0], rest_us: 300.0 };
        let own = [true, false];
        assert!((others_pace(6300.0, 5000.0, &claimed, &own) - 1.0).abs() < 1e-9);
        assert!((others_pace(6800.0, 5000.0, &claimed, &own) - 1.0).abs() < 1e-9);
        // Ten times what it claims.
        assert!((others_pace(15_300.0, 5000.0, &claimed, &own) - 0.1).abs() < 1e-9);
        // This machine's own slowness is not theirs.
        assert!((others_pace(15_300.0, 14_000.0, &claimed, &own) - 1.0).abs() < 1e-9);
        let alone = Costs { reading_us: vec![5000.0], rest_us: 0.0 };
        assert!((others_pace(9e9, 0.0, &alone, &[true]) - 1.0).abs() < 1e-9);
    }
}
