//! Machines that announce themselves on this network. Anybody can send announcements.
//!
//! Invariants: an approved machine always has a place. A stranger is forgotten when its announcement ends; if too many
//! announce themselves, in total or at one address, the oldest are evicted. An announcement adds a few addresses at
//! most to those of a machine, and causes a dial only once in a while.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hive_net::PeerId;

/// Maximum number of addresses kept per machine.
const SOCKETS: usize = 8;
/// Maximum number of records per machine; an honest one has one.
const RECORDS: usize = 4;
/// Maximum number of strangers; more is a flood.
const STRANGERS: usize = 256;
/// Maximum number of strangers at one address. Several nodes on one machine share an address.
const STRANGERS_AT_ONE_ADDRESS: usize = 8;
/// Maximum number of evicted strangers remembered. They are not let in again while others need the room; otherwise a
/// crowd would take turns.
const MADE_ROOM: usize = 4096;
/// Minimum time between two dials caused by a machine's announcements.
const DIAL_PAUSE: Duration = Duration::from_secs(10);
/// How long dropped announcements are reported.
const DROPS_REPORTED_FOR: Duration = Duration::from_mins(10);

/// An announcement of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    /// The record's name.
    pub(crate) record: String,
    pub(crate) peer: PeerId,
    /// Its addresses on this network.
    pub(crate) sockets: Vec<SocketAddr>,
    pub(crate) name: String,
    pub(crate) version: u32,
}

/// A machine that announces itself.
#[derive(Debug)]
pub(super) struct Sighted {
    records: Vec<String>,
    pub(super) sockets: Vec<SocketAddr>,
    pub(super) name: String,
    pub(super) version: u32,
    /// Increases with every new machine.
    number: u64,
}

/// How announcements of a machine are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Undecided.
    Stranger,
    /// Approved, or about to be: never evicted.
    Kept,
    /// Blocked: its address matters to nobody.
    Ignored,
}

/// The effect of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// None: it is known already, or was dropped.
    Nothing,
    /// What people see has changed.
    Shown,
    /// That, and the machine may have a new address.
    Moved,
}

#[derive(Debug, Default)]
pub(super) struct Sightings {
    machines: BTreeMap<PeerId, Sighted>,
    /// When a machine's announcement last caused a dial.
    dialled: BTreeMap<PeerId, Instant>,
    /// Evicted strangers, oldest first.
    made_room: VecDeque<PeerId>,
    number: u64,
    left_out: u64,
    last_left_out: Option<Instant>,
}

impl Sightings {
    pub(super) fn get(&self, peer: PeerId) -> Option<&Sighted> {
        self.machines.get(&peer)
    }

    pub(super) fn machines(&self) -> impl Iterator<Item = PeerId> {
        self.machines.keys().copied()
    }

    /// The number of announcements dropped recently: of machines that were evicted or found no room.
    pub(super) fn left_out(&self, now: Instant) -> u64 {
        let recently = self.last_left_out.is_some_and(|last| now.saturating_duration_since(last) < DROPS_REPORTED_FOR);
        if recently { self.left_out } else { 0 }
    }

    /// Handles an announcement. `standing` returns how a machine is treated.
    pub(super) fn found(
        &mut self,
        announced: Announcement,
        standing: impl Fn(PeerId) -> Standing,
        now: Instant,
    ) -> News {
        let Announcement { record, peer, sockets, name, version } = announced;
        // A record that now names another machine no longer names the earlier one.
        let stale = self.machines.iter().find(|(other, sighted)| sighted.records.contains(&record) && **other != peer);
        if let Some(stale) = stale.map(|(other, _)| *other) {
            self.drop_record(stale, &record);
        }
        let ours = standing(peer);
        if ours == Standing::Ignored {
            return News::Nothing;
        }
        if !self.machines.contains_key(&peer) {
            // A stranger without an address on this network cannot be asked.
            if ours == Standing::Stranger && (sockets.is_empty() || self.has_made_room(peer, &sockets, &standing)) {
                self.leave_out(now);
                return News::Nothing;
            }
            self.number += 1;
            let sighted = Sighted { records: Vec::new(), sockets: Vec::new(), name, version, number: self.number };
            self.machines.insert(peer, sighted);
            let news = self.note(peer, record, sockets).max(News::Shown);
            self.make_room(peer, standing, now);
            return news;
        }
        let changed = self.machines.get_mut(&peer).is_some_and(|known| {
            let changed = known.name != name || known.version != version;
            (known.name, known.version) = (name, version);
            changed
        });
        let news = self.note(peer, record, sockets);
        if news == News::Moved {
            self.make_room(peer, standing, now);
        }
        if changed { news.max(News::Shown) } else { news }
    }

    /// Handles the withdrawal or expiry of a record; returns whether a machine went with it.
    pub(super) fn gone(&mut self, record: &str) -> bool {
        let named = self.machines.iter().find(|(_, sighted)| sighted.records.iter().any(|known| known == record));
        named.map(|(peer, _)| *peer).is_some_and(|peer| self.drop_record(peer, record))
    }

    /// Whether the announcement of a machine that has moved may cause a dial now.
    pub(super) fn may_dial(&mut self, peer: PeerId, now: Instant) -> bool {
        let ready = self.dialled.get(&peer).is_none_or(|last| now.saturating_duration_since(*last) >= DIAL_PAUSE);
        if ready {
            self.dialled.insert(peer, now);
        }
        ready
    }

    /// Forgets when a machine was dialled.
    pub(super) fn forget_dials(&mut self, peer: PeerId) {
        self.dialled.remove(&peer);
    }

    /// Merges an announcement into the record of a machine.
    fn note(&mut self, peer: PeerId, record: String, named: Vec<SocketAddr>) -> News {
        let Some(sighted) = self.machines.get_mut(&peer) else { return News::Nothing };
        if !sighted.records.contains(&record) && sighted.records.len() < RECORDS {
            sighted.records.push(record);
        }
        // Addresses that are still announced come first, so that a false one among true ones evicts none of them; then
        // new ones; then those announced before.
        let (still, before): (Vec<_>, Vec<_>) =
            sighted.sockets.iter().copied().partition(|known| named.contains(known));
        let fresh: Vec<SocketAddr> = named.into_iter().filter(|socket| !still.contains(socket)).collect();
        let news = if fresh.iter().any(|socket| !before.contains(socket)) { News::Moved } else { News::Nothing };
        let before = before.into_iter().filter(|socket| !fresh.contains(socket));
        let mut sockets: Vec<SocketAddr> = still.into_iter().chain(fresh.iter().copied()).chain(before).collect();
        sockets.truncate(SOCKETS);
        let news = if sockets == sighted.sockets { News::Nothing } else { news };
        sighted.sockets = sockets;
        news
    }

    fn drop_record(&mut self, peer: PeerId, record: &str) -> bool {
        let Some(sighted) = self.machines.get_mut(&peer) else { return false };
        sighted.records.retain(|known| known != record);
        let gone = sighted.records.is_empty();
        if gone {
            self.machines.remove(&peer);
        }
        gone
    }

    /// Evicts the oldest strangers while there are too many at the newcomer's addresses or in total.
    fn make_room(&mut self, newcomer: PeerId, standing: impl Fn(PeerId) -> Standing, now: Instant) {
        if standing(newcomer) != Standing::Stranger {
            return;
        }
        let addresses: Vec<IpAddr> = self.get(newcomer).map(Sighted::addresses).unwrap_or_default();
        for address in addresses {
            while let Some(oldest) = self
                .oldest(STRANGERS_AT_ONE_ADDRESS, newcomer, &standing, |sighted| sighted.addresses().contains(&address))
            {
                self.push_out(oldest, now);
            }
        }
        while let Some(oldest) = self.oldest(STRANGERS, newcomer, &standing, |_| true) {
            self.push_out(oldest, now);
        }
    }

    fn push_out(&mut self, peer: PeerId, now: Instant) {
        self.machines.remove(&peer);
        self.made_room.push_back(peer);
        if self.made_room.len() > MADE_ROOM {
            self.made_room.pop_front();
        }
        self.leave_out(now);
    }

    /// Whether a stranger was evicted, and there is still no room for it.
    fn has_made_room(&self, peer: PeerId, sockets: &[SocketAddr], standing: impl Fn(PeerId) -> Standing) -> bool {
        if !self.made_room.contains(&peer) {
            return false;
        }
        let strangers = || self.machines.iter().filter(|(peer, _)| standing(**peer) == Standing::Stranger);
        let at = |address: IpAddr| strangers().filter(|(_, sighted)| sighted.addresses().contains(&address)).count();
        let is_crowded = sockets.iter().any(|socket| at(socket.ip()) >= STRANGERS_AT_ONE_ADDRESS);
        is_crowded || strangers().count() >= STRANGERS
    }

    /// The oldest stranger of a kind, other than the newcomer, if there are more than `most`.
    fn oldest(
        &self,
        most: usize,
        newcomer: PeerId,
        standing: impl Fn(PeerId) -> Standing,
        kind: impl Fn(&Sighted) -> bool,
    ) -> Option<PeerId> {
        let strangers = self
            .machines
            .iter()
            .filter(|(peer, sighted)| kind(sighted) && standing(**peer) == Standing::Stranger)
            .map(|(peer, sighted)| (*peer, sighted.number));
        let strangers: Vec<(PeerId, u64)> = strangers.collect();
        let others = strangers.iter().filter(|(peer, _)| *peer != newcomer);
        let oldest = others.min_by_key(|(_, number)| *number).map(|(peer, _)| *peer);
        oldest.filter(|_| strangers.len() > most)
    }

    fn leave_out(&mut self, now: Instant) {
        if self.left_out(now) == 0 {
            self.left_out = 0;
        }
        self.left_out += 1;
        self.last_left_out = Some(now);
    }
}

impl Sighted {
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.sockets.iter().map(SocketAddr::ip).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_net::Identity;

    fn id() -> PeerId {
        Identity::generate().id()
    }

    fn announcement(peer: PeerId, sockets: &[SocketAddr]) -> Announcement {
        let record = format!("{}._hivemind._udp.local.", peer.to_text());
        Announcement { record, peer, sockets: sockets.to_vec(), name: "studio".to_owned(), version: 1 }
    }

    fn at(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, last], port))
    }

    fn stranger(_: PeerId) -> Standing {
        Standing::Stranger
    }

    #[test]
    fn a_flood_of_false_machines_hides_no_new_one_and_costs_no_approved_one_its_room() {
        let (mut sightings, now, friend) = (Sightings::default(), Instant::now(), id());
        let standing = |peer| if peer == friend { Standing::Kept } else { Standing::Stranger };
        sightings.found(announcement(friend, &[at(2, 4000)]), standing, now);
        for n in 0..1000u32 {
            sightings.found(announcement(id(), &[at((n % 250) as u8, 4000)]), standing, now);
        }
        assert_eq!(sightings.machines.len(), STRANGERS + 1);
        assert_eq!(sightings.left_out(now), 1000 - STRANGERS as u64);
        let real = id();
        assert_eq!(sightings.found(announcement(real, &[at(3, 4000)]), standing, now), News::Moved);
        assert!(sightings.get(real).is_some() && sightings.get(friend).is_some());
        assert_eq!(sightings.left_out(now + DROPS_REPORTED_FOR), 0, "it is not told for ever");
    }

    #[test]
    fn a_crowd_that_is_heard_again_and_again_pushes_nobody_out() {
        let (mut sightings, now, real) = (Sightings::default(), Instant::now(), id());
        let crowd: Vec<PeerId> = (0..1000).map(|_| id()).collect();
        let again = |sightings: &mut Sightings| {
            for (n, peer) in crowd.iter().enumerate() {
                sightings.found(announcement(*peer, &[at((n % 250) as u8, 4000)]), stranger, now);
            }
        };
        again(&mut sightings);
        sightings.found(announcement(real, &[at(3, 4000)]), stranger, now);
        again(&mut sightings);
        assert!(sightings.get(real).is_some() && sightings.machines.len() == STRANGERS);
        // While there is room, they are let in as before.
        sightings.machines.clear();
        again(&mut sightings);
        assert_eq!(sightings.machines.len(), STRANGERS);
    }

    #[test]
    fn a_flood_at_one_address_costs_nobody_elsewhere_anything() {
        let (mut sightings, now, real) = (Sightings::default(), Instant::now(), id());
        sightings.found(announcement(real, &[at(3, 4000)]), stranger, now);
        for n in 0..1000u16 {
            sightings.found(announcement(id(), &[at(66, 2000 + n)]), stranger, now);
        }
        assert!(sightings.get(real).is_some());
        assert_eq!(sightings.machines.len(), 1 + STRANGERS_AT_ONE_ADDRESS);
        // An address claimed later counts like one claimed at first.
        let peers: Vec<PeerId> = (0..20).map(|_| id()).collect();
        for (n, peer) in peers.iter().enumerate() {
            sightings.found(announcement(*peer, &[at(100 + n as u8, 4000)]), stranger, now);
        }
        for (n, peer) in peers.iter().enumerate() {
            let sockets = [at(100 + n as u8, 4000), at(99, 4000)];
            sightings.found(announcement(*peer, &sockets), stranger, now);
        }
        let claiming = sightings.machines.values().filter(|sighted| sighted.sockets.contains(&at(99, 4000))).count();
        assert_eq!(claiming, STRANGERS_AT_ONE_ADDRESS);
    }

    #[test]
    fn what_is_announced_no_more_is_forgotten() {
        let (mut sightings, now, peer) = (Sightings::default(), Instant::now(), id());
        let record = announcement(peer, &[at(3, 4000)]).record;
        sightings.found(announcement(peer, &[at(3, 4000)]), stranger, now);
        assert!(!sightings.gone("another") && sightings.gone(&record));
        assert!(sightings.get(peer).is_none() && !sightings.gone(&record));
        // Another record in its name comes and goes without effect.
        sightings.found(announcement(peer, &[at(3, 4000)]), stranger, now);
        let false_one = Announcement { record: "false".to_owned(), ..announcement(peer, &[at(66, 4000)]) };
        sightings.found(false_one, stranger, now);
        assert!(!sightings.gone("false") && sightings.get(peer).is_some());
        // A record that now names another machine.
        let other = id();
        sightings.found(Announcement { record, ..announcement(other, &[at(4, 4000)]) }, stranger, now);
        assert!(sightings.get(peer).is_none() && sightings.get(other).is_some());
    }

    #[test]
    fn an_announcement_adds_addresses_and_replaces_none_that_are_still_announced() {
        let (mut sightings, now, peer) = (Sightings::default(), Instant::now(), id());
        let real = [at(3, 4000), at(4, 4000)];
        sightings.found(announcement(peer, &real), stranger, now);
        let false_ones: Vec<SocketAddr> = (0..1000).map(|n| at(66, 2000 + n)).chain(real).collect();
        assert_eq!(sightings.found(announcement(peer, &false_ones), stranger, now), News::Moved);
        let sockets = sightings.get(peer).unwrap().sockets.clone();
        assert!(sockets.len() == SOCKETS && sockets[..2] == real, "{sockets:?}");
        assert_eq!(sightings.found(announcement(peer, &false_ones), stranger, now), News::Nothing);
        // It has restarted on another port.
        assert_eq!(sightings.found(announcement(peer, &[at(3, 5000)]), stranger, now), News::Moved);
        assert_eq!(sightings.get(peer).unwrap().sockets[0], at(3, 5000));
    }

    #[test]
    fn announcements_lead_to_a_dial_now_and_then() {
        let (mut sightings, now, peer) = (Sightings::default(), Instant::now(), id());
        let dials = (0..1000).filter(|ms| sightings.may_dial(peer, now + Duration::from_millis(*ms))).count();
        assert_eq!(dials, 1);
        assert!(sightings.may_dial(peer, now + DIAL_PAUSE));
    }

    #[test]
    fn a_stranger_that_is_nowhere_here_and_one_that_is_blocked_are_left_out() {
        let (mut sightings, now) = (Sightings::default(), Instant::now());
        assert_eq!(sightings.found(announcement(id(), &[]), stranger, now), News::Nothing);
        assert_eq!(sightings.left_out(now), 1);
        assert_eq!(sightings.found(announcement(id(), &[at(3, 4000)]), |_| Standing::Ignored, now), News::Nothing);
        assert!(sightings.machines.is_empty());
    }
}
