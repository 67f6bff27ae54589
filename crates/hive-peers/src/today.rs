//! Each machine's work of today for the owner of this one: answers that it took part in, and their tokens. A restart
//! keeps it; a new day begins at zero.

use std::collections::BTreeMap;

use hive_net::PeerId;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

pub(crate) const FILE: &str = "today.json";

/// One machine's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayWork {
    /// Answers that it took part in.
    pub answers: u64,
    /// Tokens of these answers.
    pub tokens: u64,
}

/// A day, and each machine's work on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Day {
    date: Option<Date>,
    machines: BTreeMap<PeerId, DayWork>,
}

/// The local date.
pub(crate) fn date() -> Date {
    jiff::ZonedDateTime::now().date()
}

impl Day {
    /// Counts an answer for each machine that took part in it.
    pub(crate) fn count(&mut self, date: Date, machines: impl IntoIterator<Item = PeerId>, tokens: u64) {
        if self.date != Some(date) {
            *self = Self { date: Some(date), machines: BTreeMap::new() };
        }
        for machine in machines {
            let work = self.machines.entry(machine).or_default();
            work.answers += 1;
            work.tokens += tokens;
        }
    }

    /// Each machine's work on this date.
    pub(crate) fn on(&self, date: Date) -> Vec<(PeerId, DayWork)> {
        let is_today = self.date == Some(date);
        self.machines.iter().filter(|_| is_today).map(|(machine, work)| (*machine, *work)).collect()
    }
}

#[cfg(test)]
mod tests {
    use hive_net::Identity;

    use super::*;

    #[test]
    fn answers_of_a_day_are_added_up_per_machine_kept_and_forgotten_with_it() {
        let [one, two] = [(); 2].map(|()| Identity::generate().id());
        let friday = Date::constant(2026, 11, 27);
        let mut day = Day::default();
        day.count(friday, [one, two], 30);
        day.count(friday, [one], 12);
        let day: Day = serde_json::from_str(&serde_json::to_string(&day).unwrap()).unwrap();
        let mut done = day.on(friday);
        done.sort_by_key(|(_, work)| work.answers);
        assert_eq!(done, [(two, DayWork { answers: 1, tokens: 30 }), (one, DayWork { answers: 2, tokens: 42 })]);
        let saturday = Date::constant(2026, 11, 28);
        assert_eq!(day.on(saturday), []);
        let mut day = day;
        day.count(saturday, [two], 5);
        assert_eq!(day.on(saturday), [(two, DayWork { answers: 1, tokens: 5 })]);
    }

    #[tokio::test]
    async fn an_answer_counts_for_each_machine_of_it_and_is_seen_at_once() {
        let studio = crate::testing::Machine::start("Studio").await;
        let (attic, seen) = (Identity::generate().id(), studio.view().subscribe());
        studio.count_answer([studio.id(), attic], 42);
        let mut done = studio.today();
        done.retain(|(machine, _)| *machine == attic);
        assert_eq!(done, [(attic, DayWork { answers: 1, tokens: 42 })]);
        assert!(seen.has_changed().unwrap());
        studio.stop().await;
    }
}
