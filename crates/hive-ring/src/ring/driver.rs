//! Drives the failover of a ring: `failover` decides, and this carries its decisions out.
//!
//! There is one task per ring, for as long as the ring is loaded. It feeds the pure state machine one event at a time
//! and carries out the actions in order. Slow actions run as tasks of their own (`tasks`) and finish with an event, so
//! that the driver notices at once when the ring is withdrawn.
//!
//! - While a task is under way, the driver keeps the ring alive; while it waits for something to happen, it does not.
//! - A task that panics abandons the ring. Otherwise nothing would ever finish under its ticket, and answers would wait
//!   for ever.
//! - The driver ends when the ring is dropped, or is abandoned or superseded and no task is left.

mod tasks;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod tests;
mod wording;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Instant;

use hive_net::{PeerAddr, PeerId};
use hive_peers::{Failing, Placement, Tasks};
use hive_protocol::Request;
use hive_stage::Destination;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::assembly::{unload, watch_prompts};
use super::failover::{
    Abandonment, Action, Cause, Event, Failover, FaultReport, Holder, Offer, Outcome, Stage, Task, Ticket,
};
use super::placed::PlacedStage;
use super::state::{Health, State};
use super::{Inner, Ring};
use tasks::{Finished, Product};

/// The failover of one ring, with its resources.
pub(super) struct Driver {
    ring: Weak<Inner>,
    /// The same, while a task is under way.
    in_use: Option<Ring>,
    failover: Failover<PeerId>,
    /// Events to handle before all others: outcomes known at once.
    events: VecDeque<Event<PeerId>>,
    state: watch::Receiver<State>,
    reports: mpsc::Receiver<FaultReport>,
    fleet: watch::Receiver<u64>,
    node: Tasks,
    tasks: JoinSet<(Ticket, Finished)>,
    abort_handles: HashMap<Ticket, AbortHandle>,
    /// The name and the address of every machine that has come up.
    placements: HashMap<PeerId, Placement>,
    /// Stages that have arrived on a machine and are not in the ring yet.
    arrived: BTreeMap<Holder<PeerId>, PlacedStage>,
    /// Stages as they were before this failover.
    former: BTreeMap<Holder<PeerId>, PlacedStage>,
    /// The connection to the first stage, once the ring is joined.
    prompts: Option<Destination>,
    /// Unloads that machines were told to do. A stage is not loaded on such a machine before that is done.
    unloading: BTreeMap<Holder<PeerId>, JoinHandle<()>>,
    /// Held during a failover.
    guard: Option<OwnedMutexGuard<()>>,
    /// Why the ring fails over, for people.
    why: String,
}

impl Driver {
    /// Creates the driver of a ring that has just been joined.
    pub(super) fn new(ring: &Ring, reports: mpsc::Receiver<FaultReport>) -> Self {
        let (member, stages) = (ring.host().membership(), ring.stages());
        let machines = stages.iter().map(|stage| stage.placement.addr.id());
        let stage = |(machine, bytes)| Stage { machine, bytes };
        Self {
            ring: Arc::downgrade(&ring.inner),
            in_use: None,
            failover: Failover::new(member.id(), machines.zip(ring.stage_bytes()).map(stage).collect()),
            events: VecDeque::new(),
            state: ring.state(),
            reports,
            fleet: member.peers().changes(),
            node: member.tasks().clone(),
            tasks: JoinSet::new(),
            abort_handles: HashMap::new(),
            placements: stages.into_iter().map(|stage| (stage.placement.addr.id(), stage.placement)).collect(),
            arrived: BTreeMap::new(),
            former: BTreeMap::new(),
            prompts: None,
            unloading: BTreeMap::new(),
            guard: None,
            why: String::new(),
        }
    }

    /// Runs until the driver ends.
    pub(super) async fn run(mut self) {
        while let Some(event) = self.next().await {
            let Some(ring) = self.in_use.take().or_else(|| self.ring.upgrade().map(|inner| Ring { inner })) else {
                return;
            };
            let is_withdrawn = event == Event::Withdrawn;
            let actions = self.failover.on(event, Instant::now());
            if is_withdrawn {
                self.withdraw(&ring, actions).await;
            } else {
                self.carry_out(&ring, actions).await;
            }
            self.in_use = Some(ring).filter(|_| !self.tasks.is_empty() || !self.events.is_empty());
        }
    }

    /// The next event; `None` if nothing can happen any more.
    async fn next(&mut self) -> Option<Event<PeerId>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let is_over = self.failover.is_over();
            if is_over && self.tasks.is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                () = withdrawn(&mut self.state), if !is_over => return Some(Event::Withdrawn),
                Some(joined) = self.tasks.join_next() => match joined {
                    Ok((ticket, finished)) => return Some(self.finished(ticket, finished)),
                    Err(error) if error.is_panic() && !is_over => {
                        tracing::error!("a task of a failover panicked: {error}");
                        if let Some(ring) = self.in_use.clone() {
                            abandon(&ring, "its failover failed").await;
                        }
                        return Some(Event::Withdrawn);
                    }
                    // Cancelled.
                    Err(_) => {}
                },
                // A failover under way is withdrawn with its ring.
                () = self.node.stopping(), if self.tasks.is_empty() => return None,
                report = self.reports.recv(), if !is_over => return report.map(Event::Reported),
                changed = self.fleet.changed(), if !is_over => return changed.ok().map(|()| Event::FleetChanged),
            }
        }
    }

    fn finished(&mut self, ticket: Ticket, (outcome, product): Finished) -> Event<PeerId> {
        self.abort_handles.remove(&ticket);
        match product {
            Some(Product::Stage(holder, stage)) => {
                self.placements.insert(holder.machine, stage.placement.clone());
                self.arrived.insert(holder, *stage);
            }
            Some(Product::Prompts(prompts)) => self.prompts = Some(prompts),
            None => {}
        }
        if let Outcome::LoadFailed(_, why) | Outcome::NotJoined(_, why) = &outcome {
            tracing::info!("the failover continues: {why}");
        }
        Event::Finished(ticket, outcome)
    }

    async fn carry_out(&mut self, ring: &Ring, actions: Vec<Action<PeerId>>) {
        for action in actions {
            match action {
                Action::Start(ticket, task) => self.start(ring, ticket, task),
                Action::Cancel(ticket) => self.cancel(ticket),
                Action::HoldAgainst(machine) => ring.host().membership().trust().failed(machine, Failing::Computing),
                Action::Begin(cause) => {
                    if !self.begin(ring, &cause).await {
                        // The remaining actions were for a ring that fails over.
                        return self.events.push_front(Event::Withdrawn);
                    }
                }
                Action::Place(holder) => self.place(ring, holder),
                Action::Unload(holder) => self.unload(ring, holder),
                Action::Whole(epoch) => {
                    if !self.complete(ring, epoch).await {
                        self.events.push_front(Event::Withdrawn);
                    }
                }
                Action::Abandon(reason) => self.abandon(ring, &reason).await,
            }
        }
    }

    /// Stops the failover. Unloading the ring waits until stages that are being loaded are unloaded.
    async fn withdraw(&mut self, ring: &Ring, actions: Vec<Action<PeerId>>) {
        let mut unloads = Vec::new();
        for action in actions {
            match action {
                Action::Cancel(ticket) => self.cancel(ticket),
                Action::Unload(holder) => unloads.extend(self.addr(holder.machine).map(|addr| (holder.stage, addr))),
                // A withdrawal has no other effects.
                _ => {}
            }
        }
        unload(ring.host(), ring.inner.id, unloads.into_iter()).await;
        self.guard = None;
    }

    fn start(&mut self, ring: &Ring, ticket: Ticket, task: Task<PeerId>) {
        let outcome = match task {
            Task::Observe => tasks::observe(ring),
            Task::CheckUse => tasks::check_use(ring),
            Task::ListOffers(stage) => self.list_offers(ring, stage),
            Task::Check(holder) => return self.spawn(ticket, tasks::check_stage(ring.clone(), holder)),
            Task::TakeStandby(stage) => return self.spawn(ticket, tasks::take_standby(ring.clone(), stage)),
            Task::EndWorker(holder) => return self.spawn(ticket, tasks::end_worker(ring.clone(), holder)),
            Task::Load(holder) => match self.placements.get(&holder.machine) {
                Some(placement) => {
                    let layers = &ring.inner.plan.stages[holder.stage].layers;
                    tracing::info!("{}: layers {layers:?} go to {}", self.why, placement.name);
                    let (placement, unloading) = (placement.clone(), self.unloading.remove(&holder));
                    return self.spawn(ticket, tasks::load(ring.clone(), holder, placement, unloading));
                }
                None => Outcome::LoadFailed(holder, "it is not known".to_owned()),
            },
            Task::Drain { from, .. } => match self.former.remove(&from) {
                Some(before) => return self.spawn(ticket, tasks::drain(ring.clone(), from.stage, before)),
                None => Outcome::Drained,
            },
            Task::Join(epoch) => return self.spawn(ticket, tasks::join(ring.clone(), epoch)),
        };
        self.events.push_back(Event::Finished(ticket, outcome));
    }

    fn spawn(&mut self, ticket: Ticket, task: impl Future<Output = Finished> + Send + 'static) {
        let handle = self.tasks.spawn(async move { (ticket, task.await) });
        self.abort_handles.insert(ticket, handle);
    }

    fn cancel(&mut self, ticket: Ticket) {
        if let Some(handle) = self.abort_handles.remove(&ticket) {
            handle.abort();
        }
    }

    /// The machines that may take a stage. They are remembered, as one of them will be asked.
    fn list_offers(&mut self, ring: &Ring, stage: usize) -> Outcome<PeerId> {
        let member = ring.host().membership();
        let machines = member.machines(&ring.inner.options.source).into_iter();
        let offers = machines.map(|(placement, profile)| {
            let machine = placement.addr.id();
            self.placements.insert(machine, placement);
            let has_copy = member.has_copy(machine, &ring.inner.options.source);
            Offer { machine, memory_bytes: profile.memory_bytes, bytes_per_s: profile.bytes_per_s, has_copy }
        });
        let offers = offers.collect();
        let holder = ring.inner.stages()[stage].placement.addr.id();
        Outcome::Offered { offers, holder_may_see_prompts: member.may_see_prompts(holder) }
    }

    /// Announces that the ring fails over; `false` if it was abandoned or superseded already.
    async fn begin(&mut self, ring: &Ring, cause: &Cause<PeerId>) -> bool {
        self.why = wording::cause(cause, |machine| self.name(machine));
        self.guard = Some(ring.inner.failing_over.clone().lock_owned().await);
        let trouble = wording::trouble(cause, |machine| self.name(machine));
        let is_whole = |health: &Health| *health == Health::Whole;
        let begins = change_state(ring, is_whole, |state| state.health = Health::FailingOver(trouble));
        if begins {
            tracing::info!("a model is failing over: {}", self.why);
        }
        begins
    }

    /// Puts a stage that has arrived into the ring.
    fn place(&mut self, ring: &Ring, holder: Holder<PeerId>) {
        let Some(arrived) = self.arrived.remove(&holder) else { return };
        let before = std::mem::replace(&mut ring.inner.stages()[holder.stage], arrived);
        let former = Holder { stage: holder.stage, machine: before.placement.addr.id() };
        self.former.insert(former, before);
    }

    fn unload(&mut self, ring: &Ring, holder: Holder<PeerId>) {
        let Some(addr) = self.addr(holder.machine) else { return };
        let (host, request) = (ring.host().clone(), Request::Unload(ring.inner.stage_id(holder.stage)));
        let unloading = ring.host().membership().spawn(async move { drop(host.ask(&addr, request, |_| ()).await) });
        self.unloading.retain(|_, other| !other.is_finished());
        self.unloading.insert(holder, unloading);
    }

    /// Announces that the ring is whole, as it was just joined; `false` if it was abandoned or superseded meanwhile.
    async fn complete(&mut self, ring: &Ring, epoch: u32) -> bool {
        let Inner { host, prompts, fault_reports, .. } = &*ring.inner;
        if let Some(joined) = self.prompts.take() {
            watch_prompts(host, &joined, epoch, fault_reports);
            tokio::select! {
                mut prompts = prompts.lock() => *prompts = joined,
                // An answer may be sending to a machine that is gone.
                () = withdrawn(&mut self.state) => return false,
            }
        }
        ring.renew_lease();
        let is_failing_over = |health: &Health| matches!(health, Health::FailingOver(_));
        let is_whole = change_state(ring, is_failing_over, |state| *state = State { epoch, health: Health::Whole });
        host.placements().notify();
        host.membership().view().notify();
        self.former.clear();
        self.guard = None;
        is_whole
    }

    async fn abandon(&mut self, ring: &Ring, reason: &Abandonment<PeerId>) {
        let why = wording::abandonment(reason, &self.why, |machine| self.name(machine));
        abandon(ring, &why).await;
        self.guard = None;
    }

    fn name(&self, machine: PeerId) -> &str {
        self.placements.get(&machine).map_or("a machine", |placement| &placement.name)
    }

    fn addr(&self, machine: PeerId) -> Option<PeerAddr> {
        Some(self.placements.get(&machine)?.addr.clone())
    }
}

/// Waits until the ring is abandoned or superseded.
async fn withdrawn(state: &mut watch::Receiver<State>) {
    let is_withdrawn = |state: &State| matches!(state.health, Health::Abandoned(_) | Health::Superseded);
    // An error means that the ring is dropped and no longer needed.
    let _ = state.wait_for(is_withdrawn).await;
}

/// Changes the state of a ring, if its health is as expected: it may have been abandoned or superseded meanwhile.
fn change_state(ring: &Ring, expected: impl Fn(&Health) -> bool, change: impl FnOnce(&mut State)) -> bool {
    ring.inner.state.send_if_modified(|state| {
        let is_expected = expected(&state.health);
        if is_expected {
            change(state);
        }
        is_expected
    })
}

/// The ring's answers have the model loaded again, which unloads this ring first. Without answers, it is unloaded at
/// once.
async fn abandon(ring: &Ring, why: &str) {
    tracing::info!("a model is abandoned on these machines: {why}");
    ring.inner.abandon(why);
    if !ring.is_busy() {
        ring.unload_all().await;
    }
}
