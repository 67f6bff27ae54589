//! Failover of a ring: which stages are lost, which machine takes over each, and when the ring is abandoned.
//!
//! Pure. [`Failover::on`] takes an event and the time, and returns actions; whoever drives it carries them out and
//! reports how they finished. Only the lost layers are loaded again: a standby replica takes over if there is one, else
//! the machine that `hive_plan::replace` names. The healthy stages keep their caches, and the answers replay what a new
//! stage is missing. A machine that leaves in good order hands its sessions over. A ring that nobody uses fails over
//! only if nothing but workers died; otherwise the next request loads the model by a plan for the machines there are.
//!
//! - Every task has a ticket and finishes once, with an outcome, unless it is cancelled; time-outs are the driver's.
//!   What finishes under a ticket that nobody waits for changes nothing; a stage that was loaded in vain is unloaded.
//! - The epoch grows by one with each successful failover. A fault report of an earlier epoch is stale.
//! - Whoever was asked to load a stage, and does not hold it in the end, is told to unload it.

mod deaths;
mod loss;
mod takeover;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

pub(crate) use loss::{Check, Departure, FaultOrigin, FaultReport, Holder, LossKind, LossReason, StageLoss};
pub(crate) use takeover::{NoRoom, Offer};
pub(crate) use vocabulary::{Abandonment, Action, Cause, Event, Outcome, Task, Ticket};

use deaths::Deaths;
use takeover::Takeover;

/// Attempts before a ring is abandoned. Machines that go while others take over are replaced as well; a fleet in which
/// this happens in every attempt is not one to stay in.
const ATTEMPTS: usize = 4;

/// A stage of the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<M> {
    /// Who holds it.
    pub(crate) machine: M,
    /// Bytes that it needs.
    pub(crate) bytes: u64,
}

/// The failover of one ring, for as long as it is loaded.
#[derive(Debug)]
pub(super) struct Failover<M> {
    own: M,
    stages: Vec<Stage<M>>,
    epoch: u32,
    deaths: Deaths<M>,
    run: Option<Run<M>>,
    /// Abandoned or withdrawn.
    is_over: bool,
    /// Came during a run; the first of the latest epoch.
    next_report: Option<FaultReport>,
    /// The fleet changed during a run.
    has_fleet_changed: bool,
    last_ticket: u64,
    actions: Vec<Action<M>>,
}

impl<M: Copy + Eq + Ord + Hash + Debug> Failover<M> {
    /// For a ring that has just been joined, in epoch 0; `own` is the machine that coordinates it.
    pub(super) fn new(own: M, stages: Vec<Stage<M>>) -> Self {
        Self {
            own,
            stages,
            epoch: 0,
            deaths: Deaths::new(),
            run: None,
            is_over: false,
            next_report: None,
            has_fleet_changed: false,
            last_ticket: 0,
            actions: Vec::new(),
        }
    }

    /// Whether it was abandoned or withdrawn: no event but the end of a task matters any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes an event and returns what is to be done about it.
    pub(super) fn on(&mut self, event: Event<M>, now: Instant) -> Vec<Action<M>> {
        match event {
            Event::Finished(ticket, outcome) => self.finished(ticket, outcome, now),
            Event::Reported(report) if !self.is_over && report.epoch >= self.epoch => {
                // One is enough: each leads to another epoch, in which the others are stale.
                if self.next_report.as_ref().is_none_or(|other| other.epoch < report.epoch) {
                    self.next_report = Some(report);
                }
                self.observe_if_idle();
            }
            Event::FleetChanged if !self.is_over => {
                self.has_fleet_changed = true;
                self.observe_if_idle();
            }
            Event::Withdrawn if !self.is_over => self.withdraw(),
            Event::Reported(_) | Event::FleetChanged | Event::Withdrawn => {}
        }
        std::mem::take(&mut self.actions)
    }

    /// Begins with the next suspicion, unless one is being dealt with.
    fn observe_if_idle(&mut self) {
        if self.run.is_some() {
            return;
        }
        let report = self.next_report.take().filter(|report| report.epoch >= self.epoch);
        if report.is_none() && !std::mem::take(&mut self.has_fleet_changed) {
            return;
        }
        let accused = report.as_ref().and_then(|report| report.origin.stage());
        let run = Run {
            accused: accused.filter(|stage| *stage < self.stages.len()).map(|stage| self.holder(stage)),
            report,
            attempt: 0,
            failed: None,
            losses: BTreeMap::new(),
            asked: BTreeSet::new(),
            waiting: BTreeMap::new(),
        };
        self.wait(run, Awaited::Observation, Task::Observe);
    }

    fn finished(&mut self, ticket: Ticket, outcome: Outcome<M>, now: Instant) {
        let Some((mut run, awaited)) = self.take_awaited(ticket) else { return self.finished_late(&outcome) };
        match (awaited, outcome) {
            (Awaited::Observation, Outcome::Observed(departures)) => self.observed(run, &departures, now),
            (Awaited::Check(holder), Outcome::Checked(check)) => {
                let loss = StageLoss::checked(holder, check, run.accusation(holder));
                run.losses.extend(loss.map(|loss| (holder.stage, loss)));
                self.decide_once_checked(run, now);
            }
            (Awaited::Use(cause), Outcome::Use(true)) => self.begin(run, cause, now),
            (Awaited::Use(cause), Outcome::Use(false)) => self.abandon(&run, Abandonment::Unused(cause)),
            (Awaited::Standby(takeover), Outcome::StandbyTaken(Some(by)))
            | (Awaited::Load(takeover), Outcome::Loaded(by)) => self.placed(run, takeover, by, now),
            (Awaited::Standby(takeover), Outcome::StandbyTaken(None)) if takeover.must_end_worker() => {
                self.wait(run, Awaited::WorkerEnd(takeover), Task::EndWorker(takeover.from));
            }
            (Awaited::Standby(takeover), Outcome::StandbyTaken(None))
            | (Awaited::WorkerEnd(takeover), Outcome::WorkerEnded) => {
                self.wait(run, Awaited::Offers(takeover), Task::ListOffers(takeover.from.stage));
            }
            (Awaited::Offers(takeover), Outcome::Offered { offers, holder_may_see_prompts }) => {
                self.load(run, takeover, offers, holder_may_see_prompts);
            }
            (Awaited::Load(takeover), Outcome::LoadFailed(by, why)) => {
                self.deaths.add(by.machine, deaths::TOO_MANY, takeover.since);
                self.retry(run, takeover.from.stage, why);
            }
            (Awaited::Drain, Outcome::HandedOver) => self.take_over_next(run, now),
            (Awaited::Join, Outcome::Joined) => self.joined(&run),
            (Awaited::Join, Outcome::NotJoined(stage, why)) => self.retry(run, stage, why),
            // No driver answers anything but what it was asked.
            (awaited, _) => {
                run.waiting.insert(ticket, awaited);
                self.run = Some(run);
            }
        }
    }

    fn take_awaited(&mut self, ticket: Ticket) -> Option<(Run<M>, Awaited<M>)> {
        let awaited = self.run.as_mut()?.waiting.remove(&ticket)?;
        Some((self.run.take()?, awaited))
    }

    /// Nobody waits for this any more. A machine that was asked during this run is told at its end.
    fn finished_late(&mut self, outcome: &Outcome<M>) {
        let (Outcome::Loaded(holder) | Outcome::StandbyTaken(Some(holder))) = outcome else { return };
        let is_asked = self.run.as_ref().is_some_and(|run| run.asked.contains(holder));
        if self.is_over || (!is_asked && !self.holds(*holder)) {
            self.actions.push(Action::Unload(*holder));
        }
    }

    /// Sorts the stages by what is known of their machines. A report is a reason to check the others.
    fn observed(&mut self, mut run: Run<M>, departures: &[Option<Departure>], now: Instant) {
        for (stage, departure) in (0..self.stages.len()).zip(departures) {
            let holder = self.holder(stage);
            if let Some(loss) = run.known_loss(holder, holder.machine == self.own, *departure) {
                run.losses.insert(stage, loss);
            } else if run.report.is_some() {
                self.start(&mut run, Awaited::Check(holder), Task::Check(holder));
            }
        }
        self.decide_once_checked(run, now);
    }

    fn decide_once_checked(&mut self, mut run: Run<M>, now: Instant) {
        if !run.waiting.is_empty() {
            self.run = Some(run);
        } else if run.attempt == 0 {
            self.decide(run, now);
        } else {
            if let Some(failed) = run.failed.take() {
                run.losses.entry(failed.holder.stage).or_insert(failed);
            }
            self.take_over_next(run, now);
        }
    }

    /// Whether to fail over, now that every stage has been observed for the first time.
    fn decide(&mut self, run: Run<M>, now: Instant) {
        let liars = run.losses.values().filter(|loss| loss.kind.is_held_against() && loss.holder.machine != self.own);
        self.actions.extend(liars.map(|loss| Action::HoldAgainst(loss.holder.machine)));
        let cause = match (run.losses.values().next(), &run.report) {
            (Some(loss), _) => Cause::Loss(loss.clone()),
            (None, Some(report)) => Cause::Report(report.why.clone()),
            (None, None) => return self.observe_if_idle(),
        };
        let only_workers_died =
            !run.losses.is_empty() && run.losses.values().all(|loss| loss.kind == LossKind::WorkerDied);
        if only_workers_died {
            self.begin(run, cause, now);
        } else {
            self.wait(run, Awaited::Use(cause), Task::CheckUse);
        }
    }

    fn begin(&mut self, mut run: Run<M>, cause: Cause<M>, now: Instant) {
        self.actions.push(Action::Begin(cause));
        run.attempt = 1;
        self.take_over_next(run, now);
    }

    /// Goes to the next lost stage, in order, or joins the ring when there is none.
    fn take_over_next(&mut self, mut run: Run<M>, now: Instant) {
        let Some((stage, loss)) = run.losses.pop_first() else {
            let epoch = self.epoch + 1;
            return self.wait(run, Awaited::Join, Task::Join(epoch));
        };
        let from = self.holder(stage);
        let takeover = Takeover { from, kind: loss.kind, is_own: from.machine == self.own, since: now };
        self.deaths.add(from.machine, takeover.deaths(), now);
        run.asked.insert(from);
        self.wait(run, Awaited::Standby(takeover), Task::TakeStandby(stage));
    }

    fn load(&mut self, mut run: Run<M>, takeover: Takeover<M>, offers: Vec<Offer<M>>, holder_may_see_prompts: bool) {
        let stage = takeover.from.stage;
        let holds_one = |machine| self.stages.iter().any(|stage| stage.machine == machine);
        let has_failed = |machine| self.deaths.are_too_many(machine, takeover.since);
        let needed_bytes = self.stages[stage].bytes;
        match takeover.choose(needed_bytes, offers, holder_may_see_prompts, holds_one, has_failed) {
            Ok(machine) => {
                let holder = Holder { stage, machine };
                run.asked.insert(holder);
                self.wait(run, Awaited::Load(takeover), Task::Load(holder));
            }
            Err(no_room) => self.abandon(&run, Abandonment::NoRoom(no_room)),
        }
    }

    /// A stage has its new machine. It is known at once: another attempt does not load it again.
    fn placed(&mut self, run: Run<M>, takeover: Takeover<M>, by: Holder<M>, now: Instant) {
        self.stages[by.stage].machine = by.machine;
        self.actions.push(Action::Place(by));
        if takeover.kind == LossKind::MachineLeft {
            self.wait(run, Awaited::Drain, Task::Drain { from: takeover.from, to: by.machine });
        } else {
            self.take_over_next(run, now);
        }
    }

    /// Observes all stages again after one was lost on the way, unless that has happened too often.
    fn retry(&mut self, mut run: Run<M>, stage: usize, why: String) {
        if run.attempt == ATTEMPTS {
            return self.abandon(&run, Abandonment::AttemptsExhausted);
        }
        run.attempt += 1;
        run.losses.clear();
        run.failed = Some(StageLoss::on_the_way(self.holder(stage), why));
        self.wait(run, Awaited::Observation, Task::Observe);
    }

    fn joined(&mut self, run: &Run<M>) {
        self.epoch += 1;
        self.actions.push(Action::Whole(self.epoch));
        self.unload_former_holders(run);
        self.observe_if_idle();
    }

    fn abandon(&mut self, run: &Run<M>, reason: Abandonment<M>) {
        self.is_over = true;
        self.actions.push(Action::Abandon(reason));
        self.unload_former_holders(run);
    }

    fn unload_former_holders(&mut self, run: &Run<M>) {
        for holder in &run.asked {
            if !self.holds(*holder) {
                self.actions.push(Action::Unload(*holder));
            }
        }
    }

    /// Stops where it is. Whoever withdrew the ring unloads what it holds, but knows nothing of what was on its way.
    fn withdraw(&mut self) {
        self.is_over = true;
        let Some(run) = self.run.take() else { return };
        for (ticket, awaited) in &run.waiting {
            // A standby replica is nobody's while it is being taken: it is unloaded when its machine is known.
            if !matches!(awaited, Awaited::Standby(_)) {
                self.actions.push(Action::Cancel(*ticket));
            }
        }
        self.actions.extend(run.asked.iter().map(|holder| Action::Unload(*holder)));
    }

    fn wait(&mut self, mut run: Run<M>, awaited: Awaited<M>, task: Task<M>) {
        self.start(&mut run, awaited, task);
        self.run = Some(run);
    }

    fn start(&mut self, run: &mut Run<M>, awaited: Awaited<M>, task: Task<M>) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        run.waiting.insert(ticket, awaited);
        self.actions.push(Action::Start(ticket, task));
    }

    fn holder(&self, stage: usize) -> Holder<M> {
        Holder { stage, machine: self.stages[stage].machine }
    }

    fn holds(&self, holder: Holder<M>) -> bool {
        self.stages[holder.stage].machine == holder.machine
    }
}

/// What a ticket waits for.
#[derive(Debug)]
enum Awaited<M> {
    Observation,
    Check(Holder<M>),
    Use(Cause<M>),
    Standby(Takeover<M>),
    WorkerEnd(Takeover<M>),
    Offers(Takeover<M>),
    Load(Takeover<M>),
    Drain,
    Join,
}

/// One failover, from the first suspicion to the end.
#[derive(Debug)]
struct Run<M> {
    report: Option<FaultReport>,
    /// The stage that the report is about, and its machine at the time: a machine that takes it over is not accused.
    accused: Option<Holder<M>>,
    /// 0 until it is certain that the ring fails over.
    attempt: usize,
    /// What ended the latest attempt.
    failed: Option<StageLoss<M>>,
    losses: BTreeMap<usize, StageLoss<M>>,
    /// Who held a lost stage or was asked to load one, over all attempts.
    asked: BTreeSet<Holder<M>>,
    waiting: BTreeMap<Ticket, Awaited<M>>,
}

impl<M: Copy + Eq> Run<M> {
    /// The report, if it accuses this machine of this stage.
    fn accusation(&self, holder: Holder<M>) -> Option<&FaultReport> {
        self.report.as_ref().filter(|_| self.accused == Some(holder))
    }

    /// Whether a stage is lost for what is known without a check.
    fn known_loss(&self, holder: Holder<M>, is_own: bool, departure: Option<Departure>) -> Option<StageLoss<M>> {
        match departure {
            // This machine does not leave itself, and may hold its own stages whether it shares or not.
            Some(Departure::Left | Departure::StoppedSharing) if is_own => None,
            departure => departure.map(|departure| StageLoss::departed(holder, departure)),
        }
        .or_else(|| {
            let report = self.accusation(holder)?;
            matches!(report.origin, FaultOrigin::Progress(_)).then(|| StageLoss::hung(holder, report))
        })
    }
}
