//! Decides where a model goes.

use std::collections::BTreeSet;

use hive_peers::{Candidate, HERE, Placement, Scope, between};
use hive_plan::{Machine, Plan, PlanError, Revision};
use hive_protocol::ModelSource;
use hive_ring::{PlacedStage, Ring};
use hive_stage::planning::{self, plan_best, plan_over};
use hive_stage::{aside, models};
use hive_types::Reason;
use hive_worker::text::{Model, ModelCard};

use super::{Serving, held_by, manual, placements};
use crate::error::ServeError;
use crate::model_request::ModelRequest;

impl Serving {
    /// Whether a loaded model should move, given the machines and links of now. A model in use moves by live migration,
    /// which needs memory for a second copy, so the gain must be larger.
    pub(super) fn revision(&self, ring: &Ring, wanted: &ModelRequest) -> Result<Revision, ServeError> {
        let busy = ring.is_busy();
        // Moving frees the memory that the model holds, except in a live migration.
        let freed = if busy { Vec::new() } else { held_by(std::slice::from_ref(ring)) };
        let mut machines = self.member().candidates(Some(ring.source()), &freed, Scope::Healthy);
        // Nobody waits for a download where a loaded model can answer.
        machines.retain(|machine| self.member().has_copy(machine.placement.addr.id(), ring.source()));
        let place = |stage: &PlacedStage, machines: &[Candidate]| {
            let id = stage.placement.addr.id();
            machines.iter().position(|machine| machine.placement.addr.id() == id)
        };
        let stages = ring.stages();
        let places = stages.iter().map(|stage| place(stage, &machines)).collect::<Option<Vec<_>>>();
        let Some(places) = places else {
            // A loaded model stays even if its file has been removed from a machine since.
            let all = self.member().candidates(None, &freed, Scope::Healthy);
            let are_here = stages.iter().all(|stage| place(stage, &all).is_some());
            return Ok(if are_here { Revision::Keep } else { Revision::Move });
        };
        let manual_plan = self.manual_plan(wanted);
        if manual_plan.is_none() && self.plan_here(ring.model().card(), &machines).is_some() {
            let is_here = places.iter().all(|place| *place == HERE);
            return Ok(if is_here { Revision::Keep } else { Revision::Move });
        }
        if let Some(wanted) = wanted.stages {
            // A failover may have left it on fewer machines than requested.
            let used = places.iter().collect::<BTreeSet<_>>().len();
            return Ok(if used < wanted { Revision::Move } else { Revision::Keep });
        }
        if manual_plan.as_ref().is_some_and(|written| placements::is_where(ring, written)) {
            return Ok(Revision::Keep);
        }
        let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
        let link = |a: usize, b: usize| between(&machines[a], &machines[b]);
        let now: Vec<_> = places.into_iter().zip(stages.iter().map(|stage| stage.layers.clone())).collect();
        let now_tokens_per_s = planning::predict(ring.model().card(), &nodes, &link, &now).tokens_per_s();
        if manual_plan.is_some_and(|written| manual::arrange(ring.model().card(), &machines, &nodes, &written).is_ok())
        {
            return Ok(Revision::Move);
        }
        let best = match plan_best(ring.model().card(), &nodes, &link) {
            // There is no room for a second copy.
            Err(_) if busy => return Ok(Revision::Keep),
            best => best.map_err(|error| self.no_plan(error, wanted, ring.source()))?,
        };
        let best_tokens_per_s = best.decode_tokens_per_s.unwrap_or(0.0);
        let revision = hive_plan::revise(now_tokens_per_s, best_tokens_per_s, busy || ring.is_prefix_warm());
        if revision == Revision::Move {
            tracing::info!("another place is worth moving to: {best_tokens_per_s:.1} tok/s, {now_tokens_per_s:.1} now");
        }
        Ok(revision)
    }

    /// Plans a request, assuming that the memory of `freed` is free.
    pub(super) fn place(
        &self,
        model: &Model,
        wanted: &ModelRequest,
        freed: &[Ring],
    ) -> Result<(Plan, Vec<Placement>), ServeError> {
        let source = models::source(wanted.model.as_deref(), model);
        let held = held_by(freed);
        let mut hindrance = None;
        if let Some(written) = self.manual_plan(wanted) {
            match self.as_written(model, wanted, &written, freed) {
                Ok((mut plan, placements)) => {
                    plan.reasons.push(Reason::PlacedManually);
                    return Ok((plan, placements));
                }
                Err(why) => hindrance = Some(Reason::NotAsPlaced { why: why.to_string() }),
            }
        }
        let mut machines = self.member().candidates(Some(&source), &held, Scope::Healthy);
        let mut plan = self.place_on(&machines, model.card(), wanted);
        if self.member().lacks().has_told(self.member().id(), &source) {
            // This machine has just failed to fetch its layers. Unlike others it stays in the list, so it offers nothing.
            let mut others = self.member().candidates(Some(&source), &held, Scope::Healthy);
            others[HERE].profile.memory_bytes = 0;
            if let Ok(found) = self.place_on(&others, model.card(), wanted) {
                (plan, machines) = (Ok(found), others);
            }
        }
        let mut asked_again = None;
        if plan.is_err() {
            // Rather use a machine where a stage recently did not load than have no plan.
            let more = self.member().candidates(Some(&source), &held, Scope::WithLoadFailures);
            if more.len() > machines.len()
                && let Ok(found) = self.place_on(&more, model.card(), wanted)
            {
                let is_new =
                    |machine: &&Candidate| self.member().trust().quarantined_for(machine.placement.addr.id()).is_some();
                let names = more.iter().filter(is_new).map(|machine| machine.placement.name.clone());
                asked_again = Some(Reason::TriedAgain { machines: names.collect() });
                (plan, machines) = (Ok(found), more);
            }
        }
        let mut plan = plan.map_err(|unplaced| match unplaced {
            Unplaced::TooFew { wanted } => ServeError::TooFew {
                wanted,
                usable: machines.iter().map(|machine| machine.placement.name.clone()).collect(),
                exclusions: self.member().exclusions(&source),
            },
            Unplaced::Plan(error) => self.no_plan(error, wanted, &source),
        })?;
        // Of several stages that were asked for, each is worth a download.
        if wanted.stages.is_none() && aside(|| models::parts_at(model.path()).is_none_or(|copy| copy.is_whole())) {
            let mut ready = self.member().candidates(Some(&source), &held, Scope::Healthy);
            let has_copy = |machine: &Candidate| self.member().has_copy(machine.placement.addr.id(), &source);
            ready.retain(has_copy);
            let lacking = plan.stages.iter().map(|stage| &machines[stage.machine]).filter(|machine| !has_copy(machine));
            let lacking: Vec<_> = lacking.map(|machine| machine.placement.name.clone()).collect();
            if !lacking.is_empty() {
                let found = self.place_on(&ready, model.card(), wanted).ok();
                if let Some(found) = found.filter(|found| is_fast_enough(found, &plan)) {
                    (plan, machines, asked_again) = (found, ready, None);
                    plan.reasons.push(Reason::NotWorthFetching { machines: lacking });
                } else {
                    plan.reasons.push(Reason::FetchedFirst { machines: lacking });
                }
            }
        }
        plan.reasons.extend(hindrance);
        plan.reasons.extend(self.member().remarks(&machines, Some(&source)));
        plan.reasons.extend(asked_again);
        Ok((plan, machines.into_iter().map(|machine| machine.placement).collect()))
    }

    /// Plans a request on these machines.
    fn place_on(&self, machines: &[Candidate], model: &ModelCard, wanted: &ModelRequest) -> Result<Plan, Unplaced> {
        let here = self.plan_here(model, machines);
        let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
        let link = |a: usize, b: usize| between(&machines[a], &machines[b]);
        match wanted.stages.filter(|wanted| here.is_none() || *wanted == 0) {
            Some(0) => Err(PlanError::NoStages.into()),
            Some(wanted) if wanted > machines.len() => Err(Unplaced::TooFew { wanted }),
            Some(wanted) => {
                let machine = |machine: &Candidate| Machine {
                    name: machine.placement.name.clone(),
                    memory_bytes: machine.profile.memory_bytes,
                    form: machine.profile.form,
                };
                let mut plan = plan_over(model, &machines[..wanted].iter().map(machine).collect::<Vec<_>>())?;
                let stages: Vec<_> = plan.stages.iter().map(|stage| (stage.machine, stage.layers.clone())).collect();
                plan.decode_tokens_per_s = Some(planning::predict(model, &nodes, &link, &stages).tokens_per_s());
                Ok(plan)
            }
            None => Ok(here.map_or_else(|| plan_best(model, &nodes, &link), Ok)?),
        }
    }

    /// The error for a missing plan, with the excluded machines and the reasons.
    fn no_plan(&self, error: PlanError, wanted: &ModelRequest, source: &ModelSource) -> ServeError {
        let pinned = self.pinned_beside(wanted).into_iter().map(|model| Reason::Pinned { model });
        ServeError::Plan { error, exclusions: self.member().exclusions(source).into_iter().chain(pinned).collect() }
    }

    /// A plan with the whole model on this machine, if the owner prefers that and it fits.
    fn plan_here(&self, model: &ModelCard, machines: &[Candidate]) -> Option<Plan> {
        if !self.keeps_prompts_here() {
            return None;
        }
        let here = &machines[HERE];
        let mut plan = plan_best(model, std::slice::from_ref(&here.profile), &|_, _| between(here, here)).ok()?;
        plan.reasons.push(Reason::StaysHere);
        Some(plan)
    }
}

/// Machines that have a model compute it without those that would have to fetch it, if they reach this part of the speed.
const FAST_ENOUGH: f64 = 0.7;

/// Whether a plan without downloads is as good as the best one, as far as their speeds are known.
fn is_fast_enough(ready: &Plan, best: &Plan) -> bool {
    let best = best.decode_tokens_per_s;
    best.is_none_or(|best| ready.decode_tokens_per_s.is_some_and(|ready| ready >= best * FAST_ENOUGH))
}

/// Why a request cannot be placed.
enum Unplaced {
    /// There are fewer machines than requested.
    TooFew { wanted: usize },
    /// No plan is possible.
    Plan(PlanError),
}

impl From<PlanError> for Unplaced {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use hive_model::Compute;
    use hive_peers::{Failing, Membership, Rights};
    use hive_protocol::{ModelCopy, Profile, Reply, Request, RingId, StageId, StageSpec};
    use hive_stage::testing::{Machine, admit};

    use crate::marks::Marks;
    use crate::placed::Placements;

    /// A machine with its `Serving`.
    struct Node {
        machine: Machine,
        serving: Serving,
    }

    impl Node {
        async fn start(name: &str, keeps_prompts_here: bool) -> Self {
            let machine = Machine::start(name).await;
            let serving = Serving::new((*machine).clone(), Placements::default(), Marks::default(), keeps_prompts_here);
            Self { machine, serving }
        }

        fn member(&self) -> &Membership {
            self.machine.membership()
        }

        async fn stop(&self) {
            self.machine.stop().await;
        }
    }

    /// Two machines that have approved each other and are connected.
    async fn approved() -> (Node, Node) {
        let (ann, bob) = (Node::start("ann", false).await, Node::start("bob", false).await);
        admit(&ann.machine, &bob.machine);
        becomes(&ann, || ann.member().is_candidate(bob.member().id())).await;
        becomes(&bob, || bob.member().is_candidate(ann.member().id())).await;
        (ann, bob)
    }

    async fn becomes(node: &Node, so: impl Fn() -> bool) {
        let mut changes = node.member().peers().changes();
        let waiting = async {
            while !so() {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it becomes so");
    }

    #[tokio::test]
    async fn prompts_that_stay_here_stay_here_whatever_number_of_machines_is_wished_for() {
        hive_worker::read_texts_here();
        let model = models::open(None).await.unwrap();
        let wanted = |stages| ModelRequest { model: None, stages: Some(stages) };
        for (keeps, places) in [(true, Some(vec![HERE])), (false, None)] {
            let ann = Node::start("ann", keeps).await;
            let placed = ann.serving.place(&model, &wanted(2), &[]).ok();
            let stages = placed.map(|(plan, _)| plan.stages.iter().map(|stage| stage.machine).collect::<Vec<_>>());
            assert_eq!(stages, places, "there is no second machine");
            assert!(ann.serving.place(&model, &wanted(0), &[]).is_err());
            ann.stop().await;
        }
    }

    #[tokio::test]
    async fn a_machine_that_may_not_see_prompts_gets_no_layers_and_the_plan_says_so() {
        let (ann, bob) = approved().await;
        let starter = ModelSource::Named(None, "1".to_owned());
        let holds = |node: &Node| {
            node.member().machines(&starter).iter().any(|(place, _)| place.addr.id() == bob.member().id())
        };
        let candidates = || ann.member().candidates(None, &[], Scope::WithLoadFailures);
        assert!(holds(&ann));
        ann.member().set_rights(bob.member().id(), Rights { prompts: false, ..Rights::default() }).unwrap();
        assert!(!holds(&ann) && !ann.member().is_candidate(bob.member().id()));
        assert!(candidates().iter().all(|machine| machine.placement.addr.id() != bob.member().id()));
        let remarks = ann.member().remarks(&candidates(), None);
        assert_eq!(remarks, [Reason::NoPrompts { machine: "bob".to_owned() }]);
        // The other right is separate: bob's own models may still have layers here.
        assert!(bob.member().is_candidate(ann.member().id()));
        ann.member().set_rights(bob.member().id(), Rights::default()).unwrap();
        assert!(holds(&ann) && ann.member().remarks(&candidates(), None).is_empty());
        ann.stop().await;
        bob.stop().await;
    }

    #[tokio::test]
    async fn whoever_takes_no_part_is_named_with_the_reason_and_what_to_do() {
        let (ann, bob) = approved().await;
        let model = models::open(None).await.unwrap();
        let two = ModelRequest { model: None, stages: Some(2) };
        let place = |node: &Node| node.serving.place(&model, &two, &[]).map(|(plan, _)| plan);
        let refused = |node: &Node| place(node).unwrap_err().to_string();
        assert!(place(&ann).is_ok());
        let says = |copies: Option<Vec<ModelCopy>>| {
            ann.member()
                .peers()
                .described(bob.member().id(), Profile { copies, ..bob.machine.profile_for(ann.member().id()) });
        };
        says(Some(Vec::new()));
        let why = refused(&ann);
        let words = "2 machines were asked for, but only ann can take a part: bob does not have SmolLM2";
        assert!(why.starts_with(words) && why.contains("update HiveMind there"), "{why}");
        let other = ModelCopy { name: Some(models::starter_name().to_owned()), digest: Some("1f".to_owned()) };
        says(Some(vec![other]));
        assert!(refused(&ann).contains("bob's copy of SmolLM2"), "{}", refused(&ann));
        let plan = ann.serving.place(&model, &ModelRequest::default(), &[]).unwrap().0;
        assert!(plan.reasons.iter().any(|reason| matches!(reason, Reason::OtherStarter { .. })), "{:?}", plan.reasons);
        let same = ModelCopy { name: None, digest: Some(model.card().digest.clone()) };
        says(Some(vec![same]));
        assert!(place(&ann).is_ok(), "it has the model by another name");

        // A load failure may pass; wrong numbers do not.
        ann.member().trust().failed(bob.member().id(), Failing::Loading);
        let again = place(&ann).unwrap();
        assert!(again.reasons.iter().any(|reason| matches!(reason, Reason::TriedAgain { .. })), "{:?}", again.reasons);
        ann.member().trust().failed(bob.member().id(), Failing::Computing);
        assert!(refused(&ann).contains("bob is quarantined for 1 min: its stages failed"), "{}", refused(&ann));
        ann.member().trust().quarantine(bob.member().id());
        assert!(refused(&ann).contains("bob is quarantined for 24 h: it computed wrong numbers"), "{}", refused(&ann));
        bob.member().describe(|profile| {
            profile.set_sharing(Err(hive_types::NotSharing::SwitchedOff));
            true
        });
        becomes(&ann, || !ann.member().sharing_others().iter().any(|(peer, _)| *peer == bob.member().id())).await;
        assert!(refused(&ann).contains("bob does not share: "), "{}", refused(&ann));
        bob.stop().await;
        becomes(&ann, || ann.member().peers().present().is_empty()).await;
        assert!(refused(&ann).contains("bob is not here"), "{}", refused(&ann));
        ann.stop().await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_download_that_makes_little_difference() {
        let (ann, bob) = approved().await;
        let model = models::open(None).await.unwrap();
        let describe = |bytes_per_s: f64| {
            let profile = bob.machine.profile_for(ann.member().id());
            let copies = Some(Vec::new());
            let profile = Profile { copies, fetches: true, bytes_per_s: Some(bytes_per_s), ..profile };
            ann.member().peers().described(bob.member().id(), profile);
        };
        ann.member().describe(|profile| {
            profile.bytes_per_s = Some(1e8);
            true
        });
        for (bytes_per_s, uses_bob, words) in
            [(1.3e8, false, "Without bob: "), (2e8, true, "The model is not on bob yet")]
        {
            describe(bytes_per_s);
            let (plan, places) = ann.serving.place(&model, &ModelRequest::default(), &[]).unwrap();
            let is_used = plan.stages.iter().any(|stage| places[stage.machine].name == "bob");
            assert_eq!(is_used, uses_bob, "{:?}", plan.reasons);
            assert!(plan.reasons.iter().any(|reason| reason.to_string().starts_with(words)), "{:?}", plan.reasons);
        }
        ann.stop().await;
        bob.stop().await;
    }

    #[tokio::test]
    async fn a_machine_that_may_not_use_the_memory_is_told_so_and_loads_nothing() {
        let (ann, bob) = approved().await;
        ann.member().set_rights(bob.member().id(), Rights { memory: false, ..Rights::default() }).unwrap();
        becomes(&bob, || !bob.member().is_candidate(ann.member().id())).await;
        let spec = StageSpec {
            source: ModelSource::Named(None, String::new()),
            layers: 0..1,
            compute: Compute::Auto,
            threads: 0,
            bytes: 0,
            standby: false,
            at_load: None,
        };
        let load = || Request::Load(StageId { ring: RingId(1), index: 0 }, spec.clone());
        let asked = bob.member().ask_other(&ann.member().addr(), load(), |_| ()).await.unwrap();
        assert!(matches!(&asked, Reply::Declined(why) if why.contains("does not share it")), "{asked:?}");
        // What ann asks for is still placed on bob.
        assert!(ann.member().is_candidate(bob.member().id()));
        ann.member()
            .set_rights(bob.member().id(), Rights { memory_limit_bytes: Some(5), ..Rights::default() })
            .unwrap();
        becomes(&bob, || bob.member().is_candidate(ann.member().id())).await;
        let large = Request::Load(StageId { ring: RingId(1), index: 0 }, StageSpec { bytes: 6, ..spec.clone() });
        let asked = bob.member().ask_other(&ann.member().addr(), large, |_| ()).await.unwrap();
        assert!(matches!(&asked, Reply::Full(_)), "its own limit holds: {asked:?}");
        ann.stop().await;
        bob.stop().await;
    }
}
