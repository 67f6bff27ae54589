//! The memory that this machine's owner lets it give, and who has it.

use hive_net::PeerId;

use super::{Node, lock};

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

/// Memory for a stage that is being loaded. Dropped when it is there, or is not to be.
pub(super) struct Reserved {
    node: Node,
    bytes: u64,
    standby: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *lock(&self.node.inner.loading).of(self.standby) -= self.bytes;
    }
}

impl Node {
    pub(super) fn taken(&self) -> Taken {
        let stages = lock(&self.inner.stages);
        let mut taken = *lock(&self.inner.loading);
        for hosted in stages.values() {
            let bytes = taken.of(hosted.standby);
            *bytes = bytes.saturating_add(hosted.bytes);
        }
        taken
    }

    /// Keeps memory for a stage, within the owner's cap; the error says what there is.
    pub(super) fn reserve(&self, bytes: u64, standby: bool) -> Result<Reserved, String> {
        let cap = self.inner.switches.borrow().memory_cap(self.inner.owner.memory_cap).unwrap_or(u64::MAX);
        // Two that come at once do not both get what is left.
        let _one_at_a_time = lock(&self.inner.reserving);
        match room(bytes, standby, self.taken(), cap) {
            Room::Free => {}
            Room::AfterCopies => self.drop_copies(|_| true),
            Room::None(firm) => {
                let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
                let (bytes, firm, cap) = (megabytes(bytes), megabytes(firm), megabytes(cap));
                return Err(format!("it takes {bytes} MB, but {firm} MB of the {cap} MB given are in use"));
            }
        }
        let mut loading = lock(&self.inner.loading);
        let before = loading.of(standby);
        // What a peer asks for is its word.
        let bytes = bytes.min(u64::MAX - *before);
        *before += bytes;
        Ok(Reserved { node: self.clone(), bytes, standby })
    }

    /// Frees the copies kept for the nodes that are meant.
    pub(super) fn drop_copies(&self, of: impl Fn(PeerId) -> bool) {
        lock(&self.inner.stages).retain(|_, hosted| !(hosted.standby && of(hosted.owner)));
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
        let first = node.reserve(60, false).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(node.taken(), Taken { stages: 60, copies: 0 });
        let why = node.reserve(60, false).err().unwrap_or_default();
        assert!(why.contains("in use"), "{why}");
        drop(first);
        assert!(node.reserve(60, false).is_ok());
        assert_eq!(node.taken(), Taken::default());
        node.stop().await;
    }
}
