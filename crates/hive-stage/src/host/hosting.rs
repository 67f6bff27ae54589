//! Requests about the stages on this machine.

use std::sync::Arc;

use hive_audit::{self as audit, Asked, AuditEvent, Machine, Refusal, Visit};
use hive_net::{PeerAddr, PeerId};
use hive_protocol::{Neighbours, Profile, Reply, Request, Role, StageId, StageSpec};

use super::orders::{Claims, Denied, Order, may, order};
use super::{Hosted, StageHost};
use crate::fetching::FetchFailure;
use crate::locate::NotLocated;
use crate::planning;
use crate::runtime::aside;
use crate::stage::{NotLoaded, Routes, Stage, Tenancy};

/// Another machine's error for layers that could not be loaded: the reason may name files of this machine.
const NOT_LOADED: &str = "it could not load these layers; the log there says why";

impl StageHost {
    /// The stage that `asker` commands.
    fn commanded(&self, asker: PeerId, id: StageId) -> Result<Stage, Denied> {
        self.with_claims(asker, Order::Command, id, |hosted| hosted.stage.clone())
    }

    /// The stage that `asker` may hand its sessions over to, once, and the bytes planned for it.
    pub(super) fn receiving(&self, asker: PeerId, id: StageId) -> Result<(Stage, u64), Denied> {
        self.with_claims(asker, Order::ReceiveSessions, id, |hosted| {
            hosted.claims.draining_from = None;
            (hosted.stage.clone(), hosted.bytes)
        })
    }

    /// Applies `act` to a stage, if `asker` may give it this order.
    pub(super) fn with_claims<T>(
        &self,
        asker: PeerId,
        order: Order,
        id: StageId,
        act: impl FnOnce(&mut Hosted) -> T,
    ) -> Result<T, Denied> {
        let mut stages = self.stages();
        may(asker, order, stages.get(&id).map(|hosted| &hosted.claims))?;
        stages.get_mut(&id).map(act).ok_or(Denied::NoSuchStage)
    }

    /// Answers a request of a node, which may be this one.
    pub(crate) async fn answer(
        &self,
        asker: PeerId,
        request: Request,
        progress: &mut (impl FnMut(usize) + Send),
    ) -> Reply {
        // Checked before anything else: whose stage is it?
        let commanded = match order(&request) {
            Some((id, Order::Command)) => self.commanded(asker, id).map(Some),
            Some((id, order @ Order::Load)) => {
                may(asker, order, self.stages().get(&id).map(|hosted| &hosted.claims)).map(|()| None)
            }
            Some((_, Order::Frames | Order::ReceiveSessions)) | None => Ok(None),
        };
        let stage = match commanded {
            Ok(stage) => stage,
            Err(denied) => {
                if let Some(why) = order(&request).and_then(|(id, _)| self.evicted(asker, id)) {
                    return Reply::Refused(why);
                }
                if denied != Denied::NoSuchStage {
                    tracing::info!(
                        "{} gave an order that is not its to give: {denied:?}",
                        self.membership().peers().name(asker)
                    );
                    if asker != self.membership().id() {
                        let refused = AuditEvent::Refused { asked: audit::asked(&request), why: Refusal::NotAllowed };
                        self.membership().audit(Some(asker), refused);
                    }
                }
                return Reply::Refused(denied.to_string());
            }
        };
        let result = match (request, stage) {
            (Request::Load(id, spec), _) => {
                return self.load(asker, id, spec, progress).await.unwrap_or_else(|refusal| refusal);
            }
            (Request::Join(id, neighbours), Some(stage)) => {
                self.join(asker, &stage, id, neighbours).await.map(|()| Reply::Done)
            }
            (Request::Unload(id), Some(_)) => {
                self.stages().remove(&id);
                Ok(Reply::Done)
            }
            (Request::ExpectSessions(id, from), Some(_)) => {
                let named =
                    self.with_claims(asker, Order::Command, id, |hosted| hosted.claims.draining_from = Some(from));
                named.map(|()| Reply::Done).map_err(|denied| denied.to_string())
            }
            (
                request @ (Request::Open(..)
                | Request::Close(..)
                | Request::Report(_)
                | Request::Retain(..)
                | Request::Check(_)
                | Request::Replay(..)
                | Request::Digests(..)
                | Request::Rows(..)
                | Request::Recompute(..)),
                Some(stage),
            ) => match self.has_session_for(asker, &stage, &request).await {
                Ok(()) => stage.answer(request).await,
                Err(full) => return full,
            },
            (Request::Drain(id, order), Some(stage)) => self.drain(&stage, id, &order).await,
            (Request::RenewLeases(wanted), _) => {
                self.stages().retain(|id, hosted| hosted.claims.owner != asker || wanted.contains(id));
                Ok(Reply::Done)
            }
            (Request::GrantKey(key), _) => {
                self.membership().endpoint().admission().lend(key, asker);
                Ok(Reply::Done)
            }
            // Requests that take over their stream are handled elsewhere, see `serve`; others were refused above.
            _ => Err("this is asked on a stream of its own".to_owned()),
        };
        result.unwrap_or_else(Reply::Refused)
    }

    /// Checks the asker's session limit. The error is the reply.
    async fn has_session_for(&self, asker: PeerId, stage: &Stage, request: &Request) -> Result<(), Reply> {
        let Some(limit) = self.membership().peers().rights(asker).session_limit else { return Ok(()) };
        let session = match request {
            Request::Open(_, spec) => spec.session,
            Request::Recompute(_, wanted) if wanted.position == 0 => wanted.session,
            _ => return Ok(()),
        };
        // Each answer has one session on every stage here that it passes.
        let busiest = {
            let stages = self.stages();
            let own = stages.values().filter(|hosted| hosted.claims.owner == asker);
            own.map(|hosted| hosted.stage.sessions()).max().unwrap_or(0)
        };
        let is_open = async || stage.open_sessions().await.iter().any(|(open, _)| *open == session);
        // The asker may wait and ask again, so this is not logged as a refusal.
        if busiest < limit as usize || is_open().await {
            Ok(())
        } else {
            Err(Reply::Full(format!("it computes at most {limit} answers of this machine at a time")))
        }
    }

    async fn load(
        &self,
        asker: PeerId,
        id: StageId,
        spec: StageSpec,
        progress: &mut (impl FnMut(usize) + Send),
    ) -> Result<Reply, Reply> {
        let Profile { sharing, not_sharing, .. } = self.profile_for(asker);
        if asker != self.membership().id() && !sharing {
            return Err(Reply::Declined(not_sharing.unwrap_or_else(|| "it does not share".to_owned())));
        }
        let promised = self.reserve(asker, spec.bytes, spec.standby).map_err(Reply::Full)?;
        let is_own = asker == self.membership().id() || self.inner.trust_paths;
        let model = self.located_for(asker, &spec.source, is_own).await.map_err(|why| {
            tracing::info!("a model that was asked for cannot be used: {}", why.told(true));
            match why {
                NotLocated::Unusable(_) if is_own => Reply::Unfit(why.told(true)),
                NotLocated::NoRoom(why) => Reply::Declined(why.to_string()),
                NotLocated::Path => Reply::Refused(why.told(is_own)),
                _ if is_own => Reply::Refused(why.told(true)),
                NotLocated::Missing | NotLocated::Unusable(_) | NotLocated::AnotherVersion => Reply::Lacks,
            }
        })?;
        let model = model.quantized(spec.at_load);
        // The asker claims a size; the model's layers determine it.
        let form = planning::form(spec.compute, self.membership().profile().gpu);
        let bytes = planning::stage_bytes(model.card(), &spec.layers, form);
        let bytes = bytes.map_err(|why| Reply::Refused(why.to_string()))?;
        let bytes = bytes.max(spec.bytes);
        if spec.standby && self.lacks_bytes(&model, spec.layers.clone()).await {
            return Err(Reply::Declined("it would have to fetch these layers".to_owned()));
        }
        let parts = aside(|| self.keep_parts(model.path()));
        // Usually done already, by an order of its own.
        let fetched = self.complete(&model, spec.layers.clone(), asker, &mut |_, _| progress(0)).await;
        fetched.map_err(|why| {
            tracing::warn!("layers {:?} could not be fetched: {why}", spec.layers);
            match why {
                FetchFailure::Lacks => Reply::Lacks,
                FetchFailure::Other(_) if !is_own => Reply::Declined(NOT_LOADED.to_owned()),
                why => Reply::Declined(why.to_string()),
            }
        })?;
        drop(promised);
        let reserved = self.reserve(asker, bytes, spec.standby).map_err(Reply::Full)?;
        let is_whole = spec.layers == (0..model.card().layers());
        let is_recurrent = planning::is_recurrent(model.card(), &spec.layers);
        let tenancy = Tenancy { is_guest: !is_own, is_whole, context: model.card().max_context, is_recurrent };
        let (tasks, copies) = (self.membership().tasks(), self.inner.copies.clone());
        let loaded = Stage::load(model.path(), id.index, &spec, tenancy, tasks, copies, progress).await;
        let (stage, device) = loaded.map_err(|not_loaded| {
            let told = |why: String| {
                tracing::warn!("layers {:?} could not be loaded: {why}", spec.layers);
                if is_own { why } else { NOT_LOADED.to_owned() }
            };
            match not_loaded {
                NotLoaded::Failed(why) => Reply::Refused(told(why)),
                NotLoaded::Unfit(why) => Reply::Unfit(told(why)),
            }
        })?;
        let audited = (asker != self.membership().id()).then(|| self.membership().as_audited(asker));
        let mut stages = self.stages();
        // Another machine may have loaded a stage under this id meanwhile.
        may(asker, Order::Load, stages.get(&id).map(|hosted| &hosted.claims))
            .map_err(|denied| Reply::Refused(denied.to_string()))?;
        if spec.standby && stages.get(&id).is_some_and(|hosted| !hosted.standby) {
            return Err(Reply::Declined("it holds the stage itself by now".to_owned()));
        }
        drop(reserved);
        let visit = audited.map(|machine| self.note_visit(machine, &spec, bytes, &stage));
        let claims = Claims::of(asker);
        let standby = spec.standby;
        stages.insert(id, Hosted { claims, bytes, used_bytes: 0, standby, stage, _parts: parts, _visit: visit });
        Ok(Reply::Loaded(device))
    }

    /// Logs that another machine has loaded layers here, and starts to log its use of them.
    fn note_visit(&self, machine: Machine, spec: &StageSpec, bytes: u64, stage: &Stage) -> Arc<Visit> {
        let (model, layers) = (spec.source.name(), [spec.layers.start, spec.layers.end]);
        let loaded = AuditEvent::Loaded { model: model.clone(), layers, bytes, standby: spec.standby };
        self.membership().note_about(machine.clone(), loaded);
        self.membership().audit_log().visit(machine, &model, layers, stage.usage())
    }

    /// Logs that this machine refused to load layers for another one. Other failures are not logged: machines that fail
    /// over ask for what is gone, and mean no harm. An order without the right to it is logged where it is denied.
    pub(super) fn note_refusal(&self, asker: PeerId, asked: Asked, answer: &Reply) {
        let why = match answer {
            Reply::Declined(_) => Refusal::NotSharing,
            Reply::Full(_) => Refusal::NoRoom,
            Reply::Refused(_) | Reply::Lacks | Reply::Unfit(_) => Refusal::NotPossible,
            _ => return,
        };
        if asked == Asked::Load {
            self.membership().audit(Some(asker), AuditEvent::Refused { asked, why });
        }
    }

    async fn join(&self, asker: PeerId, stage: &Stage, id: StageId, neighbours: Neighbours) -> Result<(), String> {
        let Neighbours { epoch, next, first, previous, coordinator } = neighbours;
        // This node sends in its own name, so a machine's frames go back to that machine and never to others' rings.
        if coordinator.id() != asker {
            return Err("a ring's tokens go to its owner".to_owned());
        }
        let named = self.with_claims(asker, Order::Command, id, |hosted| {
            hosted.claims = Claims { owner: asker, previous: Some(previous), draining_from: None };
            // A stage that is joined computes, even if it was a standby replica.
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
        // If the first stage is on the coordinator's machine, and not here, one frame serves both.
        let is_head =
            first.as_ref().is_some_and(|first| first.id() == coordinator.id() && first.id() != self.membership().id());
        let (first, role) = if is_head { (None, Role::Head) } else { (first, Role::Coordinator) };
        let first = to_stage(first, Some(0)).await?;
        let coordinator = self.route(&coordinator, ring, asker, role).await?;
        stage.join(Routes { epoch, next, first, coordinator }).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hive_peers::MembershipOptions;
    use hive_peers::data::DataFolder;
    use hive_protocol::{ModelSource, RingId};

    use super::*;
    use crate::host::HostOptions;
    use crate::testing::{self, Machine};

    fn spec(source: ModelSource) -> StageSpec {
        let compute = hive_model::Compute::Auto;
        StageSpec { source, layers: 0..1, compute, threads: 0, bytes: 11, standby: false, at_load: None }
    }

    async fn asked_to_load(host: &Machine, by_itself: bool) -> Reply {
        let asker = if by_itself { host.membership().id() } else { hive_net::Identity::generate().id() };
        let load = Request::Load(StageId { ring: RingId(1), index: 0 }, spec(ModelSource::Named(None, String::new())));
        host.answer(asker, load, &mut |_| ()).await
    }

    fn switch_off(host: &Machine) {
        host.membership().describe(|profile| {
            profile.set_sharing(Err(hive_types::NotSharing::SwitchedOff));
            true
        });
    }

    #[tokio::test]
    async fn what_an_owner_does_not_want_is_no_fault_and_a_broken_promise_is() {
        let ann = Machine::start("ann").await;
        switch_off(&ann);
        let declined = asked_to_load(&ann, false).await;
        assert!(matches!(&declined, Reply::Declined(why) if why.contains("switched off")), "{declined:?}");
        ann.stop().await;
        let ann = Machine::start_with("ann", HostOptions { memory_cap: Some(10), ..HostOptions::default() }).await;
        let refused = asked_to_load(&ann, true).await;
        assert!(matches!(&refused, Reply::Full(why) if why.contains("given are in use")), "{refused:?}");
        ann.stop().await;
    }

    #[tokio::test]
    async fn what_another_machine_is_refused_stands_in_the_log_once_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let data = Some(Arc::new(DataFolder::open(folder.path()).unwrap()));
        let options = MembershipOptions { data, ..testing::options("host") };
        let host = Machine::open(options, HostOptions::default()).await;
        switch_off(&host);
        let mallory = Machine::start("mallory").await;
        testing::admit(&host, &mallory);
        let source = ModelSource::Path("/home/owner/secret.gguf".into());
        for ring in 0..50 {
            let load = Request::Load(StageId { ring: RingId(ring), index: 0 }, spec(source.clone()));
            let answer = mallory.membership().ask_other(&host.membership().addr(), load, |_| ()).await.unwrap();
            assert!(matches!(answer, Reply::Declined(_)), "{answer:?}");
        }
        let log = host.membership().audit_log().read(&hive_audit::Query::default()).unwrap();
        let refused: Vec<_> = log.entries.iter().filter(|line| line.entry.machine.is_some()).collect();
        // Two if a new hour has just begun.
        assert!((1..=2).contains(&refused.len()), "{refused:?}");
        assert_eq!(refused.iter().map(|line| line.entry.count).sum::<u64>(), 50);
        let words = "mallory was refused to load layers: this machine was not sharing, ";
        assert!(refused[0].text.starts_with(words), "{refused:?}");
        mallory.stop().await;
        host.stop().await;
    }
}
