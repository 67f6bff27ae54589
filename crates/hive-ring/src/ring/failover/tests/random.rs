//! Ten thousand random sequences of losses, recoveries and late replies; `fleet.rs` checks every action of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use super::fleet::{Fleet, Loading, OWN, STAGE_BYTES, Worker};

const SEQUENCES: u64 = 10_000;
const STEPS: usize = 60;

/// The generator known as `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Names the sequence that a failed assertion ends.
struct Seed(u64);

impl Drop for Seed {
    #[allow(clippy::print_stderr, reason = "whoever reads the failed assertion needs the seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("random failover sequence with seed {}", self.0);
        }
    }
}

#[test]
fn ten_thousand_random_sequences_break_no_rule() {
    let mut seen = BTreeMap::new();
    for seed in 0..SEQUENCES {
        let _named = Seed(seed);
        let fleet = sequence(&mut Random(seed));
        for action in &fleet.log {
            *seen.entry(kind(action)).or_insert(0) += 1;
        }
    }
    for kind in KINDS {
        assert!(seen.get(kind).is_some_and(|times| *times >= 100), "too few of {kind}: {seen:?}");
    }
}

/// What the sequences must cover to be meaningful.
const KINDS: [&str; 11] = [
    "whole",
    "unused",
    "no room",
    "exhausted",
    "unload",
    "cancel",
    "held against",
    "load",
    "drain",
    "end worker",
    "place",
];

fn kind(action: &Action<u8>) -> &'static str {
    match action {
        Action::Whole(_) => "whole",
        Action::Abandon(Abandonment::Unused(_)) => "unused",
        Action::Abandon(Abandonment::NoRoom(_)) => "no room",
        Action::Abandon(Abandonment::AttemptsExhausted) => "exhausted",
        Action::Unload(_) => "unload",
        Action::Cancel(_) => "cancel",
        Action::HoldAgainst(_) => "held against",
        Action::Start(_, Task::Load(_)) => "load",
        Action::Start(_, Task::Drain { .. }) => "drain",
        Action::Start(_, Task::EndWorker(_)) => "end worker",
        Action::Start(..) => "other",
        Action::Begin(_) => "begin",
        Action::Place(_) => "place",
    }
}

fn sequence(random: &mut Random) -> Fleet {
    let machines = 2 + random.below(5) as u8;
    let ring: Vec<_> = (0..=random.below(4)).map(|_| random.below(usize::from(machines)) as u8).collect();
    let mut fleet = Fleet::new(machines, &ring, 4);
    for machine in &mut fleet.machines {
        machine.memory_bytes = random.below(5) as u64 * STAGE_BYTES;
        machine.bytes_per_s = 1.0 + random.below(3) as f64;
        machine.is_offered = !random.one_in(5);
    }
    for _ in 0..STEPS {
        step(&mut fleet, random);
    }
    quiet_down(&mut fleet);
    fleet
}

fn step(fleet: &mut Fleet, random: &mut Random) {
    match random.below(20) {
        0 => lose_a_stage(fleet, random),
        1 => change_a_machine(fleet, random),
        2 | 3 => report(fleet, random),
        4 => fleet.fleet_changed(),
        5 => add_a_standby(fleet, random),
        6 => fleet.now += Duration::from_millis(random.below(40_000) as u64),
        7 if !fleet.late.is_empty() => fleet.reply_late(random.below(fleet.late.len())),
        8 if !fleet.cancelled.is_empty() => fleet.load_late(random.below(fleet.cancelled.len())),
        9 => fleet.is_used = !random.one_in(4),
        10 if random.one_in(10) => fleet.withdraw(),
        _ => {
            let tickets: Vec<_> = fleet.tasks.keys().copied().collect();
            if !tickets.is_empty() {
                fleet.finish(random.pick(&tickets));
            }
        }
    }
}

fn lose_a_stage(fleet: &mut Fleet, random: &mut Random) {
    let loaded: Vec<_> = fleet.loaded.keys().copied().collect();
    if !loaded.is_empty() {
        let worker = random.pick(&[Worker::Dead, Worker::Dead, Worker::Hung, Worker::Wrong]);
        fleet.loaded.insert(random.pick(&loaded), worker);
    }
}

fn change_a_machine(fleet: &mut Fleet, random: &mut Random) {
    let number = random.below(fleet.machines.len());
    let departures = [Departure::StoppedSharing, Departure::MayNotSeePrompts, Departure::OverCap];
    let is_own = number == usize::from(OWN);
    let machine = &mut fleet.machines[number];
    match random.below(6) {
        0 => machine.is_reachable = is_own || !machine.is_reachable,
        1 => machine.loading = random.pick(&[Loading::Loads, Loading::Refuses, Loading::LoadsTooLate]),
        2 => machine.joins = !machine.joins,
        3 if !is_own => fleet.quit(number as u8),
        4 => machine.departure = Some(random.pick(&departures)).filter(|why| !is_own || *why != departures[1]),
        _ => machine.departure = None,
    }
}

fn report(fleet: &mut Fleet, random: &mut Random) {
    let stage = random.below(5);
    let origin = random.pick(&[FaultOrigin::Link, FaultOrigin::Output(stage), FaultOrigin::Progress(stage)]);
    let origin = if random.one_in(2) { fleet.broken().first().copied().unwrap_or(origin) } else { origin };
    let epoch = (fleet.epoch + random.pick(&[0, 0, 0, 1])).saturating_sub(random.pick(&[0, 0, 0, 1]));
    fleet.report_in(epoch, origin);
}

fn add_a_standby(fleet: &mut Fleet, random: &mut Random) {
    let (stage, machine) = (random.below(fleet.ring.len()), random.below(fleet.machines.len()) as u8);
    let is_free = !fleet.standbys.contains_key(&stage) && !fleet.loaded.contains_key(&Holder { stage, machine });
    if is_free && !fleet.is_over {
        fleet.add_standby(stage, machine);
    }
}

/// Once nothing more happens to the fleet, the ring becomes whole or is abandoned, and nothing is left behind.
fn quiet_down(fleet: &mut Fleet) {
    fleet.settle();
    // Each report reveals at least one stage that computes nonsense, and everything else that is broken.
    for _ in 0..=fleet.ring.len() {
        fleet.fleet_changed();
        fleet.settle();
        if let Some(origin) = fleet.broken().first().copied().filter(|_| !fleet.is_over) {
            fleet.report(origin);
            fleet.settle();
        }
    }
    while !fleet.cancelled.is_empty() {
        fleet.load_late(0);
    }
    assert!(fleet.is_over || fleet.broken().is_empty(), "neither whole nor abandoned: {:?}", fleet.broken());
    assert!(fleet.leaked().is_empty(), "loaded and not wanted: {:?}", fleet.leaked());
}
