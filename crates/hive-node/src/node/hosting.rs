//! The node as a host of stages, and as the coordinator of rings: what is asked of them, and where their frames go.

use std::sync::Arc;
use std::time::Duration;

use hive_net::stage::{Budget, Dial, Outlet};
use hive_net::{Frame, PeerAddr, PeerId, Protocol};
use tokio::sync::mpsc;

use super::orders::{Claims, Denied, Order, may, order};
use super::{Coordinated, Hosted, Node, lock};
use crate::audit::{self, Asked, AuditEvent, Machine, Refusal, Visit};
use crate::models::{self, NotLocated};
use crate::planning;
use crate::stage::{Destination, NotLoaded, Routes, Stage, Tenancy};
use hive_protocol::Profile;
use hive_protocol::{Answer, Hello, Neighbours, Question, RingId, Role, StageId, StageSpec};

/// What another machine is told of layers that could not be loaded: the reason may name files of this one.
const NOT_LOADED: &str = "it could not load these layers; the log there says why";

/// How long a stage stream may wait for the order that connects its stage: the stages of a ring are joined one after the
/// other, and the first one sends before the next has heard of it.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);

impl Node {
    /// Where frames for a ring's stage go, by order of the ring's owner, at a node which may be this one.
    pub(crate) async fn route(
        &self,
        whom: &PeerAddr,
        ring: RingId,
        owner: PeerId,
        to: Role,
    ) -> Result<Destination, String> {
        if whom.id() == self.id() {
            let queue = self.queue(ring, owner, to).ok_or_else(|| Denied::NoSuchStage.to_string());
            return queue.map(Destination::Local);
        }
        let (node, whom) = (self.clone(), whom.clone());
        let dial: Dial = Box::new(move || {
            let (node, whom) = (node.clone(), node.latest_addr(&whom));
            Box::pin(async move {
                let mut channel = node.endpoint().open(&whom, Protocol::Stage).await?;
                channel.write_message(&Hello { ring, owner, to }).await?;
                Ok(channel)
            })
        });
        Outlet::open(dial, self.inner.pace.clone()).await.map(Destination::Remote).map_err(|error| error.to_string())
    }

    /// The queue that frames for a ring go to, on this node, if the ring is its owner's.
    pub(crate) fn queue(&self, ring: RingId, owner: PeerId, to: Role) -> Option<mpsc::Sender<Frame>> {
        match to {
            Role::Stage(index) => {
                let stages = lock(&self.inner.stages);
                let hosted = stages.get(&StageId { ring, index }).filter(|hosted| hosted.claims.owner == owner);
                hosted.map(|hosted| hosted.stage.frames())
            }
            Role::Coordinator | Role::Head => {
                let coordinated = lock(&self.inner.coordinated);
                coordinated.get(&ring).filter(|_| owner == self.id()).map(|ring| ring.frames.clone())
            }
        }
    }

    /// The queue that a machine's frames go to, if it is a neighbour of what they are for.
    pub(crate) fn inlet(&self, from: PeerId, hello: Hello) -> Result<mpsc::Sender<Frame>, Denied> {
        let Hello { ring, owner, to } = hello;
        match to {
            Role::Stage(index) => {
                let stages = lock(&self.inner.stages);
                let hosted = stages.get(&StageId { ring, index }).filter(|hosted| hosted.claims.owner == owner);
                may(from, Order::Frames, hosted.map(|hosted| &hosted.claims))?;
                hosted.map(|hosted| hosted.stage.frames()).ok_or(Denied::NoSuchStage)
            }
            Role::Coordinator | Role::Head => match lock(&self.inner.coordinated).get(&ring) {
                Some(ring) if owner == self.id() && ring.wanted.iter().any(|(_, machine)| *machine == from) => {
                    Ok(ring.frames.clone())
                }
                Some(_) if owner == self.id() => Err(Denied::NotItsNeighbour),
                _ => Err(Denied::NoSuchStage),
            },
        }
    }

    /// Memory for the frames of a stage; `None` for what comes back to a coordinator.
    pub(crate) fn frame_budget(&self, hello: Hello) -> Option<Budget> {
        let Role::Stage(index) = hello.to else { return None };
        lock(&self.inner.stages).get(&StageId { ring: hello.ring, index }).map(|hosted| hosted.stage.budget())
    }

    /// Waits until a machine is a neighbour of what its frames are for. An error says why it is not to be.
    pub(crate) async fn neighbour(&self, from: PeerId, hello: Hello) -> Result<(), Denied> {
        let mut joins = self.inner.joins.subscribe();
        let until = tokio::time::Instant::now() + JOIN_PATIENCE;
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

    fn joined(&self) {
        self.inner.joins.send_modify(|count| *count += 1);
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
        self.joined();
    }

    /// Notes who holds the stages of a ring, and copies of them; nobody else is to.
    pub(crate) fn want_only(&self, ring: RingId, holders: impl Iterator<Item = (u32, PeerId)>) {
        if let Some(coordinated) = lock(&self.inner.coordinated).get_mut(&ring) {
            coordinated.wanted = holders.map(|(index, machine)| (StageId { ring, index }, machine)).collect();
        }
        self.joined();
    }

    /// Stops taking them.
    pub(crate) fn retire(&self, ring: RingId) {
        lock(&self.inner.coordinated).remove(&ring);
    }

    /// The stage that a machine commands.
    fn commanded(&self, asker: PeerId, id: StageId) -> Result<Stage, Denied> {
        self.with_claims(asker, Order::Command, id, |hosted| hosted.stage.clone())
    }

    /// The stage that a machine hands its sessions over to, which it does once, and the bytes planned for it.
    pub(super) fn taking_over(&self, asker: PeerId, id: StageId) -> Result<(Stage, u64), Denied> {
        self.with_claims(asker, Order::TakeOver, id, |hosted| {
            hosted.claims.hands_over = None;
            (hosted.stage.clone(), hosted.bytes)
        })
    }

    /// Does something with a stage that is here, if `asker` may order it.
    fn with_claims<T>(
        &self,
        asker: PeerId,
        order: Order,
        id: StageId,
        act: impl FnOnce(&mut Hosted) -> T,
    ) -> Result<T, Denied> {
        let mut stages = lock(&self.inner.stages);
        may(asker, order, stages.get(&id).map(|hosted| &hosted.claims))?;
        stages.get_mut(&id).map(act).ok_or(Denied::NoSuchStage)
    }

    /// Does what a node asks, this one included.
    pub(crate) async fn answer(&self, asker: PeerId, question: Question, progress: &mut impl FnMut(usize)) -> Answer {
        // Before anything is looked at: whose stage is it?
        let commanded = match order(&question) {
            Some((id, Order::Command)) => self.commanded(asker, id).map(Some),
            Some((id, order @ Order::Load)) => {
                may(asker, order, lock(&self.inner.stages).get(&id).map(|hosted| &hosted.claims)).map(|()| None)
            }
            Some((_, Order::Frames | Order::TakeOver)) | None => Ok(None),
        };
        let stage = match commanded {
            Ok(stage) => stage,
            Err(denied) => {
                if let Some(why) = order(&question).and_then(|(id, _)| self.evicted(asker, id)) {
                    return Answer::Refused(why);
                }
                if denied != Denied::NoSuchStage {
                    tracing::info!("{} gave an order that is not its to give: {denied:?}", self.peers().name(asker));
                    if asker != self.id() {
                        let refused = AuditEvent::Refused { asked: audit::asked(&question), why: Refusal::NotAllowed };
                        self.audit(Some(asker), refused);
                    }
                }
                return Answer::Refused(denied.to_string());
            }
        };
        let result = match (question, stage) {
            (Question::Load(id, spec), _) => {
                return self.load(asker, id, spec, progress).await.unwrap_or_else(|refusal| refusal);
            }
            (Question::Join(id, neighbours), Some(stage)) => {
                self.join(asker, &stage, id, neighbours).await.map(|()| Answer::Done)
            }
            (Question::Unload(id), Some(_)) => {
                lock(&self.inner.stages).remove(&id);
                Ok(Answer::Done)
            }
            (Question::Expect(id, from), Some(_)) => {
                let named = self.with_claims(asker, Order::Command, id, |hosted| hosted.claims.hands_over = Some(from));
                named.map(|()| Answer::Done).map_err(|denied| denied.to_string())
            }
            (
                question @ (Question::Open(..)
                | Question::Close(..)
                | Question::Report(_)
                | Question::Keep(..)
                | Question::Check(_)
                | Question::Resend(..)
                | Question::Digests(..)
                | Question::Rows(..)
                | Question::Recompute(..)),
                Some(stage),
            ) => match self.has_session_for(asker, &stage, &question).await {
                Ok(()) => stage.answer(question).await,
                Err(full) => return full,
            },
            (Question::HandOver(id, order), Some(stage)) => self.hand_over(&stage, id, &order).await,
            (Question::Retain(wanted), _) => {
                lock(&self.inner.stages).retain(|id, hosted| hosted.claims.owner != asker || wanted.contains(id));
                Ok(Answer::Done)
            }
            (Question::Lend(key), _) => {
                self.endpoint().admission().lend(key, asker);
                Ok(Answer::Done)
            }
            // The first three take their stream over, see `serve`; the others have been refused above.
            _ => Err("this is asked on a stream of its own".to_owned()),
        };
        result.unwrap_or_else(Answer::Refused)
    }

    /// Whether a machine may have another session computed here, within the limit that it was given; else what it is told.
    async fn has_session_for(&self, asker: PeerId, stage: &Stage, question: &Question) -> Result<(), Answer> {
        let Some(limit) = self.peers().rights(asker).session_limit else { return Ok(()) };
        let session = match question {
            Question::Open(_, spec) => spec.session,
            Question::Recompute(_, wanted) if wanted.position == 0 => wanted.session,
            _ => return Ok(()),
        };
        // Each answer has a session on every stage that it passes here.
        let busiest = {
            let stages = lock(&self.inner.stages);
            let own = stages.values().filter(|hosted| hosted.claims.owner == asker);
            own.map(|hosted| hosted.stage.sessions()).max().unwrap_or(0)
        };
        let is_open = async || stage.open_sessions().await.iter().any(|(open, _)| *open == session);
        // It may wait for a place and ask again and again: that is no refusal to be noted.
        if busiest < limit as usize || is_open().await {
            Ok(())
        } else {
            Err(Answer::Full(format!("it computes at most {limit} answers of this machine at a time")))
        }
    }

    async fn load(
        &self,
        asker: PeerId,
        id: StageId,
        spec: StageSpec,
        progress: &mut impl FnMut(usize),
    ) -> Result<Answer, Answer> {
        let Profile { sharing, not_sharing, .. } = self.profile_for(asker);
        if asker != self.id() && !sharing {
            return Err(Answer::Declined(not_sharing.unwrap_or_else(|| "it does not share".to_owned())));
        }
        let promised = self.reserve(asker, spec.bytes, spec.standby).map_err(Answer::Full)?;
        let is_own = asker == self.id() || self.trusts_paths();
        let model = models::locate(&spec.source, is_own, self.catalogue()).await.map_err(|why| {
            tracing::info!("a model that was asked for cannot be used: {}", why.told(true));
            match why {
                NotLocated::Unusable(_) if is_own => Answer::Unfit(why.told(true)),
                NotLocated::Path => Answer::Refused(why.told(is_own)),
                _ if is_own => Answer::Refused(why.told(true)),
                NotLocated::Missing | NotLocated::Unusable(_) | NotLocated::AnotherVersion => Answer::Lacks,
            }
        })?;
        // What it is said to take is the asker's word; what its layers weigh is not.
        let form = planning::form(spec.compute, self.profile().gpu);
        let bytes = planning::stage_bytes(model.card(), &spec.layers, form);
        let bytes = bytes.map_err(|why| Answer::Refused(why.to_string()))?;
        let bytes = bytes.max(spec.bytes);
        drop(promised);
        let reserved = self.reserve(asker, bytes, spec.standby).map_err(Answer::Full)?;
        let tenancy = Tenancy { is_guest: !is_own, context: model.card().max_context };
        let loaded = Stage::load(model.path(), id.index, &spec, tenancy, progress).await;
        let (stage, device) = loaded.map_err(|not_loaded| {
            let told = |why: String| {
                tracing::warn!("layers {:?} could not be loaded: {why}", spec.layers);
                if is_own { why } else { NOT_LOADED.to_owned() }
            };
            match not_loaded {
                NotLoaded::Failed(why) => Answer::Refused(told(why)),
                NotLoaded::Unfit(why) => Answer::Unfit(told(why)),
            }
        })?;
        let audited = (asker != self.id()).then(|| self.as_audited(asker));
        let mut stages = lock(&self.inner.stages);
        // Another machine's may have come while this one was being loaded.
        may(asker, Order::Load, stages.get(&id).map(|hosted| &hosted.claims))
            .map_err(|denied| Answer::Refused(denied.to_string()))?;
        if spec.standby && stages.get(&id).is_some_and(|hosted| !hosted.standby) {
            return Err(Answer::Declined("it holds the stage itself by now".to_owned()));
        }
        drop(reserved);
        let visit = audited.map(|machine| self.note_visit(machine, &spec, bytes, &stage));
        let claims = Claims::of(asker);
        stages.insert(id, Hosted { claims, bytes, used_bytes: 0, standby: spec.standby, stage, _visit: visit });
        Ok(Answer::Loaded(device))
    }

    /// Notes that another machine has layers here, and what it uses of them.
    fn note_visit(&self, machine: Machine, spec: &StageSpec, bytes: u64, stage: &Stage) -> Arc<Visit> {
        let (model, layers) = (models::name_of(&spec.source), [spec.layers.start, spec.layers.end]);
        let loaded = AuditEvent::Loaded { model: model.clone(), layers, bytes, standby: spec.standby };
        self.inner.audit.note(Some(machine.clone()), loaded);
        self.inner.audit.visit(machine, &model, layers, stage.usage())
    }

    /// Notes that another machine may not load layers. What else goes wrong is left out, unless it had no right to it:
    /// machines that mend a ring ask for what is gone, and mean no harm.
    pub(crate) fn note_refusal(&self, asker: PeerId, asked: Asked, answer: &Answer) {
        let why = match answer {
            Answer::Declined(_) => Refusal::NotSharing,
            Answer::Full(_) => Refusal::NoRoom,
            Answer::Refused(_) | Answer::Lacks | Answer::Unfit(_) => Refusal::NotPossible,
            _ => return,
        };
        if asked == Asked::Load {
            self.audit(Some(asker), AuditEvent::Refused { asked, why });
        }
    }

    async fn join(&self, asker: PeerId, stage: &Stage, id: StageId, neighbours: Neighbours) -> Result<(), String> {
        let Neighbours { epoch, next, first, previous, coordinator } = neighbours;
        // This node sends in its own name: what a machine asked for goes back to that machine, and to no ring of others.
        if coordinator.id() != asker {
            return Err("a ring's tokens go to its owner".to_owned());
        }
        let named = self.with_claims(asker, Order::Command, id, |hosted| {
            hosted.claims = Claims { owner: asker, previous: Some(previous), hands_over: None };
            // Whoever is joined computes, copy or not.
            hosted.standby = false;
        });
        named.map_err(|denied| denied.to_string())?;
        self.joined();
        let StageId { ring, index } = id;
        let to_stage = async |whom: Option<PeerAddr>, index: Option<u32>| match (whom, index) {
            (Some(whom), Some(index)) => self.route(&whom, ring, asker, Role::Stage(index)).await.map(Some),
            _ => Ok(None),
        };
        let next = to_stage(next, index.checked_add(1)).await?;
        // Where the first stage is at the coordinator, and not here, one frame serves both.
        let is_head = first.as_ref().is_some_and(|first| first.id() == coordinator.id() && first.id() != self.id());
        let (first, role) = if is_head { (None, Role::Head) } else { (first, Role::Coordinator) };
        let first = to_stage(first, Some(0)).await?;
        let coordinator = self.route(&coordinator, ring, asker, role).await?;
        stage.join(Routes { epoch, next, first, coordinator }).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::node::NodeOptions;
    use hive_protocol::ModelSource;

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

    #[tokio::test]
    async fn what_another_machine_is_refused_stands_in_the_log_once_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let options = |name: &str| NodeOptions::new(name.to_owned(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let data = Some(crate::data::DataFolder::open(folder.path()).unwrap());
        let host = Node::start(NodeOptions { share: false, data, ..options("host") }).await.unwrap();
        let mallory = Node::start(options("mallory")).await.unwrap();
        host.peers().admit(mallory.id(), "mallory", Some(&mallory.addr())).unwrap();
        mallory.peers().admit(host.id(), "host", Some(&host.addr())).unwrap();
        let spec = StageSpec {
            source: ModelSource::Path("/home/owner/secret.gguf".into()),
            layers: 0..1,
            compute: crate::Compute::Auto,
            threads: 0,
            bytes: 11,
            standby: false,
        };
        for ring in 0..50 {
            let load = Question::Load(StageId { ring: RingId(ring), index: 0 }, spec.clone());
            let answer = mallory.ask_other(&host.addr(), load, |_| ()).await.unwrap();
            assert!(matches!(answer, Answer::Declined(_)), "{answer:?}");
        }
        let log = host.audit_log(&crate::audit::Query::default()).unwrap();
        let refused: Vec<_> = log.entries.iter().filter(|line| line.entry.machine.is_some()).collect();
        // Two, where an hour has just begun.
        assert!((1..=2).contains(&refused.len()), "{refused:?}");
        assert_eq!(refused.iter().map(|line| line.entry.count).sum::<u64>(), 50);
        let words = "mallory was refused to load layers: this machine was not sharing, ";
        assert!(refused[0].text.starts_with(words), "{refused:?}");
        mallory.stop().await;
        host.stop().await;
    }
}
