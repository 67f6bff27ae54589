//! Limits for strangers, counted by origin, so that one stranger takes nothing from the others, and none takes anything
//! from an approved machine.
//!
//! `PerOrigin` is the policy: every newcomer is let in, and above the limit the oldest entry of the most crowded origin
//! is evicted. So a flood from one address costs that address, and a flood from many passes through quickly.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use iroh::TransportAddr;
use iroh::endpoint::IncomingAddr;

use crate::token_bucket::TokenBucket;

/// Handshakes one address may begin in a burst. A swarm of dozens of machines behind one address stays below it.
const BURST: f64 = 60.0;
/// Handshakes one address regains per second.
const REGAINED_PER_S: f64 = 4.0;
/// Handshakes that all strangers together may begin in a burst, and regain per second. iroh keeps tens of kilobytes of
/// state for each until a minute after it has gone.
const BURST_OF_ALL: f64 = 128.0;
const ALL_REGAIN_PER_S: f64 = 2.0;
/// Tracked addresses. At the limit, those with full buckets are forgotten, and no new address is admitted until some
/// are.
const REMEMBERED_ADDRESSES: usize = 4096;
/// Minimum time between two scans for addresses to forget, each of which visits all of them.
const FORGET_PAUSE: Duration = Duration::from_secs(1);

/// A connection's origin, as far as its maker cannot choose it: an IPv4 address, an IPv6 /64, or a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(Option<IpAddr>);

impl Origin {
    /// The origin of an address.
    pub fn of(ip: IpAddr) -> Self {
        let origin = match ip.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        Self(Some(origin))
    }

    /// Everything that arrives through relays.
    pub(crate) const RELAYED: Self = Self(None);
}

impl From<&IncomingAddr> for Origin {
    fn from(from: &IncomingAddr) -> Self {
        match from {
            IncomingAddr::Ip(socket) => Self::of(socket.ip()),
            _ => Self::RELAYED,
        }
    }
}

impl From<&TransportAddr> for Origin {
    fn from(to: &TransportAddr) -> Self {
        match to {
            TransportAddr::Ip(socket) => Self::of(socket.ip()),
            _ => Self::RELAYED,
        }
    }
}

/// A bounded number of entries held by strangers, oldest first.
#[derive(Debug)]
pub(crate) struct PerOrigin<T> {
    most: usize,
    most_each: usize,
    held: VecDeque<(Origin, T)>,
}

impl<T: PartialEq> PerOrigin<T> {
    /// At most `most` entries in all, and `most_each` per origin.
    pub(crate) fn new(most: usize, most_each: usize) -> Self {
        Self { most, most_each, held: VecDeque::new() }
    }

    /// Adds an entry; returns the one evicted for it.
    pub(crate) fn insert(&mut self, origin: Origin, item: T) -> Option<T> {
        let mut counts: HashMap<Origin, usize> = HashMap::new();
        for (origin, _) in &self.held {
            *counts.entry(*origin).or_default() += 1;
        }
        let here = counts.get(&origin).copied().unwrap_or_default();
        let from = if here >= self.most_each {
            Some(origin)
        } else if self.held.len() >= self.most {
            // Ties are broken by the oldest entry.
            let most = counts.values().copied().max().unwrap_or_default();
            let crowded = |(origin, _): &&(Origin, T)| counts[origin] == most;
            // An origin that holds as many as the most crowded one evicts its own.
            if here == most { Some(origin) } else { self.held.iter().find(crowded).map(|(origin, _)| *origin) }
        } else {
            None
        };
        let oldest = from.and_then(|from| self.held.iter().position(|(origin, _)| *origin == from));
        let evicted = oldest.and_then(|oldest| self.held.remove(oldest)).map(|(_, item)| item);
        self.held.push_back((origin, item));
        evicted
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, item: &T) {
        self.held.retain(|(_, other)| other != item);
    }

    /// The number of entries.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

/// Token buckets for strangers' handshakes: one per origin, and one for all together.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    origins: HashMap<Origin, TokenBucket>,
    all: Option<TokenBucket>,
    forgot: Option<Instant>,
}

impl Gate {
    /// Whether a handshake may continue. An expected one is not counted against all strangers together.
    pub(crate) fn admits(&mut self, origin: Origin, is_expected: bool, now: Instant) -> bool {
        if self.origins.len() >= REMEMBERED_ADDRESSES && !self.origins.contains_key(&origin) {
            if self.forgot.is_some_and(|forgot| now.saturating_duration_since(forgot) < FORGET_PAUSE) {
                return false;
            }
            self.forgot = Some(now);
            self.origins.retain(|_, bucket| !bucket.is_full(now));
            if self.origins.len() >= REMEMBERED_ADDRESSES {
                return false;
            }
        }
        let here = self.origins.entry(origin).or_insert_with(|| TokenBucket::new(BURST, REGAINED_PER_S, now));
        let all = self.all.get_or_insert_with(|| TokenBucket::new(BURST_OF_ALL, ALL_REGAIN_PER_S, now));
        here.take(now) && (is_expected || all.take(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    #[test]
    fn a_whole_ipv6_network_is_one_origin() {
        assert_eq!(origin("fd77::1"), origin("fd77::ffff:1:2:3"));
        assert_ne!(origin("fd77::1"), origin("fd77:0:0:1::1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
    }

    #[test]
    fn a_flood_from_one_origin_is_stopped_and_others_are_not() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let admitted = (0..1000).filter(|_| gate.admits(origin("10.0.0.9"), false, now)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(gate.admits(origin("10.0.0.1"), false, now));
        assert!(!gate.admits(origin("10.0.0.9"), false, now));
        assert!(gate.admits(origin("10.0.0.9"), false, now + Duration::from_secs(1)));
        // An IPv6 network's owner can use any address in it.
        let admitted = (0..1000u32).filter(|n| gate.admits(origin(&format!("fd77::{n:x}")), false, now)).count();
        assert_eq!(admitted, BURST as usize);
    }

    #[test]
    fn a_flood_from_everywhere_is_stopped_and_whoever_is_expected_is_not() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let from = |n: u32| Origin::of(IpAddr::from(n.to_be_bytes()));
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
                gate.admits(Origin::of(IpAddr::from(n.to_be_bytes())), false, then);
            }
            assert!(gate.origins.len() <= REMEMBERED_ADDRESSES);
        }
    }

    #[test]
    fn the_oldest_of_the_most_crowded_origin_is_evicted() {
        let mut held = PerOrigin::new(4, 2);
        let (one, two, three) = (origin("10.0.0.1"), origin("10.0.0.2"), origin("10.0.0.3"));
        assert_eq!([held.insert(one, 1), held.insert(two, 2), held.insert(one, 3)], [None; 3]);
        assert_eq!(held.insert(one, 4), Some(1), "the third of one origin costs its first");
        assert_eq!(held.insert(three, 5), None);
        assert_eq!(held.insert(three, 6), Some(3), "the fifth of all costs the most crowded origin");
        held.remove(&6);
        assert_eq!((held.insert(two, 7), held.len()), (None, 4));
    }

    #[test]
    fn a_newcomer_gets_in_while_others_hold_everything() {
        let mut held = PerOrigin::new(64, 8);
        let flood = |n: u32| Origin::of(IpAddr::from((0x0a00_0000 + n % 50).to_be_bytes()));
        for n in 0..10_000 {
            held.insert(flood(n), n);
        }
        assert_eq!(held.len(), 64);
        let gone = held.insert(origin("10.0.1.1"), 10_000);
        assert!(gone.is_some_and(|gone| gone < 10_000) && held.len() == 64);
        // One origin cannot push the others out.
        let mut gone: Vec<u32> = (0..1000).filter_map(|n| held.insert(origin("10.0.2.2"), 20_000 + n)).collect();
        gone.retain(|gone| *gone < 20_000);
        assert!(gone.len() <= 8, "{gone:?}");
    }
}
