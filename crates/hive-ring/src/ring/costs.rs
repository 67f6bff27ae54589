//! The time that a token of a loaded model takes, as planned and as its machines claim.

use hive_peers::{Candidate, Scope, between};
use hive_plan::{Costs, NodeProfile};
use hive_protocol::Profile;
use hive_stage::planning;

use super::Ring;
use super::placed::PlacedStage;
use super::timing::Expected;

/// Prefill speed of a machine with `weight_bytes` of weights, in tokens per second. Time is proportional to
/// the weights. The machine was measured with the starter model, whose size follows from its decode speed.
pub(crate) fn reading_rows_per_s(machine: &Profile, weight_bytes: u64) -> Option<f64> {
    let measured_bytes = machine.bytes_per_s? / machine.decode_tokens_per_s?;
    Some(machine.prefill_tokens_per_s? * measured_bytes / weight_bytes.max(1) as f64)
}

impl Ring {
    /// The time per token if every machine were as fast as it claims; `None` if one has left.
    pub fn claimed_costs(&self) -> Option<Costs> {
        self.costs(|machine| machine.profile.bytes_per_s / machine.pace)
    }

    /// The time that a token, and a row of a prompt, should take on the machines that hold the stages now.
    pub(crate) fn expected(&self) -> Expected {
        self.expected_of_machines().unwrap_or_else(|| Expected::unknown(self.stages().len()))
    }

    /// The same, with the machines' observed speeds; `None` if one has left.
    fn expected_of_machines(&self) -> Option<Expected> {
        let costs = self.costs(|machine| machine.profile.bytes_per_s)?;
        let member = self.host().membership();
        let (present, own) = (member.peers().present(), member.profile());
        let rows_per_s = |(stage, weight_bytes): (PlacedStage, u64)| {
            let id = stage.placement.addr.id();
            let others = || present.iter().find(|(peer, _)| *peer == id).map(|(_, profile)| profile);
            let profile = if id == member.id() { Some(&own) } else { others() }?;
            Some(reading_rows_per_s(profile, weight_bytes)? * member.trust().pace(id))
        };
        let rows_per_s: Vec<_> = self.stages().into_iter().zip(self.stage_weight_bytes()).map(rows_per_s).collect();
        Some(Expected::new(&costs, &rows_per_s))
    }

    /// The time per token on machines that read this many bytes per second; `None` if one has left.
    fn costs(&self, bytes_per_s: impl Fn(&Candidate) -> f64) -> Option<Costs> {
        let machines = self.host().membership().candidates(None, &[], Scope::Healthy);
        let node = |machine: &Candidate| NodeProfile { bytes_per_s: bytes_per_s(machine), ..machine.profile.clone() };
        let nodes: Vec<_> = machines.iter().map(node).collect();
        let place = |stage: PlacedStage| {
            let id = stage.placement.addr.id();
            let place = machines.iter().position(|machine| machine.placement.addr.id() == id)?;
            Some((place, stage.layers))
        };
        let stages = self.stages().into_iter().map(place).collect::<Option<Vec<_>>>()?;
        Some(planning::predict(self.model().card(), &nodes, &|a, b| between(&machines[a], &machines[b]), &stages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_model_is_read_twice_as_fast() {
        let machine = Profile {
            decode_tokens_per_s: Some(100.0),
            bytes_per_s: Some(9e9),
            prefill_tokens_per_s: Some(900.0),
            ..Profile::default()
        };
        assert_eq!(reading_rows_per_s(&machine, 45_000_000), Some(1800.0));
        assert_eq!(reading_rows_per_s(&Profile::default(), 45_000_000), None);
    }
}
