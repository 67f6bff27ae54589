//! What becomes a line of the log, and what is only counted. Pure: entries and the time go in, lines come out.
//!
//! An approved machine that loads and frees layers all day, or asks a thousand times a second for what it does not get,
//! must not fill the disk, and not hide in the noise what matters. So refusals and use are counted, and what else another
//! machine can cause has a number of lines a day, each machine its own. What the owner decides has the most.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::entry::{Asked, AuditEvent, Entry, Kind, Machine, PairingEnd};

/// Lines a day about layers that one machine loads and frees: ten model changes an hour.
const VISIT_LINES: u32 = 240;
/// Lines a day about what one machine is refused.
const REFUSAL_LINES: u32 = 100;
/// Lines a day about all machines that ask to pair: they cost nothing but a new key each.
const STRANGER_LINES: u32 = 100;
/// Lines a day about what the owner, or a program with a token, does.
const OWNER_LINES: u32 = 2000;

/// Seconds that are counted together. Use is written more often: less of it is forgotten when the node is killed.
const REFUSED_SLOT_S: i64 = 3600;
const USED_SLOT_S: i64 = 600;

/// Whose lines of the day an entry takes one of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Budget {
    Owner,
    Strangers,
    Visits(String),
    Refusals(String),
}

impl Budget {
    /// `None` for what is rare by itself: what was used, once in ten minutes and machine.
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

/// Entries that are being counted.
#[derive(Debug, Clone)]
struct Group {
    slot: i64,
    /// What was counted and is in no line; its count is 0 where there is nothing.
    entry: Entry,
}

impl Group {
    fn slot(event: &AuditEvent, at: Timestamp) -> i64 {
        let seconds = if matches!(event, AuditEvent::Used { .. }) { USED_SLOT_S } else { REFUSED_SLOT_S };
        at.as_second().div_euclid(seconds)
    }

    /// Whether its time is over. A clock that was put back ends it, too.
    fn is_over(&self, now: Timestamp) -> bool {
        self.slot != Self::slot(&self.entry.event, now)
    }
}

/// The day's account.
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
    /// Goes on with a day whose lines so far are these: a node that is started anew has no new lines to give away.
    pub(super) fn resume(today: &[Entry], now: Timestamp) -> Self {
        let mut lines = HashMap::new();
        for budget in today.iter().filter_map(Budget::of) {
            *lines.entry(budget).or_default() += 1;
        }
        Self { day: day(now), lines, groups: HashMap::new(), left_out: HashMap::new() }
    }

    /// Takes an entry; gives the lines to write now.
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
        // The first refusal is news; what was used is told when there is some of it.
        let is_news = matches!(entry.event, AuditEvent::Refused { .. });
        let count = if is_news { 0 } else { entry.count };
        self.groups
            .insert(kind, Group { slot: Group::slot(&entry.event, entry.at), entry: Entry { count, ..entry.clone() } });
        lines.extend(Some(entry).filter(|_| is_news).and_then(|entry| self.spend(entry)));
        lines
    }

    /// Looks at the clock; gives the lines that are due.
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

    /// Everything that is counted so far, as lines.
    pub(super) fn flush(&mut self) -> Vec<Entry> {
        let counted: Vec<Entry> = self.groups.drain().map(|(_, group)| group.entry).collect();
        let counted = counted.into_iter().filter(|entry| entry.count > 0);
        let mut lines: Vec<Entry> = counted.filter_map(|entry| self.spend(entry)).collect();
        lines.extend(self.left_out.drain().map(|(_, entry)| entry));
        lines
    }

    /// What is counted and not written, for a reader.
    pub(super) fn pending(&self) -> Vec<Entry> {
        self.clone().flush()
    }

    /// Takes one of the day's lines for an entry, or counts that there was none left.
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
        // The next day begins with what was left out, and with new lines.
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
