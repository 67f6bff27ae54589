//! Drains a stage: its sessions move before it leaves a machine that is still present.

use std::time::Duration;

use hive_net::PeerId;
use hive_protocol::{Drain, Profile, Request};
use hive_stage::planning::PLANNED_CONTEXT;

use super::Ring;
use super::costs::reading_rows_per_s;
use super::placed::{PlacedStage, has_left};

/// The answers wait this long. In a minute, most of what remains could have been recomputed.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);

impl Ring {
    /// Moves the sessions of the stage `index` to its new machine. Whatever does not arrive is recomputed.
    pub(super) async fn drain(&self, index: usize, from: &PlacedStage, to: &PlacedStage) {
        let host = &self.inner.host;
        if has_left(host, from) {
            return;
        }
        let planned = &self.inner.plan.stages[index];
        let planned_rows = PLANNED_CONTEXT.min(self.inner.model.card().max_context as u64);
        let profile = self.profile_of(to.placement.addr.id());
        let order = Drain {
            to: to.placement.addr.clone(),
            bytes_per_row: planned.kv_bytes / planned_rows.max(1),
            rows_per_s: profile.and_then(|profile| reading_rows_per_s(&profile, planned.weight_bytes)),
        };
        let (before, after) = (&from.placement.name, &to.placement.name);
        let id = self.inner.stage_id(index);
        let named = host.ask(&to.placement.addr, Request::ExpectSessions(id, from.placement.addr.id()), |_| ()).await;
        if let Err(why) = named {
            tracing::info!("{after} recomputes what {before} had: {why}");
            return;
        }
        let drained = async {
            self.give_adapters(index, &to.placement.addr).await;
            host.ask(&from.placement.addr, Request::Drain(id, order), |_| ()).await
        };
        let left = async {
            let mut changes = host.membership().peers().changes();
            while !has_left(host, from) && changes.changed().await.is_ok() {}
        };
        tokio::select! {
            answer = drained => match answer {
                Ok(_) => tracing::info!("{before} has carried its sessions to {after}"),
                Err(why) => tracing::info!("{after} recomputes what {before} had: {why}"),
            },
            () = left => {}
            () = tokio::time::sleep(DRAIN_TIMEOUT) => {}
        }
    }

    /// The profile of a machine that is present.
    fn profile_of(&self, machine: PeerId) -> Option<Profile> {
        let member = self.host().membership();
        if machine == member.id() {
            return Some(member.profile());
        }
        member.peers().present().into_iter().find(|(peer, _)| *peer == machine).map(|(_, profile)| profile)
    }
}
