//! Eviction: ending the stages that may not stay.

use std::time::Instant;

use hive_net::PeerId;
use hive_protocol::StageId;

use super::guests::{Rules, Tenant};
use super::{Hosted, StageHost, lock};

/// The number of evictions that are remembered, so that owners can ask why.
const REMEMBERED_EVICTIONS: usize = 64;

/// Memory of the stages here, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Used by stages that compute.
    pub stage_bytes: u64,
    /// Planned for them.
    pub planned_bytes: u64,
}

impl StageHost {
    /// Measures the memory of the stages here.
    pub fn measure(&self) -> Held {
        self.measure_stages();
        Held { stage_bytes: self.memory_use().stages, planned_bytes: self.planned_bytes(|_| true) }
    }

    /// Ends the stages that may not stay: standby replicas at once, other machines' stages after their notice.
    pub fn settle(&self, shares: bool, is_short_of_memory: bool, now: Instant) {
        let cap_bytes = *lock(&self.inner.memory_cap);
        if is_short_of_memory || cap_bytes.is_some_and(|cap| self.memory_use().all() > cap) {
            self.drop_standbys(|_| true);
        } else if !shares {
            // The standby replicas of this machine's own models stay, whether it shares or not.
            let own = self.membership().id();
            self.drop_standbys(|owner| owner != own);
        }
        self.drop_standbys_over_their_owners_limits();
        self.evict(shares, cap_bytes, now);
    }

    /// Measures the memory of each stage.
    fn measure_stages(&self) {
        let stages: Vec<_> = self.stages().iter().map(|(id, hosted)| (*id, hosted.stage.clone())).collect();
        for (id, stage) in stages {
            let used_bytes = stage.used_bytes();
            if let Some(hosted) = self.stages().get_mut(&id) {
                hosted.used_bytes = used_bytes;
            }
        }
    }

    /// Ends other machines' stages that may not stay.
    pub(super) fn evict(&self, shares: bool, cap_bytes: Option<u64>, now: Instant) {
        let tenants: Vec<Tenant> = self.stages().iter().map(|(id, hosted)| self.tenant(*id, hosted)).collect();
        let shares_with = |owner| shares && self.membership().peers().rights(owner).memory;
        let rules = Rules { shares_with: &shares_with, cap_bytes, cap_of: &|owner| self.cap_of(owner) };
        let evictions = lock(&self.inner.guests).evictions(&tenants, &rules, now);
        for (id, why) in evictions {
            let Some(Hosted { claims, stage, .. }) = self.stages().remove(&id) else { continue };
            let name = self.membership().peers().name(claims.owner);
            tracing::warn!("stage {} of {name} is ended: {why}", id.index);
            let mut evicted = lock(&self.inner.evicted);
            evicted.truncate(REMEMBERED_EVICTIONS - 1);
            evicted.push_front((id, claims.owner, why));
            self.membership().spawn(stage.end(why.to_string()));
        }
    }

    fn tenant(&self, id: StageId, hosted: &Hosted) -> Tenant {
        let owner = hosted.claims.owner;
        Tenant {
            id,
            owner,
            // Nodes of one process are one machine.
            is_guest: owner != self.membership().id() && !self.inner.trust_paths,
            // A machine that does not answer greetings may still be connected.
            owner_is_here: self.membership().peers().incarnation(owner).is_some()
                || self.membership().is_connected(owner),
            planned_bytes: hosted.planned_bytes(),
            used_bytes: hosted.used_bytes,
        }
    }

    /// Why this machine evicted a stage of `owner`, if it did.
    pub(super) fn evicted(&self, owner: PeerId, id: StageId) -> Option<String> {
        let evicted = lock(&self.inner.evicted);
        evicted.iter().find(|(stage, whose, _)| (*stage, *whose) == (id, owner)).map(|(_, _, why)| why.to_string())
    }
}
