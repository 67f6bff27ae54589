//! Failover of a ring: which stages are lost, which machine takes over each, and when the ring is abandoned.
//!
//! Pure. [`Failover::on`] takes an event and the time, and returns actions. A driver carries them out and reports their
//! outcomes as events. Only lost stages are replaced: by a standby replica if there is one, otherwise by loading them
//! on the machine that `hive_plan::replace` names. Healthy stages keep their caches, and answers replay whatever a new
//! stage is missing. A machine that leaves cleanly hands its sessions over. A ring that nobody uses fails over only if
//! its losses are dead workers; otherwise it is abandoned, and the next request loads the model by a new plan.
//!
//! - Every task has a ticket and finishes once, with an outcome, unless it is cancelled. The driver handles time-outs.
//! - An outcome whose ticket is no longer awaited changes nothing; a stage that was loaded for it is unloaded.
//! - The epoch grows by one with each successful failover. A fault report from an earlier epoch is stale.
//! - A machine that was asked to load a stage, but does not hold it in the end, is told to unload it.

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

/// Attempts before a ring is abandoned. Machines lost during a failover are replaced as well, but a fleet that loses
/// one in every attempt is too unstable for this ring.
const ATTEMPTS: usize = 4;

/// A stage of the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<M> {
    /// The machine that holds it.
    pub(crate) machine: M,
    /// Memory that it needs, in bytes.
    pub(crate) bytes: u64,
}

/// The failover logic of one ring, for as long as the ring is loaded.
#[derive(Debug)]
pub(super) struct Failover<M> {
    own: M,
    stages: Vec<Stage<M>>,
    epoch: u32,
    deaths: Deaths<M>,
    run: Option<Run<M>>,
    /// The ring was abandoned or withdrawn.
    is_over: bool,
    /// A report that arrived during a run: the first of the latest epoch.
    next_report: Option<FaultReport>,
    /// The fleet changed during a run.
    has_fleet_changed: bool,
    last_ticket: u64,
    actions: Vec<Action<M>>,
}

impl<M: Copy + Eq + Ord + Hash + Debug> Failover<M> {
    /// Creates the state of a ring that has just been joined, in epoch 0; `own` is the machine that coordinates it.
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

    /// Whether the ring was abandoned or withdrawn. From then on, only outcomes of tasks matter.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Handles an event and returns the actions to carry out.
    pub(super) fn on(&mut self, event: Event<M>, now: Instant) -> Vec<Action<M>> {
        match event {
            Event::Finished(ticket, outcome) => self.finished(ticket, outcome, now),
            Event::Reported(report) if !self.is_over && report.epoch >= self.epoch => {
                // One report is enough: handling it leads to a new epoch, in which the others are stale.
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

    /// Starts a run if there is a report or a change of the fleet, unless one is in progress.
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
            (Awaited::Drain, Outcome::Drained) => self.take_over_next(run, now),
            (Awaited::Join, Outcome::Joined) => self.joined(&run),
            (Awaited::Join, Outcome::NotJoined(stage, why)) => self.retry(run, stage, why),
            // The driver replies to a task only with its own kind of outcome.
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

    /// Handles an outcome that is no longer awaited. A loaded stage is unloaded, unless the ring uses it by now. For a
    /// machine that the current run asked, that is decided at the end of the run.
    fn finished_late(&mut self, outcome: &Outcome<M>) {
        let (Outcome::Loaded(holder) | Outcome::StandbyTaken(Some(holder))) = outcome else { return };
        let is_asked = self.run.as_ref().is_some_and(|run| run.asked.contains(holder));
        if self.is_over || (!is_asked && !self.holds(*holder)) {
            self.actions.push(Action::Unload(*holder));
        }
    }

    /// Finds the lost stages from the state of their machines. If there is a report, the other stages are checked.
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

    /// Decides whether to fail over, after all stages have been observed for the first time.
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

    /// Replaces the next lost stage, in order, or joins the ring if none is left.
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

    /// Records the stage's new machine at once, so that another attempt does not load the stage again.
    fn placed(&mut self, run: Run<M>, takeover: Takeover<M>, by: Holder<M>, now: Instant) {
        self.stages[by.stage].machine = by.machine;
        self.actions.push(Action::Place(by));
        if takeover.kind == LossKind::MachineLeft {
            self.wait(run, Awaited::Drain, Task::Drain { from: takeover.from, to: by.machine });
        } else {
            self.take_over_next(run, now);
        }
    }

    /// Observes all stages again after a stage was lost during the failover, unless the attempts are exhausted.
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

    /// Ends any run. Withdrawing a ring unloads the stages it holds, but not those still loading.
    fn withdraw(&mut self) {
        self.is_over = true;
        let Some(run) = self.run.take() else { return };
        for (ticket, awaited) in &run.waiting {
            // Not cancelled: only once the standby replica is taken is its machine known, so that it can be unloaded.
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

/// The purpose of a ticket.
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

/// One failover, from the first suspicion to its end.
#[derive(Debug)]
struct Run<M> {
    report: Option<FaultReport>,
    /// The stage that the report accuses, with the machine that held it then. If another machine takes over the stage,
    /// the accusation does not carry over.
    accused: Option<Holder<M>>,
    /// 0 until the ring is certain to fail over.
    attempt: usize,
    /// The loss that ended the previous attempt.
    failed: Option<StageLoss<M>>,
    losses: BTreeMap<usize, StageLoss<M>>,
    /// Machines that held a lost stage or were asked to load one, over all attempts.
    asked: BTreeSet<Holder<M>>,
    waiting: BTreeMap<Ticket, Awaited<M>>,
}

impl<M: Copy + Eq> Run<M> {
    /// The report, if it accuses this holder.
    fn accusation(&self, holder: Holder<M>) -> Option<&FaultReport> {
        self.report.as_ref().filter(|_| self.accused == Some(holder))
    }

    /// The loss of a stage, if it is known without a check.
    fn known_loss(&self, holder: Holder<M>, is_own: bool, departure: Option<Departure>) -> Option<StageLoss<M>> {
        match departure {
            // This machine does not leave its own ring, and may hold its own stages whether or not it shares.
            Some(Departure::Left | Departure::StoppedSharing) if is_own => None,
            departure => departure.map(|departure| StageLoss::departed(holder, departure)),
        }
        .or_else(|| {
            let report = self.accusation(holder)?;
            matches!(report.origin, FaultOrigin::Progress(_)).then(|| StageLoss::hung(holder, report))
        })
    }
}
