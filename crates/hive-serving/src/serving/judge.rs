//! Learns from answers how fast the machines are.

use std::time::Duration;

use hive_plan::Costs;
use hive_ring::Ring;

use super::Serving;

/// Up to this factor, a deviation from the prediction is noise: people work on these machines.
const NOISE: f64 = 1.5;
/// This machine corrects its own claim if it is faster by more than this factor.
const WORTH_LEARNING: f64 = 1.1;
/// Minimum fraction of its claimed speed that a machine is credited with.
const SLOWEST: f64 = 1e-4;
/// Minimum length of an answer to learn from, in tokens.
const ENOUGH_TOKENS: usize = 16;

/// The fraction of their claimed speed at which the other machines computed, given the time per token. The time of this
/// machine's own stages is measured; any unexplained rest is attributed to the others.
fn others_pace(token_us: f64, own_us: f64, claimed: &Costs, is_own: &[bool]) -> f64 {
    let others_claim: f64 = claimed.reading_us.iter().zip(is_own).filter(|(_, own)| !**own).map(|(us, _)| us).sum();
    let theirs = token_us - own_us - claimed.rest_us;
    if others_claim <= 0.0 || theirs <= others_claim * NOISE { 1.0 } else { (others_claim / theirs).max(SLOWEST) }
}

/// How many times faster this machine was than it claims, if that is significant: it may have measured itself while
/// busy. Being slower is ignored: its owner may be working on it.
fn own_gain(own_us: f64, claimed: &Costs, is_own: &[bool]) -> Option<f64> {
    let own_claim: f64 = claimed.reading_us.iter().zip(is_own).filter(|(_, own)| **own).map(|(us, _)| us).sum();
    Some(own_claim / own_us).filter(|times| times.is_finite() && *times > WORTH_LEARNING)
}

impl Serving {
    /// Learns from an answer that had its ring to itself; `tokens` counts those after the first, `time` is what they
    /// took.
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
        // Ten times slower than claimed.
        assert!((others_pace(15_300.0, 5000.0, &claimed, &own) - 0.1).abs() < 1e-9);
        // This machine's own slowness is not attributed to the others.
        assert!((others_pace(15_300.0, 14_000.0, &claimed, &own) - 1.0).abs() < 1e-9);
        let alone = Costs { reading_us: vec![5000.0], rest_us: 0.0 };
        assert!((others_pace(9e9, 0.0, &alone, &[true]) - 1.0).abs() < 1e-9);
    }
}
