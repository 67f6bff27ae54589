//! Recent deaths per machine, so that a stage is not restarted for ever where it keeps dying.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Deaths within [`RECENT`] after which a machine is the last choice; one or two may be chance.
pub(crate) const TOO_MANY: usize = 3;

/// How long a death counts. A worker that lives for longer than this is useful.
const RECENT: Duration = Duration::from_mins(1);

/// When stages died, by machine.
#[derive(Debug)]
pub(crate) struct Deaths<M>(HashMap<M, Vec<Instant>>);

impl<M: Copy + Eq + Hash> Deaths<M> {
    /// Nothing has died yet.
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Counts `deaths` at `now` against a machine.
    pub(crate) fn add(&mut self, machine: M, deaths: usize, now: Instant) {
        let times = self.0.entry(machine).or_default();
        times.retain(|at| is_recent(*at, now));
        times.extend(std::iter::repeat_n(now, deaths));
    }

    /// Whether stages keep dying on a machine.
    pub(crate) fn are_too_many(&self, machine: M, now: Instant) -> bool {
        let recent = |times: &Vec<Instant>| times.iter().filter(|at| is_recent(**at, now)).count();
        self.0.get(&machine).map_or(0, recent) >= TOO_MANY
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < RECENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_deaths_within_a_minute_are_too_many() {
        let (mut deaths, start) = (Deaths::new(), Instant::now());
        deaths.add('a', 1, start);
        deaths.add('a', 1, start + Duration::from_secs(20));
        assert!(!deaths.are_too_many('a', start + Duration::from_secs(20)));
        deaths.add('a', 1, start + Duration::from_secs(40));
        assert!(deaths.are_too_many('a', start + Duration::from_secs(40)));
        assert!(deaths.are_too_many('a', start + Duration::from_secs(59)));
        assert!(!deaths.are_too_many('a', start + Duration::from_mins(1)), "the first one is a minute old");
        assert!(!deaths.are_too_many('b', start + Duration::from_secs(40)), "another machine is not to blame");
    }
}
