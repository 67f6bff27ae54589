//! The memory that this machine's owner lets it give, and who has it.

use std::collections::BTreeSet;

use hive_net::PeerId;

use super::{Hosted, Node, lock};
use crate::words::megabytes;

/// Bytes of the stages here, as planned, those on their way into memory included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Of stages that compute.
    pub(super) stages: u64,
    /// Of copies, which yield to them.
    pub(super) copies: u64,
}

impl Taken {
    pub(super) fn all(self) -> u64 {
        self.stages.saturating_add(self.copies)
    }

    fn of(&mut self, standby: bool) -> &mut u64 {
        if standby { &mut self.copies } else { &mut self.stages }
    }
}

/// Whether a stage may be loaded.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// Once the copies are freed.
    AfterCopies,
    /// So many bytes do not yield.
    None(u64),
}

/// Copies yield to stages, not to other copies.
fn room(bytes: u64, standby: bool, taken: Taken, cap: u64) -> Room {
    let firm = if standby { taken.all() } else { taken.stages };
    if taken.all().saturating_add(bytes) <= cap {
        Room::Free
    } else if firm.saturating_add(bytes) <= cap {
        Room::AfterCopies
    } else {
        Room::None(firm)
    }
}

/// Memory that was promised to a stage which is being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    owner: PeerId,
    bytes: u64,
    standby: bool,
}

/// Such a promise. Dropped when the stage is there, or is not to be.
pub(super) struct Reserved {
    node: Node,
    promise: Promise,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut loading = lock(&self.node.inner.loading);
        if let Some(at) = loading.iter().position(|promise| *promise == self.promise) {
            loading.swap_remove(at);
        }
    }
}

impl Node {
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
        let stages = lock(&self.inner.stages);
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
        if owner == self.id() { None } else { self.peers().rights(owner).memory_limit_bytes }
    }

    /// Keeps memory for a stage, within the caps of this machine and of the stage's owner; the error says what there is.
    pub(super) fn reserve(&self, owner: PeerId, bytes: u64, standby: bool) -> Result<Reserved, String> {
        let cap = self.inner.switches.borrow().memory_cap(self.inner.owner.memory_cap).unwrap_or(u64::MAX);
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
        Ok(Reserved { node: self.clone(), promise })
    }

    /// Copies yield to the limit of the machine that they are for, as they do to that of all, before any of its stages ends.
    pub(super) fn drop_copies_past_their_owners_limits(&self) {
        let owners: BTreeSet<PeerId> = {
            let stages = lock(&self.inner.stages);
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
        lock(&self.inner.stages).retain(|_, hosted| !(hosted.standby && of(hosted.claims.owner)));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::node::NodeOptions;

    #[test]
    fn copies_yield_to_stages_and_not_to_copies() {
        let taken = Taken { stages: 50, copies: 30 };
        assert_eq!(room(20, false, taken, 100), Room::Free);
        assert_eq!(room(50, false, taken, 100), Room::AfterCopies);
        assert_eq!(room(51, false, taken, 100), Room::None(50));
        assert_eq!(room(21, true, taken, 100), Room::None(80));
        assert_eq!(room(u64::MAX, false, taken, 100), Room::None(50));
    }

    #[tokio::test]
    async fn what_is_being_loaded_has_its_memory_already() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = NodeOptions { memory_cap: Some(100), ..NodeOptions::new("ann".to_owned(), loopback) };
        let node = Node::start(options).await.unwrap();
        let first = node.reserve(node.id(), 60, false).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(node.taken(), Taken { stages: 60, copies: 0 });
        assert_eq!((node.planned_bytes(|_| true), node.planned_bytes(|owner| owner != node.id())), (60, 0));
        let why = node.reserve(node.id(), 60, false).err().unwrap_or_default();
        assert!(why.contains("in use"), "{why}");
        drop(first);
        assert!(node.reserve(node.id(), 60, false).is_ok());
        assert_eq!(node.taken(), Taken::default());
        node.stop().await;
    }
}
