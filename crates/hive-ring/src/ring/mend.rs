//! Mending a ring: another machine takes over a stage that is lost, and the other stages stay as they are.
//!
//! Only the lost layers are loaded again. The sessions then find out what the new stage is missing and have the stage
//! before it send that once more (`answer.rs`); the caches of healthy stages are kept. A machine that leaves in peace carries
//! what it has to the new one (`handover.rs`). A ring that nobody uses is mended only where a worker died, or where conversations
//! may go on; else the next question loads the model anew, by a plan for the machines that are there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Weak;
use std::time::{Duration, Instant};

use hive_net::{PeerAddr, PeerId};
use hive_plan::{Candidate, NodeProfile, Replacement, replace};
use tokio::sync::mpsc;

use hive_peers::{Failing, Placement};
use hive_protocol::Question;
use hive_stage::{StageHost, planning};
use hive_types::megabytes;

use super::assembly::{connect, load_stage, spec, unload, watch_prompts};
use super::checkup::{Checked, check};
use super::patience::Finding;
use super::placed::{PlacedStage, has_left};
use super::state::{Cause, Health, State, Trouble};
use super::{Inner, Ring};

/// Machines that go while others are taking over are replaced as well, so many times.
const ATTEMPTS: usize = 4;

/// A stage that dies so often within [`DEATHS_WITHIN`] on one machine moves to another.
const DEATHS: usize = 3;
const DEATHS_WITHIN: Duration = Duration::from_mins(1);

/// Why a stage must be loaded again.
#[derive(Debug, Clone)]
struct Lost {
    why: String,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its worker died. The machine may start another.
    Died,
    /// Its machine left, or does not share any more; it is as good as ever when it is back.
    Left,
    /// Its machine does not answer.
    Broken,
    /// It has stopped making progress, though its machine is there.
    Hung,
    /// It computes what cannot be.
    Wrong,
}

impl How {
    /// What it counts against the machine.
    fn deaths(self) -> usize {
        match self {
            Self::Died => 1,
            Self::Left => 0,
            Self::Hung | Self::Broken | Self::Wrong => DEATHS,
        }
    }

    /// Whether it counts against the machine in other plans, too. One that cannot be reached may be well: each of two
    /// machines with a broken network between them takes the other for gone.
    fn is_held_against(self) -> bool {
        self == Self::Wrong
    }
}

/// What has gone wrong on each machine, so that a stage does not die there for ever.
#[derive(Debug, Default)]
struct Deaths(HashMap<PeerId, Vec<Instant>>);

impl Deaths {
    fn add(&mut self, machine: PeerId, times: usize, now: Instant) {
        self.0.entry(machine).or_default().extend(std::iter::repeat_n(now, times));
    }

    fn too_many(&self, machine: PeerId, now: Instant) -> bool {
        let recent = |deaths: &Vec<Instant>| deaths.iter().filter(|at| now - **at < DEATHS_WITHIN).count();
        self.0.get(&machine).map_or(0, recent) >= DEATHS
    }
}

/// Looks after a ring for as long as it is loaded.
pub(super) async fn run(ring: Weak<Inner>, mut troubles: mpsc::Receiver<Trouble>, host: StageHost) {
    let mut changes = host.membership().peers().changes();
    let mut deaths = Deaths::default();
    loop {
        let trouble = tokio::select! {
            trouble = troubles.recv() => match trouble {
                Some(trouble) => Some(trouble),
                None => return,
            },
            changed = changes.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
        };
        let Some(ring) = ring.upgrade() else { return };
        let State { epoch, health } = ring.state.borrow().clone();
        let stale = trouble.as_ref().is_some_and(|trouble| trouble.epoch < epoch);
        if health == Health::Whole && !stale {
            look_after(&Ring { inner: ring }, trouble, &mut deaths).await;
        }
    }
}

async fn look_after(ring: &Ring, trouble: Option<Trouble>, deaths: &mut Deaths) {
    let accused = trouble.as_ref().and_then(|trouble| ring.accused(trouble));
    let mut lost = ring.lost(trouble.as_ref(), accused).await;
    ring.hold_against(&lost);
    let why = match (lost.values().next(), &trouble) {
        (Some(lost), _) => lost.why.clone(),
        (None, Some(trouble)) => trouble.why.clone(),
        (None, None) => return,
    };
    let only_workers_died = !lost.is_empty() && lost.values().all(|lost| lost.how == How::Died);
    if !ring.is_busy() && !only_workers_died && ring.kept().is_empty() {
        ring.give_up(&why).await;
        return;
    }
    let _mending = ring.inner.mending.lock().await;
    if !ring.goes_from(|health| *health == Health::Whole, |state| state.health = Health::Mending(why.clone())) {
        return;
    }
    tracing::info!("a model is being mended: {why}");
    let mut asked = Vec::new();
    for _ in 0..ATTEMPTS {
        let mended = tokio::select! {
            mended = ring.mend(&lost, &mut asked, deaths) => mended,
            () = ring.given_up() => {
                unload(&ring.inner.host, ring.inner.id, asked.into_iter()).await;
                return;
            }
        };
        match mended {
            Ok(()) => {
                ring.inner.host.placements().notify();
                ring.inner.host.membership().peers().touch();
                return;
            }
            Err(Hitch::NoRoom(cause)) => {
                ring.give_up(&format!("{why}, and {cause}")).await;
                return;
            }
            Err(Hitch::Stage(index, cause)) => {
                tracing::info!("mending goes on: {cause}");
                lost = ring.lost(trouble.as_ref(), accused).await;
                lost.entry(index).or_insert(Lost { why: cause, how: How::Broken });
            }
        }
    }
    ring.give_up(&why).await;
}

/// What kept a ring from being mended.
enum Hitch {
    /// No machine has room for a stage.
    NoRoom(String),
    /// The stage of this index is lost as well.
    Stage(usize, String),
}

impl Ring {
    /// Its answers load the model anew, which frees this one first; where nobody asks, it is freed at once.
    async fn give_up(&self, why: &str) {
        tracing::info!("a model is given up where it is: {why}");
        self.fail(why);
        if !self.is_busy() {
            self.unload_all().await;
        }
    }

    /// The stage that a trouble is about, and its machine now: the one that takes it over has nothing to do with that.
    fn accused(&self, trouble: &Trouble) -> Option<(usize, PeerId)> {
        let index = match trouble.cause {
            Cause::Hung(index) => index,
            Cause::Fault(fault) => fault.stage(self.stages().len())?,
        };
        Some((index, self.stages().get(index)?.placement.addr.id()))
    }

    /// Remembers what counts against machines.
    fn hold_against(&self, lost: &BTreeMap<usize, Lost>) {
        let (host, stages) = (&self.inner.host, self.stages());
        for (index, _) in lost.iter().filter(|(_, lost)| lost.how.is_held_against()) {
            let machine = stages[*index].placement.addr.id();
            if machine != host.membership().id() {
                host.membership().trust().failed(machine, Failing::Computing);
            }
        }
    }

    /// The stages that need another machine. A trouble is a reason to ask each of them.
    async fn lost(&self, trouble: Option<&Trouble>, accused: Option<(usize, PeerId)>) -> BTreeMap<usize, Lost> {
        let host = &self.inner.host;
        let mut lost = BTreeMap::new();
        let (expected, is_cold) = (self.expected(), self.is_cold(self.inner.state.borrow().epoch));
        for (index, stage) in self.stages().iter().enumerate() {
            let (id, name) = (stage.placement.addr.id(), &stage.placement.name);
            let is_accused = accused == Some((index, id));
            let own = id == host.membership().id();
            if !own && has_left(host, stage) {
                lost.insert(index, Lost { why: format!("{name} left"), how: How::Left });
            } else if !own && host.membership().is_leaving(id) {
                lost.insert(index, Lost { why: format!("{name} stopped sharing"), how: How::Left });
            } else if !host.membership().may_see_prompts(id) {
                lost.insert(index, Lost { why: format!("{name} may not see prompts any more"), how: How::Left });
            } else if host.membership().is_over_cap(id) {
                lost.insert(index, Lost { why: format!("{name} gives less memory now"), how: How::Left });
            } else if trouble.is_some_and(|trouble| is_accused && trouble.cause == Cause::Hung(index)) {
                // It was checked for that.
                let why = trouble.map(|trouble| trouble.why.clone()).unwrap_or_default();
                lost.insert(index, Lost { why, how: How::Hung });
            } else if let Some(trouble) = trouble {
                let (why, how) = match check(host, stage, Question::Check(self.inner.stage_id(index))).await {
                    Checked::Pulse(_) if is_accused => (trouble.why.clone(), How::Wrong),
                    Checked::Pulse(pulse) => match expected.judge(index, &pulse, is_cold) {
                        Finding::Hung(_) => ("it has stopped making progress".to_owned(), How::Hung),
                        Finding::Working | Finding::Idle | Finding::HeldUp => continue,
                    },
                    Checked::Gone(why) => (why, How::Died),
                    Checked::Silent => ("it does not answer".to_owned(), How::Broken),
                };
                lost.insert(index, Lost { why: format!("{name}: {why}"), how });
            }
        }
        lost
    }

    /// Has the lost stages loaded elsewhere and joins the ring anew. `asked` collects who held them or was to, over all
    /// attempts.
    async fn mend(
        &self,
        lost: &BTreeMap<usize, Lost>,
        asked: &mut Vec<(usize, PeerAddr)>,
        deaths: &mut Deaths,
    ) -> Result<(), Hitch> {
        let Inner { id, host, plan, options, .. } = &*self.inner;
        let mut stages = self.stages();
        for (&index, Lost { why, how }) in lost {
            let (now, before) = (Instant::now(), stages[index].clone());
            let holder = &before.placement.addr;
            let deadly = if *how == How::Hung && holder.id() == host.membership().id() { How::Died } else { *how };
            deaths.add(holder.id(), deadly.deaths(), now);
            asked.push((index, holder.clone()));
            if let Some(copy) = self.take_standby(index).await {
                tracing::info!("{why}: {} has a copy of layers {:?} and takes over", copy.placement.name, copy.layers);
                stages[index] = copy;
            } else {
                // A worker that hangs here is ended and started again; another machine may be the one that hangs.
                let again = *how == How::Died || (*how == How::Hung && holder.id() == host.membership().id());
                if *how == How::Hung && again {
                    let _ = host.ask(holder, Question::Unload(self.inner.stage_id(index)), |_| ()).await;
                }
                let placement = self.replacement(index, &stages, again, deaths, now).map_err(Hitch::NoRoom)?;
                tracing::info!("{why}: layers {:?} go to {}", plan.stages[index].layers, placement.name);
                let stage_id = self.inner.stage_id(index);
                asked.push((index, placement.addr.clone()));
                let loaded = load_stage(host, stage_id, &placement, spec(&plan.stages[index], options), |_| ()).await;
                stages[index] = loaded.map_err(|error| {
                    deaths.add(placement.addr.id(), DEATHS, now);
                    Hitch::Stage(index, error.to_string())
                })?;
            }
            // Known at once: another attempt must not load it again.
            self.inner.stages()[index] = stages[index].clone();
            if *how == How::Left {
                self.hand_over(index, &before, &stages[index]).await;
            }
        }
        let epoch = self.inner.state.borrow().epoch + 1;
        let prompts = connect(host, *id, epoch, &stages).await;
        let prompts = prompts.map_err(|(index, error)| Hitch::Stage(index, error.to_string()))?;
        watch_prompts(host, &prompts, epoch, &self.inner.troubles);
        *self.inner.prompts.lock().await = prompts;
        self.want_current();
        for (index, holder) in asked.drain(..) {
            if holder.id() != stages[index].placement.addr.id() {
                let (host, question) = (host.clone(), Question::Unload(self.inner.stage_id(index)));
                self.inner.host.membership().spawn(async move { drop(host.ask(&holder, question, |_| ()).await) });
            }
        }
        let is_mending = |health: &Health| matches!(health, Health::Mending(_));
        // Otherwise it has been given up, or has a successor.
        self.goes_from(is_mending, |state| *state = State { epoch, health: Health::Whole });
        Ok(())
    }

    /// Changes how the ring is, if it is as expected: it may have been given up, or have a successor, meanwhile.
    fn goes_from(&self, expected: impl Fn(&Health) -> bool, change: impl FnOnce(&mut State)) -> bool {
        self.inner.state.send_if_modified(|state| {
            let is_so = expected(&state.health);
            if is_so {
                change(state);
            }
            is_so
        })
    }

    /// The machine that takes over a stage.
    fn replacement(
        &self,
        index: usize,
        stages: &[PlacedStage],
        again: bool,
        deaths: &Deaths,
        now: Instant,
    ) -> Result<Placement, String> {
        let planned = &self.inner.plan.stages[index];
        let needed_bytes = planned.bytes();
        let holder = stages[index].placement.addr.id();
        let mut machines = self.inner.host.membership().machines(&self.inner.options.source);
        let may_again = again && self.inner.host.membership().may_see_prompts(holder);
        if may_again && machines.iter().all(|(placement, _)| placement.addr.id() != holder) {
            // A host of this process is asked for itself, not as a machine that shares.
            let placement = stages[index].placement.clone();
            let form = planning::form(self.inner.options.compute, self.inner.host.membership().profile().gpu);
            let profile = NodeProfile { name: placement.name.clone(), memory_bytes: 0, bytes_per_s: 0.0, form };
            machines.push((placement, profile));
        }
        let candidate = |(placement, profile): &(Placement, NodeProfile)| {
            let id = placement.addr.id();
            let again = again && id == holder;
            Candidate {
                // What died there has freed its memory, though the machine may not have said so yet.
                memory_bytes: profile.memory_bytes.saturating_add(if again { needed_bytes } else { 0 }),
                bytes_per_s: profile.bytes_per_s,
                holds_it_now: again,
                holds_another: stages.iter().any(|stage| stage.placement.addr.id() == id),
                failed: deaths.too_many(id, now),
            }
        };
        let candidates: Vec<_> = machines.iter().map(candidate).collect();
        match replace(needed_bytes, &candidates) {
            Replacement::By(chosen) => Ok(machines[chosen].0.clone()),
            Replacement::NoRoom { most_bytes } => Err(format!(
                "no machine has room for its layers: {} MB are needed, at most {} MB are free",
                megabytes(needed_bytes),
                most_bytes / 1_000_000
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wrong_numbers_count_against_a_machine_elsewhere() {
        assert!(How::Wrong.is_held_against());
        for honest in [How::Died, How::Left, How::Hung, How::Broken] {
            assert!(!honest.is_held_against(), "{honest:?}");
        }
    }

    #[test]
    fn three_deaths_within_a_minute_are_too_many() {
        let machine = hive_net::Identity::generate().id();
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        deaths.add(machine, 1, start);
        deaths.add(machine, 1, start + Duration::from_secs(20));
        assert!(!deaths.too_many(machine, start + Duration::from_secs(20)));
        deaths.add(machine, 1, start + Duration::from_secs(40));
        assert!(deaths.too_many(machine, start + Duration::from_secs(40)));
        assert!(!deaths.too_many(machine, start + Duration::from_secs(61)));
    }
}
