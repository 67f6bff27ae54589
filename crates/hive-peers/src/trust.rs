//! Observations of the other machines, weighed against their claims.
//!
//! Machines report their speed and memory, but observations count more. A machine whose stages are slower than claimed
//! is planned at the observed speed; one whose stages fail is quarantined, longer each time. Both penalties decay,
//! since machines are repaired and owners close their games. A machine that turns out faster than it once measured
//! corrects its own claim.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hive_net::PeerId;

/// Quarantine after a failure; it doubles with each further one, up to the maximum.
const FIRST_QUARANTINE: Duration = Duration::from_secs(30);
const LONGEST_QUARANTINE: Duration = Duration::from_mins(30);
/// Older failures no longer count.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// Half-life of a speed penalty; it doubles each time the machine is too slow again.
const FORGIVEN: Duration = Duration::from_mins(5);
const MOST_DOUBLINGS: u32 = 8;

/// The speed assumed of a machine until it is measured: an old laptop.
pub(crate) const ASSUMED_BYTES_PER_S: f64 = 10e9;
/// A claimed speed is credited up to this many times this machine's own speed or the machine's observed speed,
/// whichever is higher. A machine that is faster still proves it with its first answers.
const UNPROVEN_TIMES: f64 = 2.0;

/// Quarantine of a machine that computed wrong numbers, which a healthy machine never does.
const WRONG_NUMBERS_QUARANTINE: Duration = Duration::from_hours(24);

/// How long a machine that lacked memory it had claimed is planned with less.
const ROOM_DOUBTED: Duration = Duration::from_mins(1);

/// How a machine failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It did not load a stage; a retry may succeed.
    Loading,
    /// It computed impossible numbers.
    Computing,
}

/// The observations of one machine.
#[derive(Debug, Default)]
struct Seen {
    failures: Vec<(Instant, Failing)>,
    /// Bytes that it had no room for although it had claimed to, and when.
    no_room_for: Option<(u64, Instant)>,
    /// The observed fraction of its claimed speed, and when.
    slow: Option<(f64, Instant)>,
    times_slow: u32,
    /// The highest observed rate at which it reads weights, in bytes per second.
    shown_bytes_per_s: Option<f64>,
    /// When a spot check found that it computed wrong numbers.
    wrong_numbers_at: Option<Instant>,
    /// Whether this owner was already notified that another machine disagrees with it.
    doubted: bool,
}

impl Seen {
    fn failed(&mut self, how: Failing, now: Instant) {
        self.failures.retain(|(at, _)| now - *at < FORGOTTEN);
        self.failures.push((now, how));
    }

    /// Forgets the impossible numbers since then: the machine was not to blame.
    fn take_back(&mut self, since: Instant) {
        self.failures.retain(|(at, how)| *at < since || *how != Failing::Computing);
    }

    /// Whether only load failures count against it. If so, it may be retried when there is no plan without it.
    fn may_be_asked_again(&self, now: Instant) -> bool {
        let computed_wrong = self.wrong_numbers_at.is_some_and(|at| now - at < WRONG_NUMBERS_QUARANTINE);
        let mut recent = self.failures.iter().filter(|(at, _)| now - *at < FORGOTTEN);
        !computed_wrong && recent.all(|(_, how)| *how == Failing::Loading)
    }

    /// The most memory that plans may use of it, in bytes, whatever it claims.
    fn room_bytes(&self, now: Instant) -> u64 {
        let doubted = self.no_room_for.filter(|(_, at)| now - *at < ROOM_DOUBTED);
        doubted.map_or(u64::MAX, |(bytes, _)| bytes.saturating_sub(1))
    }

    /// While its claim is doubted, the smallest load that it had no room for counts.
    fn had_no_room(&mut self, bytes: u64, now: Instant) {
        let doubted = self.no_room_for.filter(|(_, at)| now - *at < ROOM_DOUBTED);
        let smallest = doubted.map_or(bytes, |(before, _)| before.min(bytes));
        self.no_room_for = Some((smallest, now));
    }

    /// How much longer it is quarantined, if it is.
    fn quarantined_for(&self, now: Instant) -> Option<Duration> {
        let until =
            |since: Instant, rest: Duration| (since + rest).checked_duration_since(now).filter(|rest| !rest.is_zero());
        let quarantined = self.wrong_numbers_at.and_then(|at| until(at, WRONG_NUMBERS_QUARANTINE));
        quarantined.max(self.quarantined_for_failures(now))
    }

    fn quarantined_for_failures(&self, now: Instant) -> Option<Duration> {
        let recent = || self.failures.iter().map(|(at, _)| *at).filter(|at| now - *at < FORGOTTEN);
        let latest = recent().next_back()?;
        let doubled = FIRST_QUARANTINE * (1 << (recent().count() - 1).min(16));
        (latest + doubled.min(LONGEST_QUARANTINE)).checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    fn saw(&mut self, pace: f64, now: Instant) {
        if pace < 1.0 {
            self.times_slow += 1;
            self.slow = Some((pace, now));
        } else {
            // It is as fast as it claims again, so the slowdown is over.
            (self.slow, self.times_slow) = (None, 0);
        }
    }

    fn has_shown(&mut self, bytes_per_s: f64) {
        self.shown_bytes_per_s = Some(self.shown_bytes_per_s.map_or(bytes_per_s, |before| before.max(bytes_per_s)));
    }

    /// The fraction of its claimed speed that plans use.
    fn pace(&self, now: Instant) -> f64 {
        let Some((pace, at)) = self.slow else { return 1.0 };
        let half_life = FORGIVEN * (1 << self.times_slow.saturating_sub(1).min(MOST_DOUBLINGS));
        let halvings = (now - at).as_secs_f64() / half_life.as_secs_f64();
        1.0 - (1.0 - pace) * 0.5f64.powf(halvings)
    }
}

/// The observations of all other machines.
#[derive(Debug, Default)]
pub struct Trust(Mutex<HashMap<PeerId, Seen>>);

impl Trust {
    fn seen(&self) -> MutexGuard<'_, HashMap<PeerId, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a stage on this machine did not load, or computed impossible numbers.
    pub fn failed(&self, machine: PeerId, how: Failing) {
        self.seen().entry(machine).or_default().failed(how, Instant::now());
    }

    /// Records that a machine was not to blame for impossible numbers since then.
    pub fn take_back(&self, machine: PeerId, since: Instant) {
        if let Some(seen) = self.seen().get_mut(&machine) {
            seen.take_back(since);
        }
    }

    /// Records that a machine lacked memory it had claimed. That is not a failure; it is planned with less.
    pub fn had_no_room(&self, machine: PeerId, bytes: u64) {
        self.seen().entry(machine).or_default().had_no_room(bytes, Instant::now());
    }

    /// The most memory that plans may use of a machine, in bytes, whatever it claims.
    pub(crate) fn room_bytes(&self, machine: PeerId) -> u64 {
        self.seen().get(&machine).map_or(u64::MAX, |seen| seen.room_bytes(Instant::now()))
    }

    /// Whether only load failures count against a machine.
    pub(crate) fn may_be_asked_again(&self, machine: PeerId) -> bool {
        self.seen().get(&machine).is_none_or(|seen| seen.may_be_asked_again(Instant::now()))
    }

    /// How much longer a machine is quarantined, if it is.
    pub fn quarantined_for(&self, machine: PeerId) -> Option<Duration> {
        self.seen().get(&machine)?.quarantined_for(Instant::now())
    }

    /// The fraction of its claimed speed at which a machine is planned.
    pub fn pace(&self, machine: PeerId) -> f64 {
        self.seen().get(&machine).map_or(1.0, |seen| seen.pace(Instant::now()))
    }

    /// Records the observed fraction of a machine's claimed speed.
    pub fn saw(&self, machine: PeerId, pace: f64) {
        self.seen().entry(machine).or_default().saw(pace, Instant::now());
    }

    /// Records the observed rate at which a machine reads weights.
    pub fn has_shown(&self, machine: PeerId, bytes_per_s: f64) {
        self.seen().entry(machine).or_default().has_shown(bytes_per_s);
    }

    /// The credited part of a machine's claimed rate in bytes per second; `own` is this machine's rate.
    pub fn credible(&self, machine: PeerId, claimed: f64, own: Option<f64>) -> f64 {
        let shown = self.seen().get(&machine).and_then(|seen| seen.shown_bytes_per_s);
        credible(claimed, shown, Some(own.unwrap_or(ASSUMED_BYTES_PER_S)))
    }

    /// Quarantines a machine that computed wrong numbers.
    pub fn quarantine(&self, machine: PeerId) {
        self.seen().entry(machine).or_default().wrong_numbers_at = Some(Instant::now());
    }

    /// Marks a machine as doubted; returns whether it was not before.
    pub(crate) fn note_doubt(&self, machine: PeerId) -> bool {
        !std::mem::replace(&mut self.seen().entry(machine).or_default().doubted, true)
    }

    /// Whether a machine is quarantined for wrong numbers.
    pub(crate) fn is_quarantined(&self, machine: PeerId) -> bool {
        let at = self.seen().get(&machine).and_then(|seen| seen.wrong_numbers_at);
        at.is_some_and(|at| at.elapsed() < WRONG_NUMBERS_QUARANTINE)
    }
}

/// The credited part of a claimed rate: at most twice this machine's own rate or the observed one. A claim that is not
/// a number counts as almost none.
fn credible(claimed: f64, shown: Option<f64>, own: Option<f64>) -> f64 {
    let proven = shown.into_iter().chain(own).fold(0.0, f64::max);
    let claimed = if claimed.is_finite() { claimed.max(1.0) } else { 1.0 };
    if proven > 0.0 { claimed.min(proven * UNPROVEN_TIMES) } else { claimed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_fails_is_left_out_longer_each_time_and_not_for_ever() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert_eq!(seen.quarantined_for(start), None);
        seen.failed(Failing::Loading, start);
        assert_eq!(seen.quarantined_for(start), Some(FIRST_QUARANTINE));
        assert_eq!(seen.quarantined_for(start + FIRST_QUARANTINE), None);
        let again = start + Duration::from_mins(1);
        seen.failed(Failing::Loading, again);
        assert_eq!(seen.quarantined_for(again), Some(FIRST_QUARANTINE * 2));
        (0..20).for_each(|_| seen.failed(Failing::Loading, again));
        assert_eq!(seen.quarantined_for(again), Some(LONGEST_QUARANTINE));
        let later = again + FORGOTTEN;
        seen.failed(Failing::Loading, later);
        assert_eq!(seen.quarantined_for(later), Some(FIRST_QUARANTINE));
    }

    #[test]
    fn what_did_not_load_may_be_asked_again_and_what_computed_nonsense_may_not() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.failed(Failing::Loading, start);
        assert!(seen.may_be_asked_again(start));
        seen.failed(Failing::Computing, start);
        assert!(!seen.may_be_asked_again(start));
        assert!(seen.may_be_asked_again(start + FORGOTTEN));
        seen.wrong_numbers_at = Some(start);
        assert!(!seen.may_be_asked_again(start + FORGOTTEN));
    }

    #[test]
    fn a_machine_that_was_not_to_blame_for_impossible_numbers_is_not_left_out_for_them() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let later = start + Duration::from_secs(9);
        seen.failed(Failing::Loading, later);
        seen.failed(Failing::Computing, later);
        seen.take_back(start + Duration::from_secs(5));
        assert!(seen.may_be_asked_again(later));
        assert_eq!(seen.quarantined_for(later), Some(FIRST_QUARANTINE));
        seen.failed(Failing::Computing, start);
        seen.take_back(later);
        assert!(!seen.may_be_asked_again(later), "an earlier failure stays");
    }

    #[test]
    fn a_machine_without_the_room_it_says_is_planned_with_for_less_and_not_left_out() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.had_no_room(100, start);
        assert_eq!((seen.room_bytes(start), seen.quarantined_for(start)), (99, None));
        assert_eq!(seen.room_bytes(start + ROOM_DOUBTED), u64::MAX);
        seen.had_no_room(200, start);
        assert_eq!(seen.room_bytes(start), 99, "it has not grown by that");
        seen.had_no_room(200, start + ROOM_DOUBTED);
        assert_eq!(seen.room_bytes(start + ROOM_DOUBTED), 199);
    }

    #[test]
    fn a_claim_counts_as_far_as_this_machine_or_what_was_seen_makes_it_credible() {
        assert_eq!(credible(15e9, None, Some(10e9)), 15e9);
        assert_eq!(credible(500e9, None, Some(10e9)), 20e9, "not yet seen");
        assert_eq!(credible(500e9, Some(20e9), Some(10e9)), 40e9, "what was seen makes more of it credible");
        assert_eq!(credible(500e9, Some(400e9), Some(10e9)), 500e9);
        assert_eq!(credible(5e9, Some(400e9), Some(10e9)), 5e9, "a machine that says it is slow is believed");
        assert_eq!(credible(500e9, None, None), 500e9, "nothing to go by");
        for nonsense in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
            assert_eq!(credible(nonsense, None, Some(10e9)), 1.0);
        }
    }

    #[test]
    fn a_machine_shows_what_it_can_and_being_slow_later_does_not_take_that_back() {
        let mut seen = Seen::default();
        seen.has_shown(20e9);
        seen.has_shown(15e9);
        seen.saw(1.0, Instant::now());
        assert_eq!(seen.shown_bytes_per_s, Some(20e9));
    }

    #[test]
    fn a_machine_that_computed_wrong_numbers_is_left_out_for_a_day() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.wrong_numbers_at = Some(start);
        seen.failed(Failing::Computing, start);
        assert_eq!(seen.quarantined_for(start), Some(WRONG_NUMBERS_QUARANTINE));
        assert_eq!(seen.quarantined_for(start + WRONG_NUMBERS_QUARANTINE), None);
    }

    #[test]
    fn what_was_too_slow_is_forgiven_slowly_and_more_slowly_each_time() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.saw(0.2, start);
        assert!((seen.pace(start) - 0.2).abs() < 1e-9);
        assert!((seen.pace(start + FORGIVEN) - 0.6).abs() < 1e-9);
        seen.saw(0.2, start + FORGIVEN);
        assert!((seen.pace(start + FORGIVEN * 2) - 0.434).abs() < 0.01);
        seen.saw(1.0, start + FORGIVEN * 2);
        assert!((seen.pace(start + FORGIVEN * 2) - 1.0).abs() < 1e-9);
    }
}
