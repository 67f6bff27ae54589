//! Leases: owners regularly tell each machine which of their stages they still want.

use std::time::Duration;

use hive_net::PeerId;
use hive_peers::{Local, Opened, Work};
use hive_protocol::{Profile, Request, StageId};
use hive_types::NotSharing;

use super::{StageHost, lock};

/// Interval of renewals. They free stages that nobody waits for any more: of a machine that was suspended while it
/// loaded one, or of a ring that was abandoned during failover.
const LEASE_RENEWAL: Duration = Duration::from_secs(6);

impl Local for StageHost {
    fn profile_for(&self, peer: PeerId) -> Profile {
        self.profile_for(peer)
    }

    fn is_busy(&self) -> bool {
        self.is_busy()
    }

    fn while_present(&self, peer: PeerId) -> Work {
        let host = self.clone();
        Box::pin(async move { host.renew_leases(peer).await })
    }

    fn serve(&self, peer: PeerId, opened: Opened) -> Work {
        let host = self.clone();
        Box::pin(async move { host.serve(peer, opened).await })
    }
}

impl StageHost {
    /// This machine's profile for another one: whether it shares, and how much, depends on who asks.
    pub fn profile_for(&self, peer: PeerId) -> Profile {
        let member = self.membership();
        let mut profile = member.profile();
        profile.over_cap |= self.cap_of(peer).is_some_and(|cap| self.planned_bytes(|owner| owner == peer) > cap);
        if profile.sharing && !member.peers().rights(peer).memory {
            profile.set_sharing(Err(NotSharing::NotWithYou));
        }
        profile
    }

    /// Whether answers are being computed here, or for people here.
    pub fn is_busy(&self) -> bool {
        self.membership().profile().sessions > 0 || self.sessions() > 0
    }

    /// The stages that this node wants a machine to hold.
    pub fn leased_on(&self, machine: PeerId) -> Vec<StageId> {
        let coordinated = lock(&self.inner.coordinated);
        let leased = coordinated.values().flat_map(|ring| &ring.leased);
        leased.filter(|(_, holder)| *holder == machine).map(|(id, _)| *id).collect()
    }

    /// Frees stages that this machine holds for itself and no longer wants, until the node stops.
    pub async fn renew_own_leases(&self) {
        let (own, here) = (self.membership().id(), self.membership().addr());
        loop {
            tokio::select! {
                () = tokio::time::sleep(LEASE_RENEWAL) => {}
                () = self.membership().stopping() => return,
            }
            let _ = self.ask(&here, Request::RenewLeases(self.leased_on(own)), |_| ()).await;
        }
    }

    /// Tells a machine which of its stages are still wanted: when it appears, and regularly after that.
    async fn renew_leases(&self, peer: PeerId) {
        loop {
            let request = Request::RenewLeases(self.leased_on(peer));
            let _ = self.ask(&self.membership().peers().addr(peer), request, |_| ()).await;
            tokio::time::sleep(LEASE_RENEWAL).await;
        }
    }
}
