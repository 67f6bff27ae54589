//! Routes the frames of stages and rings, and decides who may send them.

use std::time::Duration;

use hive_net::stage::{Budget, Dial, Outlet};
use hive_net::{Frame, PeerAddr, PeerId, Protocol};
use hive_protocol::{Hello, RingId, Role, StageId};
use tokio::sync::mpsc;

use super::orders::{Denied, Order, may};
use super::{Coordinated, StageHost, lock};
use crate::stage::Destination;

/// How long a stage stream may wait for the order that joins its stage: the stages of a ring are joined one by one, and
/// the first sends before the next is joined.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

impl StageHost {
    /// The destination of frames for a ring's stage, by order of the ring's owner, on a node that may be this one.
    pub async fn route(&self, whom: &PeerAddr, ring: RingId, owner: PeerId, to: Role) -> Result<Destination, String> {
        if whom.id() == self.membership().id() {
            let queue = self.queue(ring, owner, to).ok_or_else(|| Denied::NoSuchStage.to_string());
            return queue.map(Destination::Local);
        }
        let (member, whom) = (self.membership().clone(), whom.clone());
        let dial: Dial = Box::new(move || {
            let (member, whom) = (member.clone(), member.latest_addr(&whom));
            Box::pin(async move {
                let mut channel = member.endpoint().open(&whom, Protocol::Stage).await?;
                channel.write_message(&Hello { ring, owner, to }).await?;
                Ok(channel)
            })
        });
        Outlet::open(dial, self.inner.pace.clone()).await.map(Destination::Remote).map_err(|error| error.to_string())
    }

    /// The local queue for frames of a ring, if the ring belongs to `owner`.
    pub(super) fn queue(&self, ring: RingId, owner: PeerId, to: Role) -> Option<mpsc::Sender<Frame>> {
        match to {
            Role::Stage(index) => {
                let stages = self.stages();
                let hosted = stages.get(&StageId { ring, index }).filter(|hosted| hosted.claims.owner == owner);
                hosted.map(|hosted| hosted.stage.frames())
            }
            Role::Coordinator | Role::Head => {
                let coordinated = lock(&self.inner.coordinated);
                coordinated.get(&ring).filter(|_| owner == self.membership().id()).map(|ring| ring.frames.clone())
            }
        }
    }

    /// The local queue for a machine's frames, if the machine is a neighbour of the destination.
    pub(super) fn inlet(&self, from: PeerId, hello: Hello) -> Result<mpsc::Sender<Frame>, Denied> {
        let Hello { ring, owner, to } = hello;
        match to {
            Role::Stage(index) => {
                let stages = self.stages();
                let hosted = stages.get(&StageId { ring, index }).filter(|hosted| hosted.claims.owner == owner);
                may(from, Order::Frames, hosted.map(|hosted| &hosted.claims))?;
                hosted.map(|hosted| hosted.stage.frames()).ok_or(Denied::NoSuchStage)
            }
            Role::Coordinator | Role::Head => match lock(&self.inner.coordinated).get(&ring) {
                Some(ring)
                    if owner == self.membership().id() && ring.leased.iter().any(|(_, machine)| *machine == from) =>
                {
                    Ok(ring.frames.clone())
                }
                Some(_) if owner == self.membership().id() => Err(Denied::NotItsNeighbour),
                _ => Err(Denied::NoSuchStage),
            },
        }
    }

    /// Memory for the frames of a stage; `None` for frames that come back to a coordinator.
    pub(super) fn frame_budget(&self, hello: Hello) -> Option<Budget> {
        let Role::Stage(index) = hello.to else { return None };
        self.stages().get(&StageId { ring: hello.ring, index }).map(|hosted| hosted.stage.budget())
    }

    /// Waits until a machine is a neighbour of its frames' destination. The error says why it does not become one.
    pub(super) async fn neighbour(&self, from: PeerId, hello: Hello) -> Result<(), Denied> {
        let mut joins = self.inner.joins.subscribe();
        let until = tokio::time::Instant::now() + JOIN_TIMEOUT;
        loop {
            joins.mark_unchanged();
            match self.inlet(from, hello) {
                Err(denied @ Denied::NotItsNeighbour) => {
                    if !matches!(tokio::time::timeout_at(until, joins.changed()).await, Ok(Ok(()))) {
                        return Err(denied);
                    }
                }
                answer => return answer.map(drop),
            }
        }
    }

    pub(super) fn joined(&self) {
        self.inner.joins.send_modify(|count| *count += 1);
    }

    /// Registers the queue for frames that come back to this node as the coordinator of a ring.
    pub fn coordinate(&self, ring: RingId, frames: mpsc::Sender<Frame>) {
        lock(&self.inner.coordinated).insert(ring, Coordinated { frames, leased: Vec::new() });
    }

    /// Records that a machine will hold a stage, before it is asked to.
    pub fn lease(&self, id: StageId, machine: PeerId) {
        if let Some(ring) = lock(&self.inner.coordinated).get_mut(&id.ring) {
            ring.leased.push((id, machine));
        }
        self.joined();
    }

    /// Replaces the leases of a ring: who holds its stages and their standby replicas.
    pub fn lease_only(&self, ring: RingId, holders: impl Iterator<Item = (u32, PeerId)>) {
        if let Some(coordinated) = lock(&self.inner.coordinated).get_mut(&ring) {
            coordinated.leased = holders.map(|(index, machine)| (StageId { ring, index }, machine)).collect();
        }
        self.joined();
    }

    /// Ends the coordination of a ring.
    pub fn retire(&self, ring: RingId) {
        lock(&self.inner.coordinated).remove(&ring);
    }
}
