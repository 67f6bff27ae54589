//! Failovers, story by story, and ten thousand random ones that must keep all rules.

mod fleet;
mod random;
mod rules;

use std::time::Duration;

use super::*;
use fleet::{Fleet, Loading, OWN, Worker};

const LINK: FaultOrigin = FaultOrigin::Link;

fn is_whole(fleet: &Fleet, epoch: u32) -> bool {
    fleet.did(|action| *action == Action::Whole(epoch)) && fleet.broken().is_empty() && fleet.leaked().is_empty()
}

fn holder(stage: usize, machine: u8) -> Holder<u8> {
    Holder { stage, machine }
}

#[test]
fn a_dead_worker_is_restarted_where_it_was_and_nothing_else_is_loaded() {
    let mut fleet = Fleet::new(4, &[0, 1, 2], 1);
    fleet.is_used = false;
    fleet.set_worker(1, Worker::Dead);
    fleet.report(LINK);
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(1, 1)]);
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_worker_that_dies_three_times_within_a_minute_moves_to_another_machine() {
    for (pause, expected) in [(Duration::from_secs(20), 2), (Duration::from_secs(30), 1)] {
        let mut fleet = Fleet::new(3, &[0, 1], 1);
        for _ in 0..3 {
            fleet.set_worker(1, Worker::Dead);
            fleet.report(LINK);
            fleet.settle();
            fleet.now += pause;
        }
        assert_eq!(fleet.ring, [0, expected], "{pause:?} apart");
        assert!(is_whole(&fleet, 3));
    }
}

#[test]
fn a_standby_replica_takes_over_and_nothing_is_loaded() {
    let mut fleet = Fleet::new(4, &[0, 1], 2);
    fleet.add_standby(1, 3);
    fleet.machines[1].is_reachable = false;
    fleet.report(LINK);
    fleet.settle();
    assert_eq!((fleet.ring.as_slice(), fleet.loads().len()), (&[0, 3][..], 0));
    assert!(is_whole(&fleet, 1));
}

#[test]
fn where_the_standby_replica_cannot_compute_another_machine_loads_the_stage() {
    let mut fleet = Fleet::new(4, &[0, 1], 1);
    fleet.add_standby(1, 3);
    fleet.machines[3].is_reachable = false;
    fleet.quit(1);
    fleet.fleet_changed();
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(1, 2)]);
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_machine_that_stops_sharing_hands_its_sessions_over_before_the_ring_is_joined_and_unloads_after_it() {
    let mut fleet = Fleet::new(3, &[0, 1], 1);
    fleet.machines[1].departure = Some(Departure::StoppedSharing);
    fleet.fleet_changed();
    let ticket = fleet.settle_until(|task| matches!(task, Task::Drain { .. }));
    assert_eq!(fleet.tasks[&ticket], Task::Drain { from: holder(1, 1), to: 2 });
    assert_eq!(fleet.ring, [0, 2]);
    assert!(!fleet.did(|action| matches!(action, Action::Unload(_))));
    fleet.settle();
    assert_eq!(fleet.log.last(), Some(&Action::Unload(holder(1, 1))));
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_report_of_an_earlier_epoch_leads_to_nothing() {
    let mut fleet = Fleet::new(3, &[0, 1], 1);
    fleet.report(LINK);
    fleet.settle();
    let before = fleet.log.len();
    fleet.set_worker(1, Worker::Dead);
    fleet.report_in(0, FaultOrigin::Output(1));
    assert_eq!(fleet.log.len(), before);
}

#[test]
fn a_report_during_failover_is_stale_after_it_unless_it_is_of_the_next_epoch() {
    for (epoch, expected) in [(0, 1), (1, 2)] {
        let mut fleet = Fleet::new(3, &[0, 1], 1);
        fleet.set_worker(1, Worker::Dead);
        fleet.report(LINK);
        fleet.settle_until(|task| matches!(task, Task::Join(_)));
        fleet.report_in(0, LINK);
        fleet.report_in(epoch, LINK);
        fleet.settle();
        assert_eq!(fleet.epoch, expected, "of epoch {epoch}");
    }
}

#[test]
fn a_ring_that_nobody_uses_is_abandoned_at_once_unless_only_workers_died() {
    let mut fleet = Fleet::new(3, &[0, 1, 2], 1);
    fleet.is_used = false;
    fleet.set_worker(1, Worker::Dead);
    fleet.quit(2);
    fleet.report(LINK);
    fleet.settle();
    let lost = StageLoss {
        holder: holder(1, 1),
        kind: LossKind::WorkerDied,
        reason: LossReason::Gone("its worker died".to_owned()),
    };
    assert_eq!(fleet.log.last(), Some(&Action::Abandon(Abandonment::Unused(Cause::Loss(lost)))));
    assert!(fleet.loads().is_empty() && fleet.leaked().is_empty());
}

#[test]
fn without_room_for_a_stage_the_ring_is_abandoned_and_what_was_left_behind_is_unloaded() {
    let mut fleet = Fleet::new(3, &[0, 1, 1], 2);
    fleet.machines[0].is_offered = false;
    fleet.machines[2].memory_bytes = 10;
    fleet.machines[1].departure = Some(Departure::OverCap);
    fleet.fleet_changed();
    fleet.settle();
    let no_room = NoRoom { needed_bytes: 10, most_bytes: 0 };
    assert!(fleet.did(|action| *action == Action::Abandon(Abandonment::NoRoom(no_room))));
    assert!(fleet.did(|action| *action == Action::Unload(holder(1, 1))), "the one before it was taken over");
    assert!(fleet.leaked().is_empty());
}

#[test]
fn a_report_where_every_stage_is_well_has_them_joined_again() {
    let mut fleet = Fleet::new(2, &[0, 1], 1);
    fleet.report(LINK);
    fleet.settle();
    assert!(fleet.did(|action| *action == Action::Begin(Cause::Report("it was reported".to_owned()))));
    assert!(fleet.loads().is_empty());
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_change_in_the_fleet_that_loses_no_stage_checks_and_changes_nothing() {
    let mut fleet = Fleet::new(3, &[0, 1], 1);
    fleet.quit(2);
    fleet.set_worker(1, Worker::Dead);
    fleet.machines[usize::from(OWN)].departure = Some(Departure::StoppedSharing);
    fleet.fleet_changed();
    fleet.settle();
    assert!(matches!(fleet.log[..], [Action::Start(_, Task::Observe)]), "{:?}", fleet.log);
}

#[test]
fn a_change_in_the_fleet_during_failover_is_observed_after_it() {
    let mut fleet = Fleet::new(4, &[0, 1], 1);
    fleet.set_worker(1, Worker::Dead);
    fleet.report(LINK);
    fleet.settle_until(|task| matches!(task, Task::Join(_)));
    fleet.machines[1].departure = Some(Departure::MayNotSeePrompts);
    fleet.fleet_changed();
    fleet.settle();
    assert_eq!(fleet.ring, [0, 2]);
    assert!(is_whole(&fleet, 2));
}

#[test]
fn wrong_output_is_held_against_a_machine_but_not_against_this_one() {
    for (stage, expected) in [(0, false), (1, true)] {
        let mut fleet = Fleet::new(3, &[0, 1], 1);
        fleet.set_worker(stage, Worker::Wrong);
        fleet.report(FaultOrigin::Output(stage));
        fleet.settle();
        assert_eq!(fleet.did(|action| *action == Action::HoldAgainst(1)), expected);
        assert!(!fleet.did(|action| *action == Action::HoldAgainst(OWN)));
        assert_eq!(fleet.loads(), [holder(stage, 2)]);
        assert!(is_whole(&fleet, 1));
    }
}

#[test]
fn a_hung_worker_of_this_machine_is_ended_and_restarted_and_another_machine_is_left() {
    for (stage, expected) in [(0, 0), (1, 2)] {
        let mut fleet = Fleet::new(3, &[0, 1], 1);
        fleet.set_worker(stage, Worker::Hung);
        fleet.report(FaultOrigin::Progress(stage));
        fleet.settle();
        assert_eq!(fleet.loads(), [holder(stage, expected)]);
        let ends_worker = |action: &Action<u8>| matches!(action, Action::Start(_, Task::EndWorker(_)));
        assert_eq!(fleet.did(ends_worker), stage == 0);
        assert!(is_whole(&fleet, 1));
    }
}

#[test]
fn this_machine_restarts_its_own_stage_although_it_does_not_share() {
    let mut fleet = Fleet::new(1, &[0], 1);
    fleet.machines[0].is_offered = false;
    fleet.set_worker(0, Worker::Dead);
    fleet.report(LINK);
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(0, 0)]);
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_machine_that_cannot_load_is_replaced_and_told_to_unload_what_it_may_have_loaded() {
    let mut fleet = Fleet::new(4, &[0, 1], 1);
    fleet.machines[2].loading = Loading::LoadsTooLate;
    fleet.quit(1);
    fleet.fleet_changed();
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(1, 2), holder(1, 3)]);
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_stage_that_was_taken_over_is_not_loaded_again_when_another_is_lost_on_the_way() {
    let mut fleet = Fleet::new(6, &[0, 1, 2], 1);
    fleet.quit(1);
    fleet.fleet_changed();
    fleet.settle_until(|task| matches!(task, Task::Join(_)));
    fleet.quit(2);
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(1, 3), holder(2, 4)]);
    assert!(is_whole(&fleet, 1), "both in one failover");
}

#[test]
fn after_four_attempts_the_ring_is_abandoned_and_everybody_who_was_asked_is_told_to_unload() {
    let mut fleet = Fleet::new(9, &[0, 1], 1);
    for machine in &mut fleet.machines[2..] {
        machine.loading = Loading::LoadsTooLate;
    }
    fleet.quit(1);
    fleet.fleet_changed();
    fleet.settle();
    assert_eq!(fleet.loads().len(), 4);
    assert!(fleet.did(|action| *action == Action::Abandon(Abandonment::AttemptsExhausted)));
    assert!(fleet.leaked().is_empty());
}

#[test]
fn a_stage_that_cannot_be_joined_moves_to_another_machine() {
    let mut fleet = Fleet::new(3, &[0, 1], 1);
    fleet.machines[1].joins = false;
    fleet.report(LINK);
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(1, 2)]);
    assert!(is_whole(&fleet, 1));
}

#[test]
fn a_machine_that_takes_a_stage_over_is_not_accused_of_what_was_reported_before() {
    let mut fleet = Fleet::new(5, &[0, 1, 2], 1);
    fleet.set_worker(1, Worker::Wrong);
    fleet.report(FaultOrigin::Output(1));
    fleet.settle_until(|task| matches!(task, Task::Join(_)));
    fleet.machines[2].is_reachable = false;
    fleet.settle();
    assert_eq!(fleet.loads(), [holder(1, 3), holder(2, 4)]);
    let accusations = fleet.log.iter().filter(|action| matches!(action, Action::HoldAgainst(_))).count();
    assert_eq!(accusations, 1);
}

#[test]
fn a_ring_that_is_withdrawn_during_a_load_has_it_cancelled_and_unloaded_also_when_it_finishes_late() {
    // The late reply may come from the machine that the stage was on before, too.
    for (worker, machine) in [(Worker::Dead, 1), (Worker::Hung, 2)] {
        let mut fleet = Fleet::new(3, &[0, 1], 1);
        fleet.set_worker(1, worker);
        fleet.report(LINK);
        let ticket = fleet.settle_until(|task| matches!(task, Task::Load(_)));
        let before = fleet.log.len();
        fleet.withdraw();
        let after = fleet.log[before..].to_vec();
        assert!(after.starts_with(&[Action::Cancel(ticket)]));
        assert!(after.contains(&Action::Unload(holder(1, machine))), "{after:?}");
        fleet.load_late(0);
        assert!(fleet.leaked().is_empty());
    }
}

#[test]
fn a_standby_replica_that_was_being_taken_when_the_ring_was_withdrawn_is_unloaded() {
    let mut fleet = Fleet::new(4, &[0, 1], 1);
    fleet.add_standby(1, 3);
    fleet.quit(1);
    fleet.fleet_changed();
    fleet.settle_until(|task| matches!(task, Task::TakeStandby(_)));
    fleet.withdraw();
    assert_eq!(fleet.leaked(), [holder(1, 3)]);
    fleet.settle();
    assert_eq!(fleet.log.last(), Some(&Action::Unload(holder(1, 3))));
    assert!(fleet.leaked().is_empty());
}

#[test]
fn an_abandoned_ring_hears_nothing_any_more() {
    let mut fleet = Fleet::new(3, &[0, 1], 1);
    fleet.withdraw();
    fleet.report(LINK);
    fleet.fleet_changed();
    fleet.withdraw();
    assert!(fleet.log.is_empty());
}
