//! Chooses which path to a peer carries the traffic.
//!
//! By default, iroh stays on a path of up to 10 ms once it has one, and moves for a gain of 5 ms: it would never leave
//! 4 ms of Wi-Fi for 0.3 ms of Thunderbolt. Here the choice is [`choose`], a pure function over what is known of each
//! path; `Preference` connects it to iroh, which asks whenever a path opens or closes.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use iroh::endpoint::transports::{Addr, FourTuple, PathSelection, PathSelectionContext, PathSelector};
use serde::{Deserialize, Serialize};

/// The kind of a path, as far as this end can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Within this machine.
    Loopback,
    /// A Thunderbolt cable.
    Thunderbolt,
    /// An Ethernet cable.
    Ethernet,
    /// Wi-Fi.
    Wifi,
    /// Another program's tunnel.
    Vpn,
    /// A relay server.
    Relay,
    /// Through a router, or an interface of unknown kind.
    Other,
}

impl LinkKind {
    /// Factor for a measured round trip on this kind. A path's first round trip is one sample; radio and tunnels get
    /// worse under load, a cable between two machines gets better.
    fn weight(self) -> f64 {
        match self {
            Self::Loopback => 0.5,
            Self::Thunderbolt => 0.7,
            Self::Ethernet | Self::Other | Self::Relay => 1.0,
            Self::Wifi => 1.5,
            Self::Vpn => 2.0,
        }
    }
}

/// An open path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its kind.
    pub kind: LinkKind,
    /// Its round trip.
    pub round_trip: Duration,
    /// Its measured rate, if known.
    pub bits_per_s: Option<u64>,
}

impl Candidate {
    /// Microseconds that a token's hidden states take on this path. An unknown rate counts as infinite; the path is
    /// measured once it is in use.
    fn cost_us(&self) -> f64 {
        let sending_s = self.bits_per_s.map_or(0.0, |rate| TOKEN_BITS / rate.max(1) as f64);
        (self.round_trip.as_secs_f64() * self.kind.weight() + sending_s) * 1e6
    }
}

/// A token's hidden states in a large model: 8,192 numbers of two bytes.
const TOKEN_BITS: f64 = 8192.0 * 2.0 * 8.0;

/// Which path to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Stay on the current path.
    Keep,
    /// Move to the candidate at this index.
    Move(usize),
}

/// The new cost must be below this fraction of the current one: samples of one path vary by as much.
const GAIN: f64 = 0.75;
/// Minimum gain in microseconds: less makes no difference to a token.
const GAIN_US: f64 = 50.0;

/// The best path: direct before relayed, then the one that delivers a token soonest, with hysteresis around `current`.
pub fn choose(current: Option<usize>, candidates: &[Candidate]) -> Choice {
    let cost = Candidate::cost_us;
    let relayed = |c: &Candidate| c.kind == LinkKind::Relay;
    let better = |a: &Candidate, b: &Candidate| relayed(a).cmp(&relayed(b)).then(cost(a).total_cmp(&cost(b)));
    let Some((best, candidate)) = candidates.iter().enumerate().min_by(|(_, a), (_, b)| better(a, b)) else {
        return Choice::Keep;
    };
    let Some(now) = current.and_then(|current| candidates.get(current)) else { return Choice::Move(best) };
    let (old, new) = (cost(now), cost(candidate));
    let worth_it = relayed(now) && !relayed(candidate) || new <= old * GAIN && new + GAIN_US <= old;
    if worth_it && current != Some(best) { Choice::Move(best) } else { Choice::Keep }
}

/// A network of this machine, and its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The interface's name.
    pub interface: String,
    /// This machine's address in it.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The interface's kind.
    pub kind: LinkKind,
}

/// This machine's networks. Clones share them; the node keeps them up to date.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    known: Arc<RwLock<Vec<Network>>>,
}

impl Networks {
    /// Replaces the networks; returns whether they changed.
    pub fn set(&self, networks: Vec<Network>) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != networks;
        *known = networks;
        changed
    }

    /// The kind of a path to `remote`: that of the narrowest network that contains it.
    pub(crate) fn kind(&self, remote: IpAddr) -> LinkKind {
        let remote = remote.to_canonical();
        if remote.is_loopback() {
            return LinkKind::Loopback;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let holding = known.iter().filter(|network| holds(network, remote));
        holding.max_by_key(|network| network.prefix).map_or(LinkKind::Other, |network| network.kind)
    }

    /// Whether any of this machine's networks satisfies the predicate.
    pub(crate) fn any(&self, holds: impl Fn(&Network) -> bool) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).iter().any(holds)
    }
}

/// A path to a machine in one of this machine's networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// This machine's address in that network.
    pub from: IpAddr,
    /// The other machine's socket.
    pub to: SocketAddr,
    /// The path's kind.
    pub kind: LinkKind,
}

impl Networks {
    /// The paths to a machine at these sockets, one for each network that both are in. IPv6 paths are skipped where the
    /// interface has an IPv4 one, which is the same cable, and so are ambiguous addresses: loopback and link-local
    /// IPv6.
    pub fn ways(&self, sockets: &[SocketAddr]) -> Vec<Way> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let of = |to: &SocketAddr| {
            let there = to.ip().to_canonical();
            let unclear = there.is_loopback() || matches!(there, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let holding = known.iter().filter(|network| network.delivers(there));
            let network = holding.max_by_key(|network| network.prefix).filter(|_| !unclear)?;
            let way = Way { from: network.address, to: *to, kind: network.kind };
            (network.address != there).then_some((network.interface.as_str(), way))
        };
        let ways: Vec<(&str, Way)> = sockets.iter().filter_map(of).collect();
        let by_ipv4: HashSet<&str> =
            ways.iter().filter(|(_, way)| way.from.is_ipv4()).map(|(interface, _)| *interface).collect();
        let once = ways.iter().filter(|(interface, way)| way.from.is_ipv4() || !by_ipv4.contains(interface));
        once.map(|(_, way)| *way).collect()
    }
}

/// Measured rates of paths, by their other ends. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    known: Arc<RwLock<HashMap<String, u64>>>,
}

impl Rates {
    /// Records a measurement, in bits per second.
    pub fn set(&self, remote: &str, bits_per_s: u64) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(remote.to_owned(), bits_per_s);
    }

    fn of(&self, remote: SocketAddr) -> Option<u64> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&remote.to_string()).copied()
    }
}

/// Whether an address is in a network.
pub(crate) fn holds(network: &Network, remote: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let shift = bits.saturating_sub(u32::from(network.prefix));
        // A shift of all bits means a network that contains every address: it says nothing.
        shift < bits && a >> shift == b >> shift
    };
    match (network.address, remote) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// Connects [`choose`] to iroh.
#[derive(Debug)]
pub(crate) struct Preference {
    pub(crate) networks: Networks,
    pub(crate) rates: Rates,
}

impl Preference {
    fn candidate(&self, path: &FourTuple, round_trip: Duration) -> Candidate {
        let (kind, bits_per_s) = match path.remote() {
            Addr::Ip(remote) => (self.networks.kind(remote.ip()), self.rates.of(remote)),
            Addr::Relay(..) => (LinkKind::Relay, None),
            Addr::Custom(_) => (LinkKind::Other, None),
        };
        Candidate { kind, round_trip, bits_per_s }
    }
}

impl PathSelector for Preference {
    fn select(&self, context: &PathSelectionContext<'_>) -> PathSelection {
        let open: Vec<_> = context.paths().filter_map(|path| path.stats().map(|stats| (path, stats.rtt))).collect();
        let candidates: Vec<_> =
            open.iter().map(|(path, round_trip)| self.candidate(path.network_path(), *round_trip)).collect();
        // The same path is listed once per connection; the fastest sample counts.
        let current = open
            .iter()
            .enumerate()
            .filter(|(_, (path, _))| Some(path.network_path()) == context.current())
            .min_by_key(|(_, (_, round_trip))| *round_trip)
            .map(|(index, _)| index);
        let mut selection = PathSelection::none();
        if let Choice::Move(index) = choose(current, &candidates) {
            selection.set(&open[index].0);
        }
        selection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(kind: LinkKind, micros: u64) -> Candidate {
        Candidate { kind, round_trip: Duration::from_micros(micros), bits_per_s: None }
    }

    #[test]
    fn a_slow_cable_is_left_for_quick_radio() {
        let slow = |bits_per_s| Candidate { bits_per_s, ..path(LinkKind::Ethernet, 500) };
        let radio = Candidate { bits_per_s: Some(800_000_000), ..path(LinkKind::Wifi, 2000) };
        assert_eq!(choose(Some(0), &[slow(Some(10_000_000)), radio]), Choice::Move(1));
        assert_eq!(choose(Some(0), &[slow(Some(1_000_000_000)), radio]), Choice::Keep);
        assert_eq!(choose(Some(1), &[slow(Some(1_000_000_000)), radio]), Choice::Move(0));
        assert_eq!(choose(Some(0), &[slow(None), radio]), Choice::Keep);
    }

    #[test]
    fn there_is_a_way_through_every_network_that_both_are_in() {
        let networks = Networks::default();
        let network = |address: &str, prefix, kind| Network {
            interface: format!("{kind:?}"),
            address: address.parse().unwrap(),
            prefix,
            kind,
        };
        networks.set(vec![
            network("127.0.0.1", 8, LinkKind::Loopback),
            network("192.168.1.2", 24, LinkKind::Wifi),
            network("169.254.1.2", 16, LinkKind::Thunderbolt),
            network("fd00::2", 64, LinkKind::Wifi),
            network("fe80::2", 64, LinkKind::Thunderbolt),
        ]);
        let ways = |sockets: &[&str]| {
            let sockets: Vec<SocketAddr> = sockets.iter().map(|socket| socket.parse().unwrap()).collect();
            networks.ways(&sockets).into_iter().map(|way| (way.from.to_string(), way.kind)).collect::<Vec<_>>()
        };
        let all = ["192.168.1.3:9", "169.254.7.7:9", "[fd00::3]:9", "[fe80::3]:9", "10.0.0.1:9", "127.0.0.1:9"];
        assert_eq!(
            ways(&all),
            [("192.168.1.2".to_owned(), LinkKind::Wifi), ("169.254.1.2".to_owned(), LinkKind::Thunderbolt)]
        );
        assert_eq!(ways(&["[fd00::3]:9", "[fe80::3]:9"]), [("fd00::2".to_owned(), LinkKind::Wifi)]);
        // An IPv6-only cable is a path of its own.
        assert_eq!(
            ways(&["169.254.7.7:9", "[fd00::3]:9"]),
            [("169.254.1.2".to_owned(), LinkKind::Thunderbolt), ("fd00::2".to_owned(), LinkKind::Wifi)]
        );
        assert_eq!(ways(&["192.168.1.2:9"]), [], "another node of this machine is not on the network");
    }

    #[test]
    fn four_milliseconds_of_wifi_are_left_for_thunderbolt() {
        let paths = [path(LinkKind::Wifi, 4000), path(LinkKind::Thunderbolt, 300)];
        assert_eq!(choose(Some(0), &paths), Choice::Move(1));
        assert_eq!(choose(Some(1), &paths), Choice::Keep);
        assert_eq!(choose(None, &paths), Choice::Move(1));
    }

    #[test]
    fn two_like_paths_do_not_alternate() {
        let paths = [path(LinkKind::Ethernet, 310), path(LinkKind::Ethernet, 290)];
        assert_eq!(choose(Some(0), &paths), Choice::Keep);
        assert_eq!(choose(Some(1), &paths), Choice::Keep);
        // A large ratio, but too small a gain for a token.
        let paths = [path(LinkKind::Ethernet, 90), path(LinkKind::Ethernet, 50)];
        assert_eq!(choose(Some(0), &paths), Choice::Keep);
    }

    #[test]
    fn a_relay_is_left_for_any_direct_path_and_taken_for_want_of_one() {
        let paths = [path(LinkKind::Relay, 10_000), path(LinkKind::Other, 60_000)];
        assert_eq!(choose(Some(0), &paths), Choice::Move(1));
        assert_eq!(choose(Some(1), &paths), Choice::Keep);
        assert_eq!(choose(None, &paths[..1]), Choice::Move(0));
        assert_eq!(choose(None, &[]), Choice::Keep);
    }

    #[test]
    fn the_narrowest_network_names_the_link() {
        let networks = Networks::default();
        let network = |address: &str, prefix, kind| Network {
            interface: String::new(),
            address: address.parse().unwrap(),
            prefix,
            kind,
        };
        let known = vec![
            network("10.0.0.1", 8, LinkKind::Vpn),
            network("10.1.0.1", 16, LinkKind::Ethernet),
            network("169.254.1.2", 16, LinkKind::Thunderbolt),
        ];
        assert!(networks.set(known.clone()));
        assert!(!networks.set(known));
        let kind = |address: &str| networks.kind(address.parse().unwrap());
        assert_eq!(kind("10.1.0.9"), LinkKind::Ethernet);
        assert_eq!(kind("10.9.0.9"), LinkKind::Vpn);
        assert_eq!(kind("169.254.200.1"), LinkKind::Thunderbolt);
        assert_eq!(kind("::ffff:10.1.0.9"), LinkKind::Ethernet);
        assert_eq!(kind("8.8.8.8"), LinkKind::Other);
        assert_eq!(kind("127.0.0.1"), LinkKind::Loopback);
        assert!(networks.is_near("10.1.0.9".parse().unwrap()) && !networks.is_near("8.8.8.8".parse().unwrap()));
    }
}
