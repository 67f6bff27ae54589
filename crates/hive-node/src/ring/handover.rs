//! Before a stage moves off a machine that is still here: has it carry its sessions to the new one.

use std::time::Duration;

use super::{PlacedStage, Ring};
use crate::planning::PLANNED_CONTEXT;
use hive_protocol::Profile;
use hive_protocol::{HandOver, Question};

/// Whatever is not carried by then is computed again.
const PATIENCE: Duration = Duration::from_mins(1);

impl Ring {
    /// Has the sessions of the stage `index` carried. What does not arrive is computed again.
    pub(super) async fn hand_over(&self, index: usize, from: &PlacedStage, to: &PlacedStage) {
        let node = &self.inner.node;
        if node.has_left(from) {
            return;
        }
        let (planned, machine) = (&self.inner.plan.stages[index], to.placement.addr.id());
        let planned_rows = PLANNED_CONTEXT.min(self.inner.model.card().max_context as u64);
        let profile = if machine == node.id() {
            Some(node.profile())
        } else {
            node.peers().present().into_iter().find(|(peer, _)| *peer == machine).map(|(_, profile)| profile)
        };
        let order = HandOver {
            to: to.placement.addr.clone(),
            bytes_per_row: planned.kv_bytes / planned_rows.max(1),
            rows_per_s: profile.and_then(|profile| reading_rows_per_s(&profile, planned.weight_bytes)),
        };
        let id = self.inner.stage_id(index);
        let named = node.ask(&to.placement.addr, Question::Expect(id, from.placement.addr.id()), |_| ()).await;
        if let Err(why) = named {
            tracing::info!("{} computes once more what {} had: {why}", to.placement.name, from.placement.name);
            return;
        }
        let question = Question::HandOver(id, order);
        let gone = async {
            let mut changes = node.changes();
            while !node.has_left(from) && changes.changed().await.is_ok() {}
        };
        let (before, after) = (&from.placement.name, &to.placement.name);
        tokio::select! {
            answer = node.ask(&from.placement.addr, question, |_| ()) => match answer {
                Ok(_) => tracing::info!("{before} has carried its sessions to {after}"),
                Err(why) => tracing::info!("{after} computes once more what {before} had: {why}"),
            },
            () = gone => {}
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
}

/// Tokens of a prompt that a machine passes through so many bytes of weights in a second: time goes with the weights, and
/// how many the starter model has, with which it was measured, follows from the speed of its answers.
pub(crate) fn reading_rows_per_s(machine: &Profile, weight_bytes: u64) -> Option<f64> {
    let measured_bytes = machine.bytes_per_s? / machine.decode_tokens_per_s?;
    Some(machine.prefill_tokens_per_s? * measured_bytes / weight_bytes.max(1) as f64)
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
