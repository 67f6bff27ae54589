//! Before a stage moves off a machine that is still here: has it carry its sessions to the new one.

use std::time::Duration;

use hive_protocol::{HandOver, Question};
use hive_stage::planning::PLANNED_CONTEXT;

use super::Ring;
use super::costs::reading_rows_per_s;
use super::placed::{PlacedStage, has_left};

/// Whatever is not carried by then is computed again.
const PATIENCE: Duration = Duration::from_mins(1);

impl Ring {
    /// Has the sessions of the stage `index` carried. What does not arrive is computed again.
    pub(super) async fn hand_over(&self, index: usize, from: &PlacedStage, to: &PlacedStage) {
        let host = &self.inner.host;
        if has_left(host, from) {
            return;
        }
        let (planned, machine) = (&self.inner.plan.stages[index], to.placement.addr.id());
        let planned_rows = PLANNED_CONTEXT.min(self.inner.model.card().max_context as u64);
        let profile = if machine == host.membership().id() {
            Some(host.membership().profile())
        } else {
            host.membership()
                .peers()
                .present()
                .into_iter()
                .find(|(peer, _)| *peer == machine)
                .map(|(_, profile)| profile)
        };
        let order = HandOver {
            to: to.placement.addr.clone(),
            bytes_per_row: planned.kv_bytes / planned_rows.max(1),
            rows_per_s: profile.and_then(|profile| reading_rows_per_s(&profile, planned.weight_bytes)),
        };
        let id = self.inner.stage_id(index);
        let named = host.ask(&to.placement.addr, Question::Expect(id, from.placement.addr.id()), |_| ()).await;
        if let Err(why) = named {
            tracing::info!("{} computes once more what {} had: {why}", to.placement.name, from.placement.name);
            return;
        }
        let question = Question::HandOver(id, order);
        let gone = async {
            let mut changes = host.membership().peers().changes();
            while !has_left(host, from) && changes.changed().await.is_ok() {}
        };
        let (before, after) = (&from.placement.name, &to.placement.name);
        tokio::select! {
            answer = host.ask(&from.placement.addr, question, |_| ()) => match answer {
                Ok(_) => tracing::info!("{before} has carried its sessions to {after}"),
                Err(why) => tracing::info!("{after} computes once more what {before} had: {why}"),
            },
            () = gone => {}
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
}
