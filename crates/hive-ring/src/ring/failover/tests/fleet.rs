//! A fleet in memory that drives a failover.
//!
//! It knows the true state of every machine and finishes tasks accordingly; `rules.rs` checks every action.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::*;
use super::rules::Seen;

/// Machines are numbered; this one coordinates the ring.
pub(super) const OWN: u8 = 0;

/// Bytes that every stage needs.
pub(super) const STAGE_BYTES: u64 = 10;

/// How a machine reacts when it is asked to load a stage for which it has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loading {
    Loads,
    Refuses,
    /// It loads, but its reply comes after the time-out, if ever.
    LoadsTooLate,
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) memory_bytes: u64,
    pub(super) bytes_per_s: f64,
    pub(super) is_reachable: bool,
    pub(super) departure: Option<Departure>,
    pub(super) is_offered: bool,
    pub(super) loading: Loading,
    pub(super) joins: bool,
}

/// The state of a stage on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    Well,
    Dead,
    Hung,
    /// It computes nonsense without noticing.
    Wrong,
}

pub(super) struct Fleet {
    pub(super) machines: Vec<Machine>,
    /// Every stage that is loaded somewhere, whoever wants it.
    pub(super) loaded: BTreeMap<Holder<u8>, Worker>,
    pub(super) standbys: BTreeMap<usize, u8>,
    /// The holders of the stages, as the driver was told.
    pub(super) ring: Vec<u8>,
    pub(super) is_used: bool,
    pub(super) failover: Failover<u8>,
    pub(super) tasks: BTreeMap<Ticket, Task<u8>>,
    /// Standby replicas that are being taken.
    taking: BTreeMap<Ticket, Holder<u8>>,
    /// Replies that may arrive after nobody waits for them.
    pub(super) late: Vec<(Ticket, Holder<u8>)>,
    /// Loads that were cancelled, and may still finish.
    pub(super) cancelled: Vec<(Ticket, Holder<u8>)>,
    pub(super) now: Instant,
    pub(super) epoch: u32,
    pub(super) is_over: bool,
    /// Every action so far, for tests of a single story.
    pub(super) log: Vec<Action<u8>>,
    pub(super) deaths: Vec<(u8, Instant)>,
    pub(super) seen: Seen,
}

impl Fleet {
    /// Stage `i` is on machine `ring[i]`; every machine has room for `room` stages.
    pub(super) fn new(machines: u8, ring: &[u8], room: u64) -> Self {
        let machine = |number: u8| Machine {
            memory_bytes: STAGE_BYTES * room,
            bytes_per_s: 100.0 - f64::from(number),
            is_reachable: true,
            departure: None,
            is_offered: true,
            loading: Loading::Loads,
            joins: true,
        };
        let holders = ring.iter().enumerate().map(|(stage, machine)| Holder { stage, machine: *machine });
        Self {
            machines: (0..machines).map(machine).collect(),
            loaded: holders.map(|holder| (holder, Worker::Well)).collect(),
            standbys: BTreeMap::new(),
            ring: ring.to_vec(),
            is_used: true,
            failover: Failover::new(
                OWN,
                ring.iter().map(|machine| Stage { machine: *machine, bytes: STAGE_BYTES }).collect(),
            ),
            tasks: BTreeMap::new(),
            taking: BTreeMap::new(),
            late: Vec::new(),
            cancelled: Vec::new(),
            now: Instant::now(),
            epoch: 0,
            is_over: false,
            log: Vec::new(),
            deaths: Vec::new(),
            seen: Seen::default(),
        }
    }

    pub(super) fn holder(&self, stage: usize) -> Holder<u8> {
        Holder { stage, machine: self.ring[stage] }
    }

    pub(super) fn set_worker(&mut self, stage: usize, worker: Worker) {
        if let Some(loaded) = self.loaded.get_mut(&Holder { stage, machine: self.ring[stage] }) {
            *loaded = worker;
        }
    }

    /// The machine quits: it forgets its stages.
    pub(super) fn quit(&mut self, machine: u8) {
        self.loaded.retain(|holder, _| holder.machine != machine);
        self.machines[usize::from(machine)].departure = Some(Departure::Left);
    }

    pub(super) fn add_standby(&mut self, stage: usize, machine: u8) {
        self.loaded.insert(Holder { stage, machine }, Worker::Well);
        self.standbys.insert(stage, machine);
    }

    pub(super) fn report(&mut self, origin: FaultOrigin) {
        self.report_in(self.epoch, origin);
    }

    pub(super) fn report_in(&mut self, epoch: u32, origin: FaultOrigin) {
        if epoch >= self.epoch && !self.is_over {
            self.seen.accused.extend(origin.stage().map(|stage| (epoch, stage)));
        }
        let is_stale = epoch < self.epoch;
        let actions = self.on(Event::Reported(FaultReport { epoch, origin, why: "it was reported".to_owned() }));
        assert!(!is_stale || actions.is_empty(), "a stale report led to {actions:?}");
    }

    pub(super) fn fleet_changed(&mut self) {
        self.on(Event::FleetChanged);
    }

    /// Someone else abandons the ring, and unloads its stages once the failover has stopped.
    pub(super) fn withdraw(&mut self) {
        self.is_over = true;
        self.on(Event::Withdrawn);
        self.unload_ring();
    }

    /// Reports and finishes tasks until nothing is under way.
    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            let Some(ticket) = self.tasks.keys().next().copied() else {
                assert!(self.failover.run.is_none(), "it waits for nothing: {:?}", self.failover.run);
                return;
            };
            self.finish(ticket);
        }
        panic!("it does not come to an end: {:?}", self.failover.run);
    }

    /// Finishes a task by the true state of the fleet.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        let Some(task) = self.tasks.remove(&ticket) else { return };
        let outcome = self.outcome(ticket, task);
        self.witness(task, &outcome);
        self.on(Event::Finished(ticket, outcome));
    }

    /// A reply arrives when nobody waits for it, or a second time.
    pub(super) fn reply_late(&mut self, index: usize) {
        let (ticket, holder) = self.late.swap_remove(index);
        let actions = self.on(Event::Finished(ticket, Outcome::Loaded(holder)));
        assert!(actions.iter().all(|action| *action == Action::Unload(holder)), "too late for {actions:?}");
    }

    /// A machine loads a stage although that was cancelled.
    pub(super) fn load_late(&mut self, index: usize) {
        let (ticket, holder) = self.cancelled.swap_remove(index);
        self.loaded.insert(holder, Worker::Well);
        let actions = self.on(Event::Finished(ticket, Outcome::Loaded(holder)));
        assert_eq!(actions, [Action::Unload(holder)]);
    }

    pub(super) fn loads(&self) -> Vec<Holder<u8>> {
        let load = |action: &Action<u8>| match action {
            Action::Start(_, Task::Load(holder)) => Some(*holder),
            _ => None,
        };
        self.log.iter().filter_map(load).collect()
    }

    pub(super) fn did(&self, wanted: impl Fn(&Action<u8>) -> bool) -> bool {
        self.log.iter().any(wanted)
    }

    /// The ticket of a task under way that `wanted` accepts.
    pub(super) fn ticket(&self, wanted: impl Fn(&Task<u8>) -> bool) -> Option<Ticket> {
        self.tasks.iter().find(|(_, task)| wanted(task)).map(|(ticket, _)| *ticket)
    }

    /// Finishes tasks until one is under way that `wanted` accepts.
    pub(super) fn settle_until(&mut self, wanted: impl Fn(&Task<u8>) -> bool) -> Ticket {
        loop {
            if let Some(ticket) = self.ticket(&wanted) {
                return ticket;
            }
            let next = *self.tasks.keys().next().expect("it comes to that task");
            self.finish(next);
        }
    }

    /// Stages that are loaded although nobody wants them.
    pub(super) fn leaked(&self) -> Vec<Holder<u8>> {
        let is_wanted = |holder: &Holder<u8>| {
            let (ring, standby) = (self.ring[holder.stage], self.standbys.get(&holder.stage));
            !self.is_over && (ring == holder.machine || standby == Some(&holder.machine))
        };
        self.loaded.keys().filter(|holder| !is_wanted(holder)).copied().collect()
    }

    /// Stages that do not compute where the ring has them, and what would reveal it.
    pub(super) fn broken(&self) -> Vec<FaultOrigin> {
        let broken = |stage: usize| {
            let holder = self.holder(stage);
            let Machine { departure, is_reachable, .. } = self.machines[usize::from(holder.machine)];
            let is_departed = departure.is_some_and(|departure| counts(holder.machine, departure));
            match self.loaded.get(&holder) {
                _ if is_departed || !is_reachable => Some(FaultOrigin::Link),
                Some(Worker::Well) => None,
                Some(Worker::Wrong) => Some(FaultOrigin::Output(stage)),
                Some(Worker::Dead | Worker::Hung) | None => Some(FaultOrigin::Link),
            }
        };
        (0..self.ring.len()).filter_map(broken).collect()
    }

    fn on(&mut self, event: Event<u8>) -> Vec<Action<u8>> {
        let actions = self.failover.on(event, self.now);
        for action in &actions {
            self.check(action);
            self.carry_out(action);
        }
        self.log.extend(actions.iter().cloned());
        actions
    }

    fn outcome(&mut self, ticket: Ticket, task: Task<u8>) -> Outcome<u8> {
        match task {
            Task::Observe => {
                let departure = |machine: &u8| self.machines[usize::from(*machine)].departure;
                Outcome::Observed(self.ring.iter().map(departure).collect())
            }
            Task::Check(holder) => Outcome::Checked(self.pulse(holder)),
            Task::CheckUse => Outcome::Use(self.is_used),
            Task::TakeStandby(_) => Outcome::StandbyTaken(self.take_standby(ticket)),
            Task::EndWorker(holder) => {
                self.loaded.remove(&holder);
                Outcome::WorkerEnded
            }
            Task::ListOffers(stage) => Outcome::Offered {
                offers: self.offers(),
                holder_may_see_prompts: self.may_see_prompts(self.ring[stage]),
            },
            Task::Load(holder) => self.load(ticket, holder),
            Task::Drain { .. } => Outcome::Drained,
            Task::Join(_) => {
                let fails = |stage: &usize| {
                    let holder = self.holder(*stage);
                    let machine = &self.machines[usize::from(holder.machine)];
                    let is_alive = !matches!(self.loaded.get(&holder), None | Some(Worker::Dead));
                    !(machine.is_reachable && machine.joins && is_alive)
                };
                match (0..self.ring.len()).find(fails) {
                    Some(stage) => Outcome::NotJoined(stage, "it does not answer".to_owned()),
                    None => Outcome::Joined,
                }
            }
        }
    }

    fn pulse(&self, holder: Holder<u8>) -> Check {
        match self.loaded.get(&holder) {
            _ if !self.machines[usize::from(holder.machine)].is_reachable => Check::Silent,
            None => Check::Gone("it has no such stage".to_owned()),
            Some(Worker::Dead) => Check::Gone("its worker died".to_owned()),
            Some(Worker::Hung) => Check::Hung,
            Some(Worker::Well | Worker::Wrong) => Check::Working,
        }
    }

    fn take_standby(&mut self, ticket: Ticket) -> Option<Holder<u8>> {
        let holder = self.taking.remove(&ticket)?;
        if self.machines[usize::from(holder.machine)].departure.is_none() && self.pulse(holder) == Check::Working {
            return Some(holder);
        }
        self.loaded.remove(&holder);
        None
    }

    pub(super) fn may_see_prompts(&self, machine: u8) -> bool {
        machine == OWN || self.machines[usize::from(machine)].departure != Some(Departure::MayNotSeePrompts)
    }

    fn free_bytes(&self, machine: u8) -> u64 {
        let takes = |(holder, worker): &(&Holder<u8>, &Worker)| holder.machine == machine && **worker != Worker::Dead;
        let taken = self.loaded.iter().filter(takes).count() as u64 * STAGE_BYTES;
        self.machines[usize::from(machine)].memory_bytes.saturating_sub(taken)
    }

    fn offers(&self) -> Vec<Offer<u8>> {
        let is_offered = |machine: &Machine| machine.is_offered && machine.is_reachable && machine.departure.is_none();
        let offered = (0..).zip(&self.machines).filter(|(_, machine)| is_offered(machine));
        let offer = |(number, machine): (u8, &Machine)| Offer {
            machine: number,
            memory_bytes: self.free_bytes(number),
            bytes_per_s: machine.bytes_per_s,
            has_copy: true,
        };
        offered.map(offer).collect()
    }

    fn load(&mut self, ticket: Ticket, holder: Holder<u8>) -> Outcome<u8> {
        let Machine { is_reachable, loading, .. } = self.machines[usize::from(holder.machine)];
        let is_dead = matches!(self.loaded.get(&holder), None | Some(Worker::Dead));
        let has_room = !is_dead || self.free_bytes(holder.machine) >= STAGE_BYTES;
        if !is_reachable || !has_room || loading == Loading::Refuses {
            return Outcome::LoadFailed(holder, "it refuses".to_owned());
        }
        self.loaded.insert(holder, Worker::Well);
        self.late.push((ticket, holder));
        match loading {
            Loading::LoadsTooLate => Outcome::LoadFailed(holder, "it said nothing".to_owned()),
            _ => Outcome::Loaded(holder),
        }
    }

    fn carry_out(&mut self, action: &Action<u8>) {
        match action {
            Action::Start(ticket, task) => {
                assert!(self.tasks.insert(*ticket, *task).is_none(), "{ticket:?} is used twice");
                if let Task::TakeStandby(stage) = *task
                    && let Some(machine) = self.standbys.remove(&stage)
                {
                    self.taking.insert(*ticket, Holder { stage, machine });
                }
            }
            Action::Cancel(ticket) => {
                let task = self.tasks.remove(ticket).expect("it is under way");
                assert!(!matches!(task, Task::TakeStandby(_)), "its reply says what to unload");
                if let Task::Load(holder) = task {
                    self.cancelled.push((*ticket, holder));
                }
            }
            Action::Place(holder) => self.ring[holder.stage] = holder.machine,
            Action::Unload(holder) => {
                self.loaded.remove(holder);
            }
            Action::Whole(epoch) => self.epoch = *epoch,
            Action::Abandon(_) => {
                self.is_over = true;
                self.unload_ring();
            }
            Action::Begin(_) | Action::HoldAgainst(_) => {}
        }
    }

    fn unload_ring(&mut self) {
        for (stage, machine) in self.ring.iter().copied().enumerate() {
            self.loaded.remove(&Holder { stage, machine });
        }
        for (stage, machine) in std::mem::take(&mut self.standbys) {
            self.loaded.remove(&Holder { stage, machine });
        }
    }
}

/// Whether a machine that reports this must not hold its stage: the coordinator does not leave its own ring.
pub(super) fn counts(machine: u8, departure: Departure) -> bool {
    machine != OWN || !matches!(departure, Departure::Left | Departure::StoppedSharing)
}
