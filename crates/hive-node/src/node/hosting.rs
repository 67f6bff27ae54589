//! The node as a host of stages, and as the coordinator of rings: what is asked of them, and where their frames go.

use hive_net::stage::{Dial, Outlet};
use hive_net::{Frame, PeerAddr, PeerId, Protocol};
use tokio::sync::mpsc;

use super::{Coordinated, Hosted, Node, lock};
use crate::control::{Answer, Hello, Neighbours, Question, RingId, Role, StageId};
use crate::stage::{Destination, Routes, Stage};

impl Node {
    /// Where frames for a ring's stage go, at a node which may be this one.
    pub(crate) async fn route(&self, whom: &PeerAddr, ring: RingId, to: Role) -> Result<Destination, String> {
        if whom.id() == self.id() {
            return self.queue(ring, to).map(Destination::Local).ok_or_else(|| "it holds no such stage".to_owned());
        }
        let (node, whom) = (self.clone(), whom.clone());
        let dial: Dial = Box::new(move || {
            let (node, whom) = (node.clone(), node.latest_addr(&whom));
            Box::pin(async move {
                let mut channel = node.endpoint().open(&whom, Protocol::Stage).await?;
                channel.write_message(&Hello { ring, to }).await?;
                Ok(channel)
            })
        });
        Outlet::open(dial, self.inner.pace.clone()).await.map(Destination::Remote).map_err(|error| error.to_string())
    }

    /// The queue that frames for a ring go to, on this node.
    pub(crate) fn queue(&self, ring: RingId, to: Role) -> Option<mpsc::Sender<Frame>> {
        match to {
            Role::Stage(index) => {
                lock(&self.inner.stages).get(&StageId { ring, index }).map(|hosted| hosted.stage.frames())
            }
            Role::Coordinator | Role::Head => lock(&self.inner.coordinated).get(&ring).map(|ring| ring.frames.clone()),
        }
    }

    /// Takes the frames that come back to this node as the coordinator of a ring.
    pub(crate) fn coordinate(&self, ring: RingId, frames: mpsc::Sender<Frame>) {
        lock(&self.inner.coordinated).insert(ring, Coordinated { frames, wanted: Vec::new() });
    }

    /// Notes that a machine is to hold a stage, before it is asked to.
    pub(crate) fn want(&self, id: StageId, machine: PeerId) {
        if let Some(ring) = lock(&self.inner.coordinated).get_mut(&id.ring) {
            ring.wanted.push((id, machine));
        }
    }

    /// Notes who holds the stages of a ring, and copies of them; nobody else is to.
    pub(crate) fn want_only(&self, ring: RingId, holders: impl Iterator<Item = (u32, PeerId)>) {
        if let Some(coordinated) = lock(&self.inner.coordinated).get_mut(&ring) {
            coordinated.wanted = holders.map(|(index, machine)| (StageId { ring, index }, machine)).collect();
        }
    }

    /// Stops taking them.
    pub(crate) fn retire(&self, ring: RingId) {
        lock(&self.inner.coordinated).remove(&ring);
    }

    pub(super) fn stage(&self, id: StageId) -> Result<Stage, String> {
        let stages = lock(&self.inner.stages);
        stages.get(&id).map(|hosted| hosted.stage.clone()).ok_or_else(|| "it holds no such stage".to_owned())
    }

    /// Does what a node asks, this one included.
    pub(crate) async fn answer(&self, asker: PeerId, question: Question, progress: &mut impl FnMut(usize)) -> Answer {
        let result = match question {
            Question::Load(id, spec) => {
                return self.load(asker, id, spec, progress).await.unwrap_or_else(|refusal| refusal);
            }
            Question::Join(id, neighbours) => self.join(id, neighbours).await.map(|()| Answer::Done),
            Question::Unload(id) => {
                lock(&self.inner.stages).remove(&id);
                Ok(Answer::Done)
            }
            Question::Retain(wanted) => {
                lock(&self.inner.stages).retain(|id, hosted| hosted.owner != asker || wanted.contains(id));
                Ok(Answer::Done)
            }
            Question::Open(id, _)
            | Question::Close(id, _)
            | Question::Report(id)
            | Question::Keep(id, _)
            | Question::Check(id)
            | Question::Resend(id, _)
            | Question::Digests(id, _)
            | Question::Rows(id, _)
            | Question::Recompute(id, _) => match self.stage(id) {
                Ok(stage) => stage.answer(question).await,
                Err(why) => Err(why),
            },
            Question::Lend(key) => {
                self.endpoint().admission().lend(key, asker);
                Ok(Answer::Done)
            }
            Question::HandOver(id, order) => self.hand_over(asker, id, &order).await,
            // These take their stream over; see `serve`.
            Question::Greet(_) | Question::Measure(_) | Question::TakeOver(_) => {
                Err("this is asked on a stream of its own".to_owned())
            }
        };
        result.unwrap_or_else(Answer::Refused)
    }

    async fn load(
        &self,
        asker: PeerId,
        id: StageId,
        spec: crate::StageSpec,
        progress: &mut impl FnMut(usize),
    ) -> Result<Answer, Answer> {
        if asker != self.id() && !self.profile().sharing {
            let why = self.profile().not_sharing.unwrap_or_else(|| "it does not share".to_owned());
            return Err(Answer::Declined(why));
        }
        let reserved = self.reserve(spec.bytes, spec.standby).map_err(Answer::Full)?;
        let trusts_paths = asker == self.id() || self.trusts_paths();
        let path = crate::models::locate(&spec.source, trusts_paths).map_err(Answer::Refused)?;
        let (stage, device) = Stage::load(&path, id.index, &spec, progress).await.map_err(Answer::Refused)?;
        let mut stages = lock(&self.inner.stages);
        if spec.standby && stages.get(&id).is_some_and(|hosted| !hosted.standby) {
            return Err(Answer::Declined("it holds the stage itself by now".to_owned()));
        }
        drop(reserved);
        stages.insert(id, Hosted { owner: asker, bytes: spec.bytes, standby: spec.standby, stage });
        Ok(Answer::Loaded(device))
    }

    async fn join(&self, id: StageId, neighbours: Neighbours) -> Result<(), String> {
        let stage = self.stage(id)?;
        if let Some(hosted) = lock(&self.inner.stages).get_mut(&id) {
            // Whoever is joined computes, copy or not.
            hosted.standby = false;
        }
        let StageId { ring, index } = id;
        let to_stage = async |whom: Option<PeerAddr>, index| match whom {
            Some(whom) => self.route(&whom, ring, Role::Stage(index)).await.map(Some),
            None => Ok(None),
        };
        let Neighbours { epoch, next, first, coordinator } = neighbours;
        let next = to_stage(next, index + 1).await?;
        // Where the first stage is at the coordinator, and not here, one frame serves both.
        let is_head = first.as_ref().is_some_and(|first| first.id() == coordinator.id() && first.id() != self.id());
        let (first, role) = if is_head { (None, Role::Head) } else { (first, Role::Coordinator) };
        let first = to_stage(first, 0).await?;
        let coordinator = self.route(&coordinator, ring, role).await?;
        stage.join(Routes { epoch, next, first, coordinator }).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::control::{ModelSource, StageSpec};
    use crate::node::NodeOptions;

    async fn asked_to_load(options: NodeOptions, by_itself: bool) -> Answer {
        let node = Node::start(options).await.unwrap();
        let spec = StageSpec {
            source: ModelSource::Named(None, String::new()),
            layers: 0..1,
            compute: crate::Compute::Auto,
            threads: 0,
            bytes: 11,
            standby: false,
        };
        let asker = if by_itself { node.id() } else { hive_net::Identity::generate().id() };
        let answer = node.answer(asker, Question::Load(StageId { ring: RingId(1), index: 0 }, spec), &mut |_| ()).await;
        node.stop().await;
        answer
    }

    #[tokio::test]
    async fn what_an_owner_does_not_want_is_no_fault_and_a_broken_promise_is() {
        let options = || NodeOptions::new("ann".to_owned(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let declined = asked_to_load(NodeOptions { share: false, ..options() }, false).await;
        assert!(matches!(&declined, Answer::Declined(why) if why.contains("switched off")), "{declined:?}");
        let refused = asked_to_load(NodeOptions { memory_cap: Some(10), ..options() }, true).await;
        assert!(matches!(&refused, Answer::Full(why) if why.contains("given are in use")), "{refused:?}");
    }
}
