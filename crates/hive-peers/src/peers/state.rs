//! The state behind [`super::Peers`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hive_net::pairing::Code;
use hive_net::{PeerAddr, PeerId, fingerprint};
use hive_protocol::Profile;
use tokio::sync::{Notify, oneshot};

use super::book::{self, Book, Entry};
use super::sightings::Sightings;
use super::view::{MeasuredPath, Notice};
use hive_types::Absence;

/// A pairing whose code is shown on both machines.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) name: String,
    pub(crate) code: Code,
    pub(crate) asked_by_them: bool,
    pub(crate) approved_here: bool,
    pub(crate) verdict: Option<oneshot::Sender<bool>>,
}

/// Whether an approved machine is present.
#[derive(Debug, Clone)]
pub(super) enum Contact {
    Present { incarnation: u64 },
    Away { absence: Absence },
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) book: Book,
    /// Approved machines that were removed, and when; their removal can be undone for a while.
    pub(super) removed: BTreeMap<PeerId, (Entry, Instant)>,
    pub(super) sightings: Sightings,
    /// Machines whose invitations were used here, with their addresses.
    pub(super) invited: BTreeMap<PeerId, PeerAddr>,
    /// Machines that this owner has asked or approved, and when.
    pub(super) wanted: BTreeMap<PeerId, Instant>,
    pub(super) pending: BTreeMap<PeerId, Pending>,
    pub(super) contact: BTreeMap<PeerId, Contact>,
    pub(super) profiles: BTreeMap<PeerId, Profile>,
    pub(super) paths: BTreeMap<PeerId, Vec<MeasuredPath>>,
    pub(super) notices: Vec<Notice>,
    pub(super) noticed: u64,
    /// Bells that tell a machine's task to dial at once.
    pub(super) dial: BTreeMap<PeerId, Arc<Notify>>,
}

/// Maximum number of notices kept for listeners that poll late.
const KEPT_NOTICES: usize = 64;
impl State {
    /// Records an approval in the book.
    pub(super) fn enter(&mut self, peer: PeerId, name: &str, addr: Option<&PeerAddr>) {
        self.book.approve(peer, name, addr, now_s());
        let text = format!("{} is approved.", self.name(peer));
        self.note(peer, text);
    }

    /// Notifies the owner if an approved machine with another key has the same name; returns that machine.
    pub(super) fn note_namesake(&mut self, peer: PeerId, name: &str) -> Option<PeerId> {
        let (approved, entry) = self.book.namesake(peer, name)?;
        let on = jiff::Timestamp::from_second(entry.since_s() as i64)
            .map(|at| at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%-d %B %Y").to_string());
        let text = format!(
            "Another machine ({}) calls itself {name}; it is not the one ({}) you approved on {}.",
            fingerprint(peer),
            fingerprint(approved),
            on.unwrap_or_default()
        );
        self.note(peer, text);
        Some(approved)
    }

    /// All machines, in a stable order.
    pub(super) fn known(&self) -> Vec<PeerId> {
        let mut ids: Vec<PeerId> = self.book.entries().map(|(peer, _)| peer).collect();
        ids.extend(self.pending.keys().filter(|peer| self.book.get(**peer).is_none()));
        let found: Vec<PeerId> = self.sightings.machines().filter(|peer| !ids.contains(peer)).collect();
        ids.extend(found);
        ids
    }

    pub(super) fn name(&self, peer: PeerId) -> String {
        let known = self.book.get(peer).map(book::Entry::shown_name);
        let asking = || self.pending.get(&peer).map(|pending| pending.name.as_str());
        let sighted = || self.sightings.get(peer).map(|sighted| sighted.name.as_str());
        let invited = || self.invited.contains_key(&peer).then_some("the machine that invited");
        known.or_else(asking).or_else(sighted).or_else(invited).map_or_else(|| fingerprint(peer), str::to_owned)
    }

    pub(super) fn note(&mut self, peer: PeerId, text: String) {
        self.noticed += 1;
        self.notices.push(Notice { number: self.noticed, peer: peer.to_text(), text });
        if self.notices.len() > KEPT_NOTICES {
            self.notices.remove(0);
        }
    }
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
