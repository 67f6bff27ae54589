//! Memory reserved for stages while they load.

use std::collections::BTreeSet;

use hive_net::PeerId;
use hive_types::megabytes;

use super::budget::{Fit, Grant, MemoryUse, fit};
use super::{Hosted, StageHost, lock};

/// A reservation. Dropped when the stage is loaded, or has failed to load.
pub(super) struct Reservation {
    host: StageHost,
    grant: Grant,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut loading = lock(&self.host.inner.loading);
        if let Some(at) = loading.iter().position(|grant| *grant == self.grant) {
            loading.swap_remove(at);
        }
    }
}

impl StageHost {
    pub(super) fn memory_use(&self) -> MemoryUse {
        self.memory_use_of(|_| true)
    }

    /// Memory of the stages of the owners that `counts` selects.
    pub(super) fn memory_use_of(&self, counts: impl Fn(PeerId) -> bool) -> MemoryUse {
        self.measured(counts, |hosted| hosted.planned_bytes().max(hosted.used_bytes))
    }

    /// Planned memory of the stages of the owners that `counts` selects, without standby replicas.
    pub(super) fn planned_bytes(&self, counts: impl Fn(PeerId) -> bool) -> u64 {
        self.measured(counts, Hosted::planned_bytes).stages
    }

    /// Memory of the stages of the owners that `counts` selects, by `measure`, including what is being loaded for them.
    fn measured(&self, counts: impl Fn(PeerId) -> bool, measure: impl Fn(&Hosted) -> u64) -> MemoryUse {
        let mut taken = MemoryUse::default();
        let mut add = |bytes: u64, standby| {
            let sum = taken.of(standby);
            *sum = sum.saturating_add(bytes);
        };
        let stages = self.stages();
        for hosted in stages.values().filter(|hosted| counts(hosted.claims.owner)) {
            add(measure(hosted), hosted.standby);
        }
        for grant in lock(&self.inner.loading).iter().filter(|grant| counts(grant.owner)) {
            add(grant.bytes, grant.standby);
        }
        taken
    }

    /// The most memory for one machine's stages, if this machine's owner has set a limit.
    pub(super) fn cap_of(&self, owner: PeerId) -> Option<u64> {
        if owner == self.membership().id() { None } else { self.membership().peers().rights(owner).memory_limit_bytes }
    }

    /// Reserves memory for a stage, within the limits of this machine and of the stage's owner. The error says how much
    /// is left.
    pub(super) fn reserve(&self, owner: PeerId, bytes: u64, standby: bool) -> Result<Reservation, String> {
        let cap = lock(&self.inner.memory_cap).unwrap_or(u64::MAX);
        // Two requests at once must not both get the rest.
        let _reserving = lock(&self.inner.reserving);
        let full = |taken: u64, cap: u64| {
            let (bytes, taken, cap) = (megabytes(bytes), megabytes(taken), megabytes(cap));
            format!("it takes {bytes} MB, but {taken} MB of the {cap} MB given are in use")
        };
        if let Some(cap) = self.cap_of(owner) {
            let taken = self.memory_use_of(|other| other == owner).all();
            if taken.saturating_add(bytes) > cap {
                return Err(full(taken, cap));
            }
        }
        match fit(bytes, standby, self.memory_use(), cap) {
            Fit::Free => {}
            Fit::AfterStandbys => self.drop_standbys(|_| true),
            Fit::OverBudget(firm) => return Err(full(firm, cap)),
        }
        let grant = Grant { owner, bytes, standby };
        lock(&self.inner.loading).push(grant);
        Ok(Reservation { host: self.clone(), grant })
    }

    /// Frees the standby replicas of machines that exceed their limits, before any of their stages ends.
    pub(super) fn drop_standbys_over_their_owners_limits(&self) {
        let owners: BTreeSet<PeerId> = {
            let stages = self.stages();
            stages.values().filter(|hosted| hosted.standby).map(|hosted| hosted.claims.owner).collect()
        };
        let is_past =
            |owner: &PeerId| self.cap_of(*owner).is_some_and(|cap| self.memory_use_of(|of| of == *owner).all() > cap);
        let past: Vec<PeerId> = owners.into_iter().filter(is_past).collect();
        if !past.is_empty() {
            self.drop_standbys(|owner| past.contains(&owner));
        }
    }

    /// Frees the standby replicas of these owners.
    pub(super) fn drop_standbys(&self, of: impl Fn(PeerId) -> bool) {
        self.stages().retain(|_, hosted| !(hosted.standby && of(hosted.claims.owner)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostOptions;
    use crate::testing::Machine;

    #[tokio::test]
    async fn what_is_being_loaded_has_its_memory_already() {
        let options = HostOptions { memory_cap: Some(100), ..HostOptions::default() };
        let node = Machine::start_with("ann", options).await;
        let first = node.reserve(node.membership().id(), 60, false).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(node.memory_use(), MemoryUse { stages: 60, standbys: 0 });
        assert_eq!(
            (node.planned_bytes(|_| true), node.planned_bytes(|owner| owner != node.membership().id())),
            (60, 0)
        );
        let why = node.reserve(node.membership().id(), 60, false).err().unwrap_or_default();
        assert!(why.contains("in use"), "{why}");
        drop(first);
        assert!(node.reserve(node.membership().id(), 60, false).is_ok());
        assert_eq!(node.memory_use(), MemoryUse::default());
        node.stop().await;
    }
}
