//! Decides which entries become lines of the log and which are only counted. Pure: entries and the time go in, lines
//! come out.
//!
//! An approved machine that loads and frees layers all day, or sends a thousand forbidden requests a second, must
//! neither fill the disk nor hide what matters. So refusals and usage are counted, and everything else that another
//! machine can cause has a daily budget of lines, one per machine. The owner's actions have the largest budget.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::entry::{Asked, AuditEvent, Entry, Kind, Machine, PairingEnd};

/// Lines per day about layers that one machine loads and frees: ten model changes an hour.
const VISIT_LINES: u32 = 240;
/// Lines per day about refusals of one machine.
const REFUSAL_LINES: u32 = 100;
/// Lines per day about all machines that ask to pair together, since each costs its sender only a new key.
const STRANGER_LINES: u32 = 100;
/// Lines per day about actions of the owner, or of a program with a token.
const OWNER_LINES: u32 = 2000;

/// Seconds per count. Usage is written more often, so that less is lost when the node is killed.
const REFUSED_SLOT_S: i64 = 3600;
const USED_SLOT_S: i64 = 600;

/// The daily budget that an entry's line is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Budget {
    Owner,
    Strangers,
    Visits(String),
    Refusals(String),
}

impl Budget {
    /// `None` for entries that are rare by nature; usage is logged once per ten minutes and machine.
    fn of(entry: &Entry) -> Option<Self> {
        let machine = || entry.machine.as_ref().map(|machine| machine.id.clone()).unwrap_or_default();
        Some(match entry.event {
            AuditEvent::PairingAsked { by_them: true, .. }
            | AuditEvent::NameTaken { .. }
            | AuditEvent::PairingEnded { how: PairingEnd::DeniedThere | PairingEnd::TimedOut | PairingEnd::BrokeOff }
            | AuditEvent::Refused { asked: Asked::Pairing, .. } => Self::Strangers,
            AuditEvent::Loaded { .. } | AuditEvent::Freed { .. } => Self::Visits(machine()),
            AuditEvent::Refused { .. } => Self::Refusals(machine()),
            AuditEvent::Used { .. } | AuditEvent::LeftOut { .. } | AuditEvent::Lost { .. } => return None,
            _ => Self::Owner,
        })
    }

    fn lines(&self) -> u32 {
        match self {
            Self::Owner => OWNER_LINES,
            Self::Strangers => STRANGER_LINES,
            Self::Visits(_) => VISIT_LINES,
            Self::Refusals(_) => REFUSAL_LINES,
        }
    }
}

/// Entries that are being counted together.
#[derive(Debug, Clone)]
struct Group {
    slot: i64,
    /// The entries counted but not yet written, merged into one; its count is 0 if there are none.
    entry: Entry,
}

impl Group {
    fn slot(event: &AuditEvent, at: Timestamp) -> i64 {
        let seconds = if matches!(event, AuditEvent::Used { .. }) { USED_SLOT_S } else { REFUSED_SLOT_S };
        at.as_second().div_euclid(seconds)
    }

    /// Whether its slot is over. A clock that is set back ends it, too.
    fn is_over(&self, now: Timestamp) -> bool {
        self.slot != Self::slot(&self.entry.event, now)
    }
}

/// The lines and counts of one day.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    day: Date,
    lines: HashMap<Budget, u32>,
    groups: HashMap<Kind, Group>,
    left_out: HashMap<Budget, Entry>,
}

fn day(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

impl Ledger {
    /// Resumes a day after a restart. `today` has its lines so far, which count against the budgets.
    pub(super) fn resume(today: &[Entry], now: Timestamp) -> Self {
        let mut lines = HashMap::new();
        for budget in today.iter().filter_map(Budget::of) {
            *lines.entry(budget).or_default() += 1;
        }
        Self { day: day(now), lines, groups: HashMap::new(), left_out: HashMap::new() }
    }

    /// Adds an entry; returns the lines to write now.
    pub(super) fn note(&mut self, entry: Entry) -> Vec<Entry> {
        let mut lines = self.turn(entry.at);
        let Some(kind) = Kind::of(&entry) else {
            lines.extend(self.spend(entry));
            return lines;
        };
        if let Some(group) = self.groups.get_mut(&kind) {
            if group.entry.count == 0 {
                group.entry = entry;
            } else {
                group.entry.add(&entry);
            }
            return lines;
        }
        // The first refusal gets a line at once; usage gets one at the end of its slot.
        let is_news = matches!(entry.event, AuditEvent::Refused { .. });
        let count = if is_news { 0 } else { entry.count };
        self.groups
            .insert(kind, Group { slot: Group::slot(&entry.event, entry.at), entry: Entry { count, ..entry.clone() } });
        lines.extend(Some(entry).filter(|_| is_news).and_then(|entry| self.spend(entry)));
        lines
    }

    /// Closes slots and days that are over; returns the lines that are due.
    pub(super) fn turn(&mut self, now: Timestamp) -> Vec<Entry> {
        let over = self.groups.extract_if(|_, group| group.is_over(now));
        let mut due: Vec<Entry> = over.map(|(_, group)| group.entry).filter(|entry| entry.count > 0).collect();
        due.sort_by_key(|entry| entry.at);
        let mut lines: Vec<Entry> = due.into_iter().filter_map(|entry| self.spend(entry)).collect();
        if self.day != day(now) {
            self.day = day(now);
            self.lines.clear();
            lines.extend(self.left_out.drain().map(|(_, entry)| entry));
        }
        lines
    }

    /// All counts so far, as lines.
    pub(super) fn flush(&mut self) -> Vec<Entry> {
        let counted: Vec<Entry> = self.groups.drain().map(|(_, group)| group.entry).collect();
        let counted = counted.into_iter().filter(|entry| entry.count > 0);
        let mut lines: Vec<Entry> = counted.filter_map(|entry| self.spend(entry)).collect();
        lines.extend(self.left_out.drain().map(|(_, entry)| entry));
        lines
    }

    /// Counts that are not written yet, for readers.
    pub(super) fn pending(&self) -> Vec<Entry> {
        self.clone().flush()
    }

    /// Takes a line from the entry's budget, or counts the entry as dropped.
    fn spend(&mut self, entry: Entry) -> Option<Entry> {
        let Some(budget) = Budget::of(&entry) else { return Some(entry) };
        let spent = self.lines.entry(budget.clone()).or_default();
        if *spent < budget.lines() {
            *spent += 1;
            return Some(entry);
        }
        let machine: Option<Machine> = entry.machine.filter(|_| budget != Budget::Strangers && budget != Budget::Owner);
        let left_out = || Entry::at(entry.at, machine, AuditEvent::LeftOut { entries: 0 });
        if let AuditEvent::LeftOut { entries } = &mut self.left_out.entry(budget).or_insert_with(left_out).event {
            *entries += entry.count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Refusal;

    fn machine(name: &str) -> Machine {
        Machine { id: format!("id-{name}"), name: name.to_owned(), fingerprint: "a-b-c".to_owned() }
    }

    fn at(seconds: i64) -> Timestamp {
        // 2026-11-27, midnight.
        Timestamp::from_second(1_795_737_600 + seconds).unwrap()
    }

    fn refused(name: &str, seconds: i64) -> Entry {
        Entry::at(at(seconds), Some(machine(name)), AuditEvent::Refused { asked: Asked::Load, why: Refusal::NoRoom })
    }

    fn loaded(name: &str, seconds: i64) -> Entry {
        let event = AuditEvent::Loaded { model: "m".to_owned(), layers: [0, 4], bytes: 7, standby: false };
        Entry::at(at(seconds), Some(machine(name)), event)
    }

    fn used(name: &str, seconds: i64, tokens: u64) -> Entry {
        Entry::at(at(seconds), Some(machine(name)), AuditEvent::Used { sessions: 1, tokens, seconds: 2 })
    }

    #[test]
    fn repeated_refusals_become_two_lines_an_hour_and_none_is_forgotten() {
        let mut ledger = Ledger::resume(&[], at(0));
        let mut lines = Vec::new();
        for index in 0..100_000 {
            lines.extend(ledger.note(refused("mallory", index / 100)));
        }
        assert_eq!(lines.len(), 1, "the first is news");
        assert_eq!(ledger.pending()[0].count, 99_999);
        lines.extend(ledger.turn(at(3600)));
        assert_eq!(lines.iter().map(|line| line.count).collect::<Vec<_>>(), [1, 99_999]);
        assert!(ledger.turn(at(7200)).is_empty() && ledger.pending().is_empty());
    }

    #[test]
    fn a_machine_that_loads_all_day_takes_no_line_of_anyone_else() {
        let mut ledger = Ledger::resume(&[], at(0));
        let written = (0..10_000).flat_map(|index| ledger.note(loaded("mallory", index))).count();
        assert_eq!(written, VISIT_LINES as usize);
        assert_eq!(ledger.note(loaded("bob", 10_000)).len(), 1);
        assert_eq!(ledger.note(Entry::at(at(10_001), Some(machine("mallory")), AuditEvent::Removed)).len(), 1);
        let AuditEvent::LeftOut { entries } = ledger.pending()[0].event else { panic!("{:?}", ledger.pending()) };
        assert_eq!(entries, 10_000 - u64::from(VISIT_LINES));
        // The next day starts with a count of dropped entries, and with new budgets.
        let morning = ledger.note(loaded("mallory", 86_400));
        assert!(matches!(morning[0].event, AuditEvent::LeftOut { .. }), "{morning:?}");
        assert_eq!(morning[0].machine, Some(machine("mallory")));
        assert_eq!(morning.len(), 2);
    }

    #[test]
    fn strangers_with_a_new_key_each_share_their_lines() {
        let mut ledger = Ledger::resume(&[], at(0));
        let asked = |index: i64| {
            let event = AuditEvent::PairingAsked { by_them: true, invited: false, code: "482 915".to_owned() };
            Entry::at(at(index), Some(machine(&format!("stranger {index}"))), event)
        };
        let written = (0..5_000).flat_map(|index| ledger.note(asked(index))).count();
        assert_eq!(written, STRANGER_LINES as usize);
        assert_eq!(ledger.pending()[0].machine, None);
        let approved = AuditEvent::Approved { code: "482 915".to_owned() };
        assert_eq!(ledger.note(Entry::at(at(5_000), Some(machine("bob")), approved)).len(), 1);
    }

    #[test]
    fn a_restart_gives_no_new_lines_away() {
        let mut ledger = Ledger::resume(&[], at(0));
        let today: Vec<Entry> = (0..10_000).flat_map(|index| ledger.note(loaded("mallory", index))).collect();
        let mut again = Ledger::resume(&today, at(10_000));
        assert!(again.note(loaded("mallory", 10_001)).is_empty());
    }

    #[test]
    fn use_is_added_up_and_written_every_ten_minutes() {
        let mut ledger = Ledger::resume(&[], at(0));
        assert!(ledger.note(used("bob", 1, 100)).is_empty());
        assert!(ledger.note(used("bob", 30, 50)).is_empty());
        let lines = ledger.turn(at(600));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].event, AuditEvent::Used { sessions: 2, tokens: 150, seconds: 4 });
        assert_eq!(lines[0].at, at(1));
    }
}
