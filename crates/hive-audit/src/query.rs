//! Queries on the log.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Kind};

/// Selects entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Only entries from this time on.
    pub since: Option<Timestamp>,
    /// Only entries about this machine, given by its name, its three words, its key or the beginning of it.
    pub machine: Option<String>,
    /// At most this many entries, the newest.
    pub last: Option<usize>,
}

/// An entry with its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
    /// Its text, without the time.
    pub text: String,
}

/// The result of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Oldest first.
    pub entries: Vec<Line>,
    /// Whether older entries were cut off because there are too many.
    pub cut: bool,
    /// Lines that could not be read: damaged, or from a newer version.
    pub unreadable: u64,
    /// Entries that could not be written to disk so far.
    pub lost: u64,
}

/// Maximum number of entries returned; the newest are kept.
const MOST_ENTRIES: usize = 10_000;

impl Query {
    pub(super) fn answer(&self, mut entries: Vec<Entry>, unreadable: u64, lost: u64) -> Log {
        let wanted = |entry: &Entry| {
            let about = |who: &String| entry.machine.as_ref().is_some_and(|machine| machine.is_called(who));
            self.since.is_none_or(|since| entry.at >= since) && self.machine.as_ref().is_none_or(about)
        };
        entries.retain(wanted);
        entries.sort_by_key(|entry| entry.at);
        let mut entries = by_the_hour(entries);
        let most = self.last.map_or(MOST_ENTRIES, |last| last.min(MOST_ENTRIES));
        let cut = entries.len() > most;
        entries.drain(..entries.len().saturating_sub(most));
        let entries = entries.into_iter().map(|entry| Line { text: entry.words(), entry }).collect();
        Log { entries, cut, unreadable, lost }
    }
}

/// Merges counts of one kind and hour.
fn by_the_hour(entries: Vec<Entry>) -> Vec<Entry> {
    let mut first: HashMap<(Kind, i64), usize> = HashMap::new();
    let mut together: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let key = Kind::of(&entry).map(|kind| (kind, entry.at.as_second().div_euclid(3600)));
        if let Some(index) = key.as_ref().and_then(|key| first.get(key)) {
            together[*index].add(&entry);
        } else {
            first.extend(key.map(|key| (key, together.len())));
            together.push(entry);
        }
    }
    together
}
