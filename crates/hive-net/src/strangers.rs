//! What those who were not approved may take of this machine: counted by where they are, so that one of them takes
//! nothing from the others, and nothing from an approved machine.
//!
//! [`Places`] decides, as a value: whoever comes is let in, and where that is one too many, the oldest of the address
//! that has most goes. So a flood from one address costs that address, and a flood from many passes through quickly.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Handshakes one address may begin at once. A swarm of dozens of machines behind one address stays below it.
const BURST: f64 = 60.0;
/// Handshakes per second one address regains.
const REGAINED_PER_S: f64 = 4.0;
/// Handshakes that all strangers together may begin at once, and regain per second. iroh keeps what it knows of each for a
/// minute after it has gone, some tens of kilobytes.
const BURST_OF_ALL: f64 = 128.0;
const ALL_REGAIN_PER_S: f64 = 2.0;
/// Addresses remembered; beyond that, the ones that have regained everything are forgotten, and nobody new comes in
/// until some have.
const REMEMBERED_ADDRESSES: usize = 4096;
/// Between two searches for addresses to forget: each looks at all of them.
const FORGET_PAUSE: Duration = Duration::from_secs(1);

/// Where somebody is, as far as they cannot choose it: an IPv4 address, the /64 of an IPv6 address, or behind a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(Option<IpAddr>);

impl Place {
    /// The place of an address.
    pub fn of(ip: IpAddr) -> Self {
        let place = match ip.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self(Some(place))
    }

    /// Everything that comes through relays.
    pub const RELAYED: Self = Self(None);
}

/// A bounded number of things that strangers hold, oldest first.
#[derive(Debug)]
pub struct Places<T> {
    most: usize,
    most_each: usize,
    held: VecDeque<(Place, T)>,
}

impl<T: PartialEq> Places<T> {
    /// At most so many in all, and of one place.
    pub fn new(most: usize, most_each: usize) -> Self {
        Self { most, most_each, held: VecDeque::new() }
    }

    /// Takes in one more, and gives the one that has to go for it.
    pub fn take(&mut self, place: Place, held: T) -> Option<T> {
        let mut counts: HashMap<Place, usize> = HashMap::new();
        for (place, _) in &self.held {
            *counts.entry(*place).or_default() += 1;
        }
        let here = counts.get(&place).copied().unwrap_or_default();
        let from = if here >= self.most_each {
            Some(place)
        } else if self.held.len() >= self.most {
            // Of places with equally many, the one whose oldest is oldest.
            let most = counts.values().copied().max().unwrap_or_default();
            let crowded = |(place, _): &&(Place, T)| counts[place] == most;
            // Whoever has as many already as the most crowded place pays itself.
            if here == most { Some(place) } else { self.held.iter().find(crowded).map(|(place, _)| *place) }
        } else {
            None
        };
        let oldest = from.and_then(|from| self.held.iter().position(|(place, _)| *place == from));
        let gone = oldest.and_then(|oldest| self.held.remove(oldest)).map(|(_, held)| held);
        self.held.push_back((place, held));
        gone
    }

    /// One is not held any more.
    pub fn release(&mut self, held: &T) {
        self.held.retain(|(_, other)| other != held);
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// How many handshakes may be begun: a bucket that refills.
#[derive(Debug)]
struct Bucket {
    most: f64,
    regained_per_s: f64,
    left: f64,
    since: Instant,
}

impl Bucket {
    fn new(most: f64, regained_per_s: f64, now: Instant) -> Self {
        Self { most, regained_per_s, left: most, since: now }
    }

    fn admits(&mut self, now: Instant) -> bool {
        let regained = now.saturating_duration_since(self.since).as_secs_f64() * self.regained_per_s;
        self.left = (self.left + regained).min(self.most);
        self.since = now;
        let admitted = self.left >= 1.0;
        if admitted {
            self.left -= 1.0;
        }
        admitted
    }
}

/// How many handshakes strangers may begin, at each place and all together.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    places: HashMap<Place, Bucket>,
    all: Option<Bucket>,
    forgot: Option<Instant>,
}

impl Gate {
    /// Whether a handshake from a place may go on. One that is expected does not wait for the other strangers.
    pub(crate) fn admits(&mut self, place: Place, is_expected: bool, now: Instant) -> bool {
        if self.places.len() >= REMEMBERED_ADDRESSES && !self.places.contains_key(&place) {
            if self.forgot.is_some_and(|forgot| now.saturating_duration_since(forgot) < FORGET_PAUSE) {
                return false;
            }
            self.forgot = Some(now);
            let full = Duration::from_secs_f64(BURST / REGAINED_PER_S);
            self.places.retain(|_, bucket| now.saturating_duration_since(bucket.since) < full);
            if self.places.len() >= REMEMBERED_ADDRESSES {
                return false;
            }
        }
        let here = self.places.entry(place).or_insert_with(|| Bucket::new(BURST, REGAINED_PER_S, now));
        let all = self.all.get_or_insert_with(|| Bucket::new(BURST_OF_ALL, ALL_REGAIN_PER_S, now));
        here.admits(now) && (is_expected || all.admits(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::of(text.parse().unwrap())
    }

    #[test]
    fn a_whole_ipv6_network_is_one_place() {
        assert_eq!(place("fd77::1"), place("fd77::ffff:1:2:3"));
        assert_ne!(place("fd77::1"), place("fd77:0:0:1::1"));
        assert_ne!(place("10.0.0.1"), place("10.0.0.2"));
        assert_eq!(place("::ffff:10.0.0.1"), place("10.0.0.1"));
    }

    #[test]
    fn a_flood_from_one_place_is_stopped_and_others_are_not() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let admitted = (0..1000).filter(|_| gate.admits(place("10.0.0.9"), false, now)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(gate.admits(place("10.0.0.1"), false, now));
        assert!(!gate.admits(place("10.0.0.9"), false, now));
        assert!(gate.admits(place("10.0.0.9"), false, now + Duration::from_secs(1)));
        // Every address of an IPv6 network is its owner's to choose.
        let admitted = (0..1000u32).filter(|n| gate.admits(place(&format!("fd77::{n:x}")), false, now)).count();
        assert_eq!(admitted, BURST as usize);
    }

    #[test]
    fn a_flood_from_everywhere_is_stopped_and_whoever_is_expected_is_not() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let from = |n: u32| Place::of(IpAddr::from(n.to_be_bytes()));
        assert_eq!((0..1000).filter(|n| gate.admits(from(*n), false, now)).count(), BURST_OF_ALL as usize);
        assert!(!gate.admits(from(2000), false, now) && gate.admits(from(2000), true, now));
        assert!(gate.admits(from(3000), false, now + Duration::from_secs(1)));
    }

    #[test]
    fn addresses_are_not_remembered_for_ever_however_fast_they_come() {
        let now = Instant::now();
        for pause_ms in [0, 1, 10] {
            let mut gate = Gate::default();
            for n in 0..REMEMBERED_ADDRESSES as u32 * 3 {
                let then = now + Duration::from_millis(u64::from(n) * pause_ms);
                gate.admits(Place::of(IpAddr::from(n.to_be_bytes())), false, then);
            }
            assert!(gate.places.len() <= REMEMBERED_ADDRESSES);
        }
    }

    #[test]
    fn the_oldest_of_the_most_crowded_place_makes_room() {
        let mut places = Places::new(4, 2);
        let (one, two, three) = (place("10.0.0.1"), place("10.0.0.2"), place("10.0.0.3"));
        assert_eq!([places.take(one, 1), places.take(two, 2), places.take(one, 3)], [None; 3]);
        assert_eq!(places.take(one, 4), Some(1), "the third of one place costs its first");
        assert_eq!(places.take(three, 5), None);
        assert_eq!(places.take(three, 6), Some(3), "the fifth of all costs the most crowded place");
        places.release(&6);
        assert_eq!((places.take(two, 7), places.len()), (None, 4));
    }

    #[test]
    fn a_newcomer_gets_in_while_others_hold_everything() {
        let mut places = Places::new(64, 8);
        let flood = |n: u32| Place::of(IpAddr::from((0x0a00_0000 + n % 50).to_be_bytes()));
        for n in 0..10_000 {
            places.take(flood(n), n);
        }
        assert_eq!(places.len(), 64);
        let gone = places.take(place("10.0.1.1"), 10_000);
        assert!(gone.is_some_and(|gone| gone < 10_000) && places.len() == 64);
        // One place cannot push the others out.
        let mut gone: Vec<u32> = (0..1000).filter_map(|n| places.take(place("10.0.2.2"), 20_000 + n)).collect();
        gone.retain(|gone| *gone < 20_000);
        assert!(gone.len() <= 8, "{gone:?}");
    }
}
