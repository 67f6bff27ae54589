//! Memory that is promised to stages while they are loaded.

use std::collections::BTreeSet;

use hive_net::PeerId;
use hive_types::megabytes;

use super::room::{Promise, Room, Taken, room};
use super::{Hosted, StageHost, lock};

/// Such a promise. Dropped when the stage is there, or is not to be.
pub(super) struct Reserved {
    host: StageHost,
    promise: Promise,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut loading = lock(&self.host.inner.loading);
        if let Some(at) = loading.iter().position(|promise| *promise == self.promise) {
            loading.swap_remove(at);
        }
    }
}

impl StageHost {
    pub(super) fn taken(&self) -> Taken {
        self.taken_by(|_| true)
    }

    /// What the stages of some machines take.
    pub(super) fn taken_by(&self, counts: impl Fn(PeerId) -> bool) -> Taken {
        self.measured(counts, |hosted| hosted.bytes.max(hosted.used_bytes))
    }

    /// What was planned for the stages of some machines; copies do not count.
    pub(super) fn planned_bytes(&self, counts: impl Fn(PeerId) -> bool) -> u64 {
        self.measured(counts, |hosted| hosted.bytes).stages
    }

    /// What is here of some machines, by some measure, and what is being loaded for them.
    fn measured(&self, counts: impl Fn(PeerId) -> bool, measure: impl Fn(&Hosted) -> u64) -> Taken {
        let mut taken = Taken::default();
        let mut add = |bytes: u64, standby| {
            let sum = taken.of(standby);
            *sum = sum.saturating_add(bytes);
        };
        let stages = self.stages();
        for hosted in stages.values().filter(|hosted| counts(hosted.claims.owner)) {
            add(measure(hosted), hosted.standby);
        }
        for promise in lock(&self.inner.loading).iter().filter(|promise| counts(promise.owner)) {
            add(promise.bytes, promise.standby);
        }
        taken
    }

    /// The most memory for the stages of one machine, if its owner here has set that.
    pub(super) fn cap_of(&self, owner: PeerId) -> Option<u64> {
        if owner == self.membership().id() { None } else { self.membership().peers().rights(owner).memory_limit_bytes }
    }

    /// Keeps memory for a stage, within the caps of this machine and of the stage's owner; the error says what there is.
    pub(super) fn reserve(&self, owner: PeerId, bytes: u64, standby: bool) -> Result<Reserved, String> {
        let cap = lock(&self.inner.memory_cap).unwrap_or(u64::MAX);
        // Two that come at once do not both get what is left.
        let _one_at_a_time = lock(&self.inner.reserving);
        let full = |taken: u64, cap: u64| {
            let (bytes, taken, cap) = (megabytes(bytes), megabytes(taken), megabytes(cap));
            format!("it takes {bytes} MB, but {taken} MB of the {cap} MB given are in use")
        };
        if let Some(cap) = self.cap_of(owner) {
            let taken = self.taken_by(|other| other == owner).all();
            if taken.saturating_add(bytes) > cap {
                return Err(full(taken, cap));
            }
        }
        match room(bytes, standby, self.taken(), cap) {
            Room::Free => {}
            Room::AfterCopies => self.drop_copies(|_| true),
            Room::None(firm) => return Err(full(firm, cap)),
        }
        let promise = Promise { owner, bytes, standby };
        lock(&self.inner.loading).push(promise);
        Ok(Reserved { host: self.clone(), promise })
    }

    /// Copies yield to the limit of the machine that they are for, as they do to that of all, before any of its stages ends.
    pub(super) fn drop_copies_past_their_owners_limits(&self) {
        let owners: BTreeSet<PeerId> = {
            let stages = self.stages();
            stages.values().filter(|hosted| hosted.standby).map(|hosted| hosted.claims.owner).collect()
        };
        let is_past =
            |owner: &PeerId| self.cap_of(*owner).is_some_and(|cap| self.taken_by(|of| of == *owner).all() > cap);
        let past: Vec<PeerId> = owners.into_iter().filter(is_past).collect();
        if !past.is_empty() {
            self.drop_copies(|owner| past.contains(&owner));
        }
    }

    /// Frees the copies kept for the nodes that are meant.
    pub(super) fn drop_copies(&self, of: impl Fn(PeerId) -> bool) {
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
        assert_eq!(node.taken(), Taken { stages: 60, copies: 0 });
        assert_eq!(
            (node.planned_bytes(|_| true), node.planned_bytes(|owner| owner != node.membership().id())),
            (60, 0)
        );
        let why = node.reserve(node.membership().id(), 60, false).err().unwrap_or_default();
        assert!(why.contains("in use"), "{why}");
        drop(first);
        assert!(node.reserve(node.membership().id(), 60, false).is_ok());
        assert_eq!(node.taken(), Taken::default());
        node.stop().await;
    }
}
