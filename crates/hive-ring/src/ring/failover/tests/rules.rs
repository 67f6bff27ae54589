//! Rules that every action of a failover must keep, whatever happens to the fleet.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::*;
use super::fleet::{Fleet, OWN, STAGE_BYTES, counts};

/// What the checks remember of the failover under way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Stages that fault reports accuse, dealt with or not, and the epochs of these.
    pub(super) accused: Vec<(u32, usize)>,
    /// Stages found lost in the latest observation that have no new machine yet.
    pub(super) unplaced: BTreeSet<usize>,
    /// The stage that ended the latest attempt.
    pub(super) failed: Option<usize>,
    pub(super) failures: usize,
    pub(super) has_begun: bool,
    pub(super) is_used: Option<bool>,
    pub(super) offers: Vec<Offer<u8>>,
    pub(super) holder_may_see_prompts: bool,
    pub(super) may_restart: bool,
    /// The stage whose standby replica was requested last, and when.
    pub(super) standby_tried: Option<(usize, Instant)>,
}

impl Fleet {
    /// Records what the failover learns.
    pub(super) fn witness(&mut self, task: Task<u8>, outcome: &Outcome<u8>) {
        let seen = &mut self.seen;
        match (task, outcome) {
            (_, Outcome::Observed(departures)) => {
                let machines = self.ring.iter().zip(departures).enumerate();
                let departed = machines.filter(|(_, (machine, why))| why.is_some_and(|why| counts(**machine, why)));
                seen.unplaced = departed.map(|(stage, _)| stage).chain(seen.failed.take()).collect();
            }
            (Task::Check(holder), Outcome::Checked(check)) if *check != Check::Working => {
                seen.unplaced.insert(holder.stage);
            }
            (_, Outcome::Use(is_used)) => seen.is_used = Some(*is_used),
            (_, Outcome::Offered { offers, holder_may_see_prompts }) => {
                seen.offers.clone_from(offers);
                seen.holder_may_see_prompts = *holder_may_see_prompts;
                seen.may_restart = self.failover.run.as_ref().is_some_and(|run| {
                    run.waiting.values().any(|awaited| match awaited {
                        Awaited::Offers(takeover) => {
                            let hung_here = takeover.kind == LossKind::Hung && takeover.from.machine == OWN;
                            takeover.kind == LossKind::WorkerDied || hung_here
                        }
                        _ => false,
                    })
                });
            }
            (_, Outcome::LoadFailed(holder, _)) => {
                seen.failed = Some(holder.stage);
                seen.failures += 1;
                let since = seen.standby_tried.map_or(self.now, |(_, since)| since);
                self.deaths.extend([(holder.machine, since); 3]);
            }
            (_, Outcome::NotJoined(stage, _)) => {
                seen.failed = Some(*stage);
                seen.failures += 1;
            }
            _ => {}
        }
    }

    /// The rules for every action.
    pub(super) fn check(&mut self, action: &Action<u8>) {
        assert!(!self.is_over || matches!(action, Action::Unload(_) | Action::Cancel(_)), "it is over: {action:?}");
        match action {
            Action::Start(_, Task::Observe) => self.seen.standby_tried = None,
            Action::Start(_, Task::TakeStandby(stage)) => {
                assert!(self.seen.has_begun);
                self.check_is_lost(*stage);
                self.seen.standby_tried = Some((*stage, self.now));
                self.count_deaths(*stage);
            }
            Action::Start(_, Task::Load(holder)) => self.check_load(*holder),
            Action::Start(_, Task::Join(epoch)) => {
                assert_eq!(*epoch, self.epoch + 1);
                assert!(self.seen.unplaced.is_empty(), "lost and not replaced: {:?}", self.seen.unplaced);
            }
            Action::Start(_, Task::EndWorker(holder)) => {
                assert_eq!((holder.machine, self.ring[holder.stage]), (OWN, OWN));
            }
            Action::Start(_, Task::Drain { from, to }) => {
                assert_eq!(self.ring[from.stage], *to, "it is placed first");
            }
            Action::Begin(_) => {
                assert!(!self.seen.has_begun, "it begins twice");
                self.seen.has_begun = true;
                self.seen.failures = 0;
            }
            Action::Place(holder) => {
                self.check_is_lost(holder.stage);
                self.seen.unplaced.remove(&holder.stage);
            }
            Action::Whole(epoch) => {
                assert_eq!(*epoch, self.epoch + 1, "one for each success");
                assert!(self.seen.has_begun && self.tasks.is_empty());
                let mut accused = std::mem::take(&mut self.seen.accused);
                accused.retain(|(seen_in, _)| seen_in >= epoch);
                self.seen = Seen { accused, ..Seen::default() };
            }
            Action::Unload(holder) if !self.is_over => {
                assert_ne!(self.ring[holder.stage], holder.machine, "the holder of a stage loses it");
                assert!(!self.tasks.values().any(|task| *task == Task::Load(*holder)), "it is loading it");
            }
            Action::HoldAgainst(machine) => {
                assert_ne!(*machine, OWN);
                assert!(self.seen.accused.iter().any(|(_, stage)| self.ring.get(*stage) == Some(machine)));
            }
            Action::Abandon(reason) => self.check_abandonment(reason),
            Action::Start(..) | Action::Cancel(_) | Action::Unload(_) => {}
        }
    }

    fn check_is_lost(&self, stage: usize) {
        let is_accused = self.seen.accused.iter().any(|(_, accused)| *accused == stage);
        let is_lost = is_accused || self.seen.unplaced.contains(&stage);
        assert!(is_lost, "stage {stage} is healthy");
    }

    fn count_deaths(&mut self, stage: usize) {
        let run = self.failover.run.as_ref().expect("it is under way");
        let kind = run.waiting.values().find_map(|awaited| match awaited {
            Awaited::Standby(takeover) => Some(takeover.kind),
            _ => None,
        });
        let machine = self.ring[stage];
        let deaths = match kind.expect("it takes the standby of a stage that is lost") {
            LossKind::MachineLeft => 0,
            LossKind::WorkerDied => 1,
            LossKind::Hung if machine == OWN => 1,
            LossKind::Hung | LossKind::Unreachable | LossKind::WrongOutput => 3,
        };
        self.deaths.extend(std::iter::repeat_n((machine, self.now), deaths));
    }

    fn keeps_dying_on(&self, machine: u8) -> bool {
        let now = self.seen.standby_tried.map_or(self.now, |(_, since)| since);
        let recent = |(on, at): &&(u8, Instant)| *on == machine && now - *at < Duration::from_mins(1);
        self.deaths.iter().filter(recent).count() >= 3
    }

    /// The machines that can take a stage, by the latest offers.
    fn able(&self, stage: usize) -> Vec<u8> {
        let Seen { offers, holder_may_see_prompts, may_restart, .. } = &self.seen;
        let holder = self.ring[stage];
        let is_offered = offers.iter().any(|offer| offer.machine == holder);
        let restarts = *may_restart && (is_offered || *holder_may_see_prompts);
        let with_room = offers.iter().filter(|offer| offer.memory_bytes >= STAGE_BYTES).map(|offer| offer.machine);
        let others = with_room.filter(|machine| *machine != holder || !restarts);
        restarts.then_some(holder).into_iter().chain(others).collect()
    }

    fn check_load(&self, holder: Holder<u8>) {
        let Holder { stage, machine } = holder;
        self.check_is_lost(stage);
        assert_eq!(self.seen.standby_tried.map(|(tried, _)| tried), Some(stage), "a standby replica comes first");
        let loads = |task: &Task<u8>| matches!(task, Task::Load(other) if other.stage == stage);
        assert!(!self.tasks.values().any(loads), "stage {stage} is being loaded already");
        let able = self.able(stage);
        assert!(able.contains(&machine), "{machine} cannot take stage {stage}, {able:?} can");
        assert!(self.may_see_prompts(machine), "{machine} may not see prompts");
        let sound: Vec<_> = able.iter().filter(|machine| !self.keeps_dying_on(**machine)).collect();
        assert!(sound.is_empty() || sound.contains(&&machine), "stages keep dying on {machine}, not on {sound:?}");
    }

    fn check_abandonment(&self, reason: &Abandonment<u8>) {
        match reason {
            Abandonment::Unused(_) => {
                assert_eq!(self.seen.is_used, Some(false));
                assert!(!self.seen.has_begun);
            }
            Abandonment::NoRoom(_) => {
                assert!(self.seen.has_begun);
                let (stage, _) = self.seen.standby_tried.expect("a stage is lost");
                assert!(self.able(stage).is_empty(), "there is room for stage {stage}");
            }
            Abandonment::AttemptsExhausted => assert_eq!(self.seen.failures, 4),
        }
    }
}
