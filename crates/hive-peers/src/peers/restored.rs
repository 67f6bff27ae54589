//! Removals that are undone: the entry of a removed machine is kept aside for a while. The machine itself was cut off at
//! once, but still trusts this one, so that nobody has to compare codes again.

use std::time::{Duration, Instant};

use hive_net::PeerId;

use super::Peers;
use super::book::{Entry, Standing};
use super::state::State;
use crate::data::DataError;

/// How long a removal can be undone.
const UNDO: Duration = Duration::from_mins(10);

/// Why a removal could not be undone.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It was removed too long ago or in an earlier run, or has been decided about since.
    #[error("the removal can no longer be undone; pair with the machine again")]
    TooLate,
    /// It could not be saved, so the machine stays removed.
    #[error(transparent)]
    NotKept(DataError),
}

impl State {
    /// Keeps the entry of a removed machine, if it was approved.
    pub(super) fn set_aside(&mut self, peer: PeerId, entry: Entry) {
        let now = Instant::now();
        self.removed.retain(|_, (_, at)| now.saturating_duration_since(*at) < UNDO);
        if entry.standing == Standing::Approved {
            self.removed.insert(peer, (entry, now));
        }
    }
}

impl Peers {
    /// Undoes a removal: the machine is approved again, with the name and the rights it had. It must not have been
    /// removed too long ago, or been decided about since.
    pub(crate) fn restore(&self, peer: PeerId) -> Result<(), RestoreError> {
        let mut state = self.lock();
        let removed = state.removed.remove(&peer).filter(|(_, at)| at.elapsed() < UNDO);
        let Some((entry, at)) = removed.filter(|_| state.book.get(peer).is_none()) else {
            return Err(RestoreError::TooLate);
        };
        // It may have asked to pair meanwhile; that needs no decision any more.
        state.pending.remove(&peer);
        state.book.restore(peer, entry.clone());
        drop(state);
        self.let_in(peer).map_err(|error| {
            let mut state = self.lock();
            state.book.remove(peer);
            state.removed.insert(peer, (entry, at));
            drop(state);
            self.touch();
            RestoreError::NotKept(error)
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod tests {
    use hive_net::{Admission, Identity};

    use super::*;
    use crate::peers::{PeerState, Rights};
    use crate::testing::Machine;

    fn peers() -> (Peers, Admission, PeerId) {
        let admission = Admission::default();
        let peers = Peers::open(None, admission.clone()).unwrap();
        let attic = Identity::generate().id();
        peers.admit(attic, "Mac mini", None).unwrap();
        peers.rename(attic, "Attic").unwrap();
        peers.allow(attic, Rights { prompts: false, ..Rights::default() }).unwrap();
        (peers, admission, attic)
    }

    #[test]
    fn a_removed_machine_is_out_at_once_and_back_with_its_name_and_rights() {
        let (peers, admission, attic) = peers();
        peers.remove(attic).unwrap();
        assert_eq!((peers.is_approved(attic), admission.is_approved(attic)), (false, false));
        peers.restore(attic).unwrap();
        assert_eq!((peers.is_approved(attic), admission.is_approved(attic)), (true, true));
        assert_eq!((peers.name(attic).as_str(), peers.rights(attic).prompts), ("Attic", false));
        assert!(matches!(peers.restore(attic), Err(RestoreError::TooLate)), "it was undone already");
    }

    #[test]
    fn a_removal_is_not_undone_after_another_decision_or_too_late() {
        let (peers, admission, attic) = peers();
        assert!(matches!(peers.restore(Identity::generate().id()), Err(RestoreError::TooLate)));
        peers.remove(attic).unwrap();
        peers.block(attic).unwrap();
        assert!(matches!(peers.restore(attic), Err(RestoreError::TooLate)));
        peers.remove(attic).unwrap();
        assert!(matches!(peers.restore(attic), Err(RestoreError::TooLate)), "a blocked machine was not approved");
        peers.admit(attic, "Mac mini", None).unwrap();
        peers.remove(attic).unwrap();
        peers.lock().removed.get_mut(&attic).unwrap().1 -= UNDO;
        assert!(matches!(peers.restore(attic), Err(RestoreError::TooLate)));
        assert!(!admission.is_approved(attic));
    }

    /// Waits until one machine's view of another is like this.
    async fn until(machine: &Machine, is_so: impl Fn(&PeerState) -> bool) {
        while !machine.peer_views().first().is_some_and(|view| is_so(&view.state)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn both_machines_meet_again_without_a_code() {
        let (studio, attic) = (Machine::start("Studio").await, Machine::start("Attic").await);
        studio.peers().admit(attic.id(), "Attic", Some(&attic.addr())).unwrap();
        attic.peers().admit(studio.id(), "Studio", Some(&studio.addr())).unwrap();
        let is_here = |state: &PeerState| *state == PeerState::Approved;
        until(&studio, is_here).await;
        until(&attic, is_here).await;
        studio.remove(attic.id()).unwrap();
        assert!(!studio.is_connected(attic.id()));
        let is_out =
            |state: &PeerState| matches!(state, PeerState::Unreachable { why, .. } if why.contains("not approved"));
        until(&attic, is_out).await;
        studio.restore(attic.id()).unwrap();
        until(&studio, is_here).await;
        until(&attic, is_here).await;
        studio.stop().await;
        attic.stop().await;
    }
}
