//! Which machines may hold a model, what is known of them, and where a model goes.

use std::collections::BTreeSet;
use std::time::Duration;

use hive_model::Compute;
use hive_net::PeerId;
use hive_plan::{Costs, LinkProfile, Machine, NodeProfile, Plan, PlanError, Revision};

use super::{ServeError, Wish, by_hand, placements};
use crate::having::{Lack, Lacking};
use crate::models;
use crate::node::Node;
use crate::planning::{self, plan_best, plan_over};
use crate::ring::patience::Expected;
use crate::ring::{PlacedStage, Placement, Ring, reading_rows_per_s};
use hive_protocol::ModelSource;
use hive_protocol::Profile;
use hive_worker::text::{Model, ModelCard};

impl Node {
    /// Whether a loaded model should move, now that there may be other machines, or better links. One that is in use is
    /// loaded beside itself, which takes memory of its own and is worth it for more.
    pub(super) fn revision(&self, ring: &Ring, wish: &Wish) -> Result<Revision, ServeError> {
        let busy = ring.is_busy();
        // Moving frees what the model holds now, unless it is loaded beside itself.
        let freed = if busy { &[] } else { std::slice::from_ref(ring) };
        let machines = self.candidates(Some(ring.source()), freed, Asked::Well);
        let place = |stage: &PlacedStage, machines: &[Candidate]| {
            let id = stage.placement.addr.id();
            machines.iter().position(|machine| machine.placement.addr.id() == id)
        };
        let stages = ring.stages();
        let places = stages.iter().map(|stage| place(stage, &machines)).collect::<Option<Vec<_>>>();
        let Some(places) = places else {
            // What is loaded is loaded, also where its file has gone since.
            let all = self.candidates(None, freed, Asked::Well);
            let are_here = stages.iter().all(|stage| place(stage, &all).is_some());
            return Ok(if are_here { Revision::Keep } else { Revision::Move });
        };
        let by_hand = self.serving().made_by_hand(wish);
        if by_hand.is_none() && self.plan_here(ring.model().card(), &machines).is_some() {
            let is_here = places.iter().all(|place| *place == HERE);
            return Ok(if is_here { Revision::Keep } else { Revision::Move });
        }
        if let Some(wanted) = wish.stages {
            // Mended onto fewer machines, it is not what was wished for.
            let used = places.iter().collect::<BTreeSet<_>>().len();
            return Ok(if used < wanted { Revision::Move } else { Revision::Keep });
        }
        if by_hand.as_ref().is_some_and(|written| placements::is_where(ring, written)) {
            return Ok(Revision::Keep);
        }
        let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
        let link = |a: usize, b: usize| between(&machines[a], &machines[b]);
        let now: Vec<_> = places.into_iter().zip(stages.iter().map(|stage| stage.layers.clone())).collect();
        let now_tokens_per_s = planning::predict(ring.model().card(), &nodes, &link, &now).tokens_per_s();
        if by_hand.is_some_and(|written| by_hand::arrange(ring.model().card(), &machines, &nodes, &written).is_ok()) {
            return Ok(Revision::Move);
        }
        let best = match plan_best(ring.model().card(), &nodes, &link) {
            // There is no room beside itself.
            Err(_) if busy => return Ok(Revision::Keep),
            best => best.map_err(|error| self.no_plan(error, ring.source()))?,
        };
        let best_tokens_per_s = best.decode_tokens_per_s.unwrap_or(0.0);
        let revision = hive_plan::revise(now_tokens_per_s, best_tokens_per_s, busy || ring.may_be_gone_on_with());
        if revision == Revision::Move {
            tracing::info!("another place is worth moving to: {best_tokens_per_s:.1} tok/s, {now_tokens_per_s:.1} now");
        }
        Ok(revision)
    }

    /// Whether the machine of a stage has left, or has started anew and forgotten its stage.
    pub(crate) fn has_left(&self, stage: &PlacedStage) -> bool {
        // A machine that is not followed, as those of one process are not, has no life that could have ended.
        let id = stage.placement.addr.id();
        id != self.id() && stage.life != 0 && self.peers().life(id) != Some(stage.life)
    }

    /// Whether a machine has said that it does not share any more.
    pub(crate) fn is_leaving(&self, machine: PeerId) -> bool {
        self.peers().present().iter().any(|(peer, profile)| *peer == machine && !profile.sharing)
    }

    /// Whether a machine holds more than its owner lets it give by now.
    pub(crate) fn is_over_cap(&self, machine: PeerId) -> bool {
        let over = |(peer, profile): &(PeerId, Profile)| *peer == machine && profile.over_cap;
        (machine == self.id() && self.profile().over_cap) || self.peers().present().iter().any(over)
    }

    /// Whether a machine claims to have room for so many bytes.
    pub(crate) fn says_it_has_room(&self, machine: PeerId, bytes: u64) -> bool {
        let enough = |(peer, profile): &(PeerId, Profile)| *peer == machine && profile.room_bytes() >= bytes;
        self.sharing_others().iter().any(enough)
    }

    /// The machines that may take a stage of a model beside what they hold, and what is known of them.
    pub(crate) fn machines(&self, source: &ModelSource) -> Vec<(Placement, NodeProfile)> {
        let candidates = self.candidates(Some(source), &[], Asked::Well).into_iter();
        let within_cap = candidates.filter(|machine| !self.is_over_cap(machine.placement.addr.id()));
        let beside = |machine: Candidate| NodeProfile { memory_bytes: machine.room_bytes, ..machine.profile };
        within_cap.map(|machine| (machine.placement.clone(), beside(machine))).collect()
    }

    /// Where a wish goes, once what these models hold is free.
    pub(super) fn place(
        &self,
        model: &Model,
        wish: &Wish,
        freed: &[Ring],
    ) -> Result<(Plan, Vec<Placement>), ServeError> {
        let source = models::source(wish.model.as_deref(), model);
        let mut hindrance = None;
        if let Some(written) = self.serving().made_by_hand(wish) {
            match self.as_written(model, wish, &written, freed) {
                Ok((mut plan, placements)) => {
                    plan.reasons.push("It was placed by hand, and stays so until it is unloaded.".to_owned());
                    return Ok((plan, placements));
                }
                Err(why) => hindrance = Some(format!("The plan made by hand cannot be followed now: {why}.")),
            }
        }
        let mut machines = self.candidates(Some(&source), freed, Asked::Well);
        let mut plan = self.place_on(&machines, model.card(), wish);
        let mut asked_again = None;
        if plan.is_err() {
            // Better a machine that did not load something a moment ago than none.
            let more = self.candidates(Some(&source), freed, Asked::Also);
            if more.len() > machines.len()
                && let Ok(found) = self.place_on(&more, model.card(), wish)
            {
                let is_new = |machine: &&Candidate| self.trust().rests(machine.placement.addr.id()).is_some();
                let names: Vec<_> = more.iter().filter(is_new).map(|machine| machine.placement.name.as_str()).collect();
                let asked = are(&names);
                asked_again =
                    Some(format!("{asked} asked again, although stages failed there: without, there is no plan."));
                (plan, machines) = (Ok(found), more);
            }
        }
        let mut plan = plan.map_err(|unplaced| match unplaced {
            Unplaced::TooFew { wanted } => ServeError::TooFew {
                wanted,
                usable: machines.iter().map(|machine| machine.placement.name.clone()).collect(),
                left_out: self.left_out(&source),
            },
            Unplaced::Plan(error) => self.no_plan(error, &source),
        })?;
        plan.reasons.extend(hindrance);
        plan.reasons.extend(self.remarks(&machines, Some(&source)));
        plan.reasons.extend(asked_again);
        Ok((plan, machines.into_iter().map(|machine| machine.placement).collect()))
    }

    /// Where a wish goes on these machines.
    fn place_on(&self, machines: &[Candidate], model: &ModelCard, wish: &Wish) -> Result<Plan, Unplaced> {
        let here = self.plan_here(model, machines);
        let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
        let link = |a: usize, b: usize| between(&machines[a], &machines[b]);
        match wish.stages.filter(|wanted| here.is_none() || *wanted == 0) {
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

    /// That there is no plan, with those who take no part, and why.
    fn no_plan(&self, error: PlanError, source: &ModelSource) -> ServeError {
        ServeError::Plan { error, left_out: self.left_out(source) }
    }

    /// The plan that has all of a model on this machine, where its owner wants that and it fits.
    fn plan_here(&self, model: &ModelCard, machines: &[Candidate]) -> Option<Plan> {
        if !self.keeps_prompts_here() {
            return None;
        }
        let here = &machines[HERE];
        let mut plan = plan_best(model, std::slice::from_ref(&here.profile), &|_, _| between(here, here)).ok()?;
        plan.reasons.push("It stays on this machine, as its owner wants of models that fit here.".to_owned());
        Some(plan)
    }

    /// What was seen of machines that counts against what they say, and which of them are not asked.
    fn remarks(&self, machines: &[Candidate], source: Option<&ModelSource>) -> Vec<String> {
        let slower = machines.iter().filter(|machine| machine.pace < NOTABLY_SLOWER).map(|machine| {
            let (name, percent) = (&machine.placement.name, machine.pace * 100.0);
            format!("{name} counts as slower than it says: it was seen at {percent:.0} % of that")
        });
        let unproven = machines.iter().filter(|machine| machine.claims_times > NOTABLY_MORE).map(|machine| {
            let (name, times) = (&machine.placement.name, machine.claims_times);
            format!("{name} says it is {times:.0} times as fast as it counts here, until an answer has shown that")
        });
        let full = machines.iter().filter(|machine| self.trust().room_bytes(machine.placement.addr.id()) < u64::MAX);
        let full = full.map(|machine| {
            let name = &machine.placement.name;
            format!("{name} counts with less memory than it says: it had no room for a part of a model a moment ago")
        });
        let is_used = |peer: PeerId| machines.iter().any(|machine| machine.placement.addr.id() == peer);
        let others = self.sharing_others().into_iter().filter(|(peer, _)| !is_used(*peer));
        let left_out = others.filter_map(|(peer, profile)| {
            let why = self.why_not(peer, Some(&profile), source, Asked::Well)?;
            Some(why.words(&self.peers().name(peer), source))
        });
        slower.chain(unproven).chain(full).chain(left_out).collect()
    }

    /// The other approved machines that take no part in a model, and why, in words.
    fn left_out(&self, source: &ModelSource) -> Vec<String> {
        self.peers().approved().into_iter().filter_map(|peer| self.why_left_out(peer, source)).collect()
    }

    /// Why an approved machine takes no part in a model, in words; nothing where it could.
    pub(super) fn why_left_out(&self, machine: PeerId, source: &ModelSource) -> Option<String> {
        let profile = self.peers().profile_of_present(machine);
        let why = self.why_not(machine, profile.as_ref(), Some(source), Asked::Well)?;
        Some(why.words(&self.peers().name(machine), Some(source)))
    }

    /// Why a machine is not used for a plan; nothing where it may be. `profile` is what it says of itself, while it is here.
    fn why_not(
        &self,
        machine: PeerId,
        profile: Option<&Profile>,
        source: Option<&ModelSource>,
        asked: Asked,
    ) -> Option<WhyNot> {
        let Some(profile) = profile else { return Some(WhyNot::Away(self.peers().why_away(machine))) };
        if !profile.sharing {
            return Some(WhyNot::NotSharing(profile.not_sharing.clone()));
        }
        if !self.may_see_prompts(machine) {
            return Some(WhyNot::NoPrompts);
        }
        if let Some(lack) = source.and_then(|source| self.lacks().of(machine, profile, source)) {
            return Some(WhyNot::Lacks(lack));
        }
        let rests = self.trust().rests(machine)?;
        if asked == Asked::Also && self.trust().may_be_asked_again(machine) {
            return None;
        }
        Some(if self.trust().is_quarantined(machine) { WhyNot::WrongNumbers(rests) } else { WhyNot::Failed(rests) })
    }

    /// What a machine lacks that was to load a part of a model and said that it does not have it.
    pub(crate) fn lacking(&self, machine: PeerId, name: &str, source: &ModelSource) -> Lacking {
        let profile = self.peers().profile_of_present(machine).unwrap_or_default();
        let lack = self.lacks().of(machine, &profile, source);
        Lacking::new(name.to_owned(), source, lack.unwrap_or(Lack::Missing))
    }

    /// What a token of a loaded model would take if every machine were as fast as it says; nothing where one has left.
    pub(crate) fn claimed_costs(&self, ring: &Ring) -> Option<Costs> {
        self.costs(ring, |machine| machine.profile.bytes_per_s / machine.pace)
    }

    /// What the stages of a loaded model are expected to take; nothing where a machine has left.
    pub(crate) fn expected(&self, ring: &Ring) -> Option<Expected> {
        let costs = self.costs(ring, |machine| machine.profile.bytes_per_s)?;
        let (present, own) = (self.peers().present(), self.profile());
        let rows_per_s = |(stage, weight_bytes): (PlacedStage, u64)| {
            let id = stage.placement.addr.id();
            let others = || present.iter().find(|(peer, _)| *peer == id).map(|(_, profile)| profile);
            let profile = if id == self.id() { Some(&own) } else { others() }?;
            Some(reading_rows_per_s(profile, weight_bytes)? * self.trust().pace(id))
        };
        let rows_per_s: Vec<_> = ring.stages().into_iter().zip(ring.stage_weight_bytes()).map(rows_per_s).collect();
        Some(Expected::new(&costs, &rows_per_s))
    }

    /// What a token of a loaded model takes where machines read so many bytes per second.
    fn costs(&self, ring: &Ring, bytes_per_s: impl Fn(&Candidate) -> f64) -> Option<Costs> {
        let machines = self.candidates(None, &[], Asked::Well);
        let node = |machine: &Candidate| NodeProfile { bytes_per_s: bytes_per_s(machine), ..machine.profile.clone() };
        let nodes: Vec<_> = machines.iter().map(node).collect();
        let place = |stage: PlacedStage| {
            let id = stage.placement.addr.id();
            let place = machines.iter().position(|machine| machine.placement.addr.id() == id)?;
            Some((place, stage.layers))
        };
        let stages = ring.stages().into_iter().map(place).collect::<Option<Vec<_>>>()?;
        Some(planning::predict(ring.model().card(), &nodes, &|a, b| between(&machines[a], &machines[b]), &stages))
    }

    /// Whether a machine may be used for a plan now.
    pub(super) fn is_candidate(&self, machine: PeerId) -> bool {
        let shares = || self.sharing_others().iter().any(|(peer, _)| *peer == machine);
        machine == self.id() || (shares() && self.may_see_prompts(machine) && self.trust().rests(machine).is_none())
    }

    /// The other machines that are here and share.
    fn sharing_others(&self) -> Vec<(PeerId, Profile)> {
        let mut others = self.peers().present();
        others.retain(|(_, profile)| profile.sharing);
        others
    }

    /// This machine, then those that are here, share, have the model and have not failed lately, the most memory first; with
    /// what they offer once these models are freed.
    pub(super) fn candidates(&self, source: Option<&ModelSource>, freed: &[Ring], asked: Asked) -> Vec<Candidate> {
        let held: Vec<(PeerId, u64)> = freed.iter().filter(|ring| !ring.is_lost()).flat_map(Ring::holdings).collect();
        let own = self.profile();
        let mut others = self.sharing_others();
        others.retain(|(peer, profile)| self.why_not(*peer, Some(profile), source, asked).is_none());
        others.sort_by_key(|(_, profile)| std::cmp::Reverse(profile.offered_bytes));
        // One that has not been measured yet counts as no faster than the slowest that has.
        let credible = |id: PeerId, profile: &Profile| {
            let claimed = profile.bytes_per_s?;
            let is_own = id == self.id();
            Some(if is_own { claimed } else { self.trust().credible(id, claimed, own.bytes_per_s) })
        };
        let known = others.iter().filter_map(|(peer, profile)| credible(*peer, profile)).chain(own.bytes_per_s);
        let slowest = known.min_by(f64::total_cmp).unwrap_or(ASSUMED_BYTES_PER_S);
        let candidate = |placement: Placement, profile: &Profile, link: Option<(f64, f64)>| {
            let id = placement.addr.id();
            let pace = self.trust().pace(id);
            let freed_bytes = held.iter().filter(|(machine, _)| *machine == id).map(|(_, bytes)| *bytes).sum();
            Candidate {
                profile: NodeProfile {
                    name: placement.name.clone(),
                    memory_bytes: profile.offered_after(freed_bytes).min(self.trust().room_bytes(id)),
                    bytes_per_s: credible(id, profile).unwrap_or(slowest) * pace,
                    form: planning::form(Compute::Auto, profile.gpu),
                },
                claims_times: profile.bytes_per_s.zip(credible(id, profile)).map_or(1.0, |(all, part)| all / part),
                room_bytes: profile.room_bytes().min(self.trust().room_bytes(id)),
                placement,
                link,
                pace,
            }
        };
        let here = Placement { name: self.name().to_owned(), addr: self.addr() };
        let mut machines = vec![candidate(here, &own, None)];
        for (peer, profile) in others {
            let placement = Placement { name: self.peers().name(peer), addr: self.peers().addr(peer) };
            let round_trip = self.endpoint().link(peer).map_or(ASSUMED_ROUND_TRIP_US, |link| link.round_trip_us as f64);
            let rate = self.rate(peer).map_or(ASSUMED_BITS_PER_S, |rate| rate as f64);
            // What owners let their machines send counts on both sides.
            let limits = [own.sends_bits_per_s, profile.sends_bits_per_s].into_iter().flatten();
            let rate = limits.fold(rate, |rate, limit| rate.min(limit as f64));
            machines.push(candidate(placement, &profile, Some((round_trip, rate))));
        }
        machines
    }
}

/// Who is asked to take a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Machines that have not failed of late.
    Well,
    /// Those, too, that have only not loaded what they were to.
    Also,
}

/// Why a machine is not used for a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
enum WhyNot {
    /// It is not here, for this reason if that is known.
    Away(Option<String>),
    /// Its owner does not share it now or not with this machine, for this reason.
    NotSharing(Option<String>),
    /// This owner does not let it see prompts.
    NoPrompts,
    /// It does not have the model.
    Lacks(Lack),
    /// Its stages failed: for how much longer it is left out.
    Failed(Duration),
    /// It computed wrong numbers: the same.
    WrongNumbers(Duration),
}

impl WhyNot {
    fn words(&self, name: &str, source: Option<&ModelSource>) -> String {
        let because = |what: &str, why: &Option<String>| match why {
            Some(why) => format!("{name} {what}: {why}"),
            None => format!("{name} {what}"),
        };
        match self {
            Self::Away(why) => because("is not here", why),
            Self::NotSharing(why) => because("does not share", why),
            Self::NoPrompts => format!("{name} left out: it may not see prompts of this machine"),
            Self::Lacks(lack) => match source {
                Some(source) => Lacking::new(name.to_owned(), source, *lack).to_string(),
                None => format!("{name} does not have the model"),
            },
            Self::Failed(rest) => {
                format!("{name} left out for {} min: its stages failed", rest.as_secs().div_ceil(60))
            }
            Self::WrongNumbers(rest) => {
                format!("{name} left out for {} h: it computed wrong numbers", rest.as_secs().div_ceil(3600))
            }
        }
    }
}

/// Why a wish goes nowhere.
enum Unplaced {
    /// There are fewer machines than were asked for.
    TooFew { wanted: usize },
    /// There is no plan.
    Plan(PlanError),
}

impl From<PlanError> for Unplaced {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// "bob is", "bob and cat are".
fn are(names: &[&str]) -> String {
    match names {
        [] => "nobody is".to_owned(),
        [name] => format!("{name} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
    }
}

/// What is assumed of machines and links until they are measured: an old laptop, and Wi-Fi.
pub(crate) const ASSUMED_BYTES_PER_S: f64 = 10e9;
const ASSUMED_ROUND_TRIP_US: f64 = 4000.0;
const ASSUMED_BITS_PER_S: f64 = 100e6;

/// What is nearer to what a machine says is not worth a remark.
const NOTABLY_SLOWER: f64 = 0.7;
const NOTABLY_MORE: f64 = 1.5;

/// This machine's place among the candidates.
const HERE: usize = 0;

/// A machine that a plan may use.
pub(super) struct Candidate {
    pub(super) placement: Placement,
    pub(super) profile: NodeProfile,
    /// Memory that it gives beside what it holds.
    room_bytes: u64,
    /// Round trip in microseconds and bits per second from here; `None` for this machine itself.
    link: Option<(f64, f64)>,
    /// The part of the speed it claims that it is planned with.
    pace: f64,
    /// How many times as fast it says it is as the most that counts of that.
    claims_times: f64,
}

/// The way between two machines. Those that are not this one are taken to be as far from each other as the farther of them
/// is from here.
pub(super) fn between(a: &Candidate, b: &Candidate) -> LinkProfile {
    let (near, far) = (a.link.unwrap_or((0.0, f64::INFINITY)), b.link.unwrap_or((0.0, f64::INFINITY)));
    LinkProfile { round_trip_us: near.0.max(far.0), bits_per_s: near.1.min(far.1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeOptions;
    use crate::peers::Rights;
    use crate::trust::Failing;
    use hive_protocol::ModelCopy;
    use hive_protocol::{Answer, Question, RingId, StageId, StageSpec};

    /// Two machines that have approved each other and met.
    async fn approved() -> (Node, Node) {
        let node = async |name: &str| {
            let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            Node::start(NodeOptions::new(name.to_owned(), loopback)).await.unwrap()
        };
        let (ann, bob) = (node("ann").await, node("bob").await);
        ann.peers().admit(bob.id(), "bob", Some(&bob.addr())).unwrap();
        bob.peers().admit(ann.id(), "ann", Some(&ann.addr())).unwrap();
        becomes(&ann, || ann.is_candidate(bob.id())).await;
        becomes(&bob, || bob.is_candidate(ann.id())).await;
        (ann, bob)
    }

    async fn becomes(node: &Node, so: impl Fn() -> bool) {
        let mut changes = node.changes();
        let waiting = async {
            while !so() {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it becomes so");
    }

    #[tokio::test]
    async fn prompts_that_stay_here_stay_here_whatever_number_of_machines_is_wished_for() {
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let options =
            |keep_prompts_here| NodeOptions { keep_prompts_here, ..NodeOptions::new("ann".to_owned(), loopback) };
        let model = crate::models::open(None).await.unwrap();
        let wish = |stages| Wish { model: None, stages: Some(stages) };
        for (keeps, places) in [(true, Some(vec![HERE])), (false, None)] {
            let ann = Node::start(options(keeps)).await.unwrap();
            let placed = ann.place(&model, &wish(2), &[]).ok();
            let stages = placed.map(|(plan, _)| plan.stages.iter().map(|stage| stage.machine).collect::<Vec<_>>());
            assert_eq!(stages, places, "there is no second machine");
            assert!(ann.place(&model, &wish(0), &[]).is_err());
            ann.stop().await;
        }
    }

    #[tokio::test]
    async fn a_machine_that_may_not_see_prompts_gets_no_layers_and_the_plan_says_so() {
        let (ann, bob) = approved().await;
        let starter = ModelSource::Named(None, "1".to_owned());
        let holds = |node: &Node| node.machines(&starter).iter().any(|(place, _)| place.addr.id() == bob.id());
        let candidates = || ann.candidates(None, &[], Asked::Also);
        assert!(holds(&ann));
        ann.set_rights(bob.id(), Rights { prompts: false, ..Rights::default() }).unwrap();
        assert!(!holds(&ann) && !ann.is_candidate(bob.id()));
        assert!(candidates().iter().all(|machine| machine.placement.addr.id() != bob.id()));
        let remarks = ann.remarks(&candidates(), None);
        assert_eq!(remarks, ["bob left out: it may not see prompts of this machine"]);
        // The other right is another: bob's own models may have layers here.
        assert!(bob.is_candidate(ann.id()));
        ann.set_rights(bob.id(), Rights::default()).unwrap();
        assert!(holds(&ann) && ann.remarks(&candidates(), None).is_empty());
        ann.stop().await;
        bob.stop().await;
    }

    #[tokio::test]
    async fn whoever_takes_no_part_is_named_with_the_reason_and_what_to_do() {
        let (ann, bob) = approved().await;
        let model = crate::models::open(None).await.unwrap();
        let two = Wish { model: None, stages: Some(2) };
        let place = |node: &Node| node.place(&model, &two, &[]).map(|(plan, _)| plan);
        let refused = |node: &Node| place(node).unwrap_err().to_string();
        assert!(place(&ann).is_ok());
        let says = |copies: Option<Vec<ModelCopy>>| {
            ann.peers().described(bob.id(), Profile { copies, ..bob.profile_for(ann.id()) });
        };
        says(Some(Vec::new()));
        let why = refused(&ann);
        let words = "2 machines were asked for, but only ann can take a part: bob does not have SmolLM2";
        assert!(why.starts_with(words) && why.contains("update HiveMind there"), "{why}");
        let other = ModelCopy { name: Some(models::starter_name().to_owned()), digest: Some("1f".to_owned()) };
        says(Some(vec![other]));
        assert!(refused(&ann).contains("bob's copy of SmolLM2"), "{}", refused(&ann));
        let plan = ann.place(&model, &Wish::default(), &[]).unwrap().0;
        assert!(plan.reasons.iter().any(|reason| reason.contains("differs from yours")), "{:?}", plan.reasons);
        let same = ModelCopy { name: None, digest: Some(model.card().digest.clone()) };
        says(Some(vec![same]));
        assert!(place(&ann).is_ok(), "it has the model by another name");

        // What it did not load may be over; what it computed wrongly is not.
        ann.trust().failed(bob.id(), Failing::Loading);
        let again = place(&ann).unwrap();
        assert!(again.reasons.iter().any(|reason| reason.contains("bob is asked again")), "{:?}", again.reasons);
        ann.trust().failed(bob.id(), Failing::Computing);
        assert!(refused(&ann).contains("bob left out for 1 min: its stages failed"), "{}", refused(&ann));
        ann.trust().caught(bob.id());
        assert!(refused(&ann).contains("bob left out for 24 h: it computed wrong numbers"), "{}", refused(&ann));
        bob.share(false).unwrap();
        becomes(&ann, || !ann.sharing_others().iter().any(|(peer, _)| *peer == bob.id())).await;
        assert!(refused(&ann).contains("bob does not share: "), "{}", refused(&ann));
        bob.stop().await;
        becomes(&ann, || ann.peers().present().is_empty()).await;
        assert!(refused(&ann).contains("bob is not here"), "{}", refused(&ann));
        ann.stop().await;
    }

    #[tokio::test]
    async fn a_machine_that_may_not_use_the_memory_is_told_so_and_loads_nothing() {
        let (ann, bob) = approved().await;
        ann.set_rights(bob.id(), Rights { memory: false, ..Rights::default() }).unwrap();
        becomes(&bob, || !bob.is_candidate(ann.id())).await;
        let spec = StageSpec {
            source: ModelSource::Named(None, String::new()),
            layers: 0..1,
            compute: Compute::Auto,
            threads: 0,
            bytes: 0,
            standby: false,
        };
        let load = || Question::Load(StageId { ring: RingId(1), index: 0 }, spec.clone());
        let asked = bob.ask_other(&ann.addr(), load(), |_| ()).await.unwrap();
        assert!(matches!(&asked, Answer::Declined(why) if why.contains("does not share it")), "{asked:?}");
        // What ann asks is placed on bob as before.
        assert!(ann.is_candidate(bob.id()));
        ann.set_rights(bob.id(), Rights { memory_limit_bytes: Some(5), ..Rights::default() }).unwrap();
        becomes(&bob, || bob.is_candidate(ann.id())).await;
        let large = Question::Load(StageId { ring: RingId(1), index: 0 }, StageSpec { bytes: 6, ..spec.clone() });
        let asked = bob.ask_other(&ann.addr(), large, |_| ()).await.unwrap();
        assert!(matches!(&asked, Answer::Full(_)), "its own limit holds: {asked:?}");
        ann.stop().await;
        bob.stop().await;
    }
}
