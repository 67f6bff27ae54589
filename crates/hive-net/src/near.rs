//! Decides which addresses packets may go to.
//!
//! Other machines say where a machine is: anyone can announce one, and an approved machine names the addresses of a
//! third. A QUIC handshake begins with 1,200 bytes to each address, so an unchecked claim could point this machine at a
//! victim. Invariants: an announced address is on the link it was announced on (`Networks::accepts_announced`); without
//! a relay, only addresses on this machine's own networks are dialled, and those elsewhere that a person gave or that a
//! connection reached before ([`Range`]); and however fast the claims change, a machine is dialled at a bounded number
//! of addresses (`AddressBook`).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use iroh::RelayUrl;

use crate::addr::PeerId;
use crate::links::{LinkKind, Network, Networks, holds};

/// Ports below this belong to services such as DNS; no HiveMind listens there unless its owner configures it.
const FIRST_PORT: u16 = 1024;
/// Addresses dialled at once.
const DIALLED_AT_ONCE: usize = 16;
/// Announced addresses of a machine that are dialled, at most.
const TRIED: usize = 32;
/// iroh sends a handshake to every address of a machine that it was ever given, and forgets them after a minute without
/// a connection or a dial.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(61);
/// With [`TRIED`] addresses in use, a machine with vouched ones is dialled for this long, then not at all for
/// [`FORGOTTEN_AFTER`], so that others can be tried.
const DIALLED_ON_FOR: Duration = Duration::from_mins(5);
/// Vouched addresses kept per machine, newest first.
const VOUCHED: usize = 16;

/// How long a machine that this owner is pairing with is expected.
const EXPECTED_FOR: Duration = crate::pairing::DECISION_TIMEOUT;

/// Who connects, as far as the address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comer {
    /// From an address of an approved machine, or of one that a person named.
    Known,
    /// From the announced address of a machine that this owner is pairing with.
    Expected,
    /// Anyone else.
    Stranger,
}

/// How far packets may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Range {
    /// Only to this machine's own networks.
    Link,
    /// Also to addresses elsewhere that a person gave, or that a connection has reached there.
    Given,
    /// Anywhere: the caller is responsible, or a relay was chosen.
    #[default]
    Anywhere,
}

/// Whether an address belongs to one machine: not unspecified, multicast or broadcast.
fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && !v4.is_multicast() && v4 != Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

impl Network {
    /// Whether a packet to `ip` goes to a single machine of this network.
    pub(crate) fn delivers(&self, ip: IpAddr) -> bool {
        holds(self, ip) && is_unicast(ip) && !self.is_broadcast(ip)
    }

    /// Whether `ip` is the broadcast or the network address of this network.
    fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        // Networks of one or two addresses have neither.
        host > 1 && (v4.to_bits() & host == host || v4.to_bits() & host == 0)
    }
}

impl Networks {
    /// Whether a packet to `remote` goes to a single machine on one of this machine's networks, without a router.
    pub fn is_near(&self, remote: IpAddr) -> bool {
        self.any(|network| network.delivers(remote.to_canonical()))
    }

    /// Whether an announcement heard on these interfaces may name this socket: it must be on that link, and not on a
    /// system port. If none of the interfaces is known by name, any network of this machine but loopback will do.
    pub(crate) fn accepts_announced(&self, socket: SocketAddr, interfaces: &[String]) -> bool {
        let ip = socket.ip().to_canonical();
        let named = |network: &Network| interfaces.contains(&network.interface);
        let by_name = self.any(named);
        let of_link = |network: &Network| if by_name { named(network) } else { network.kind != LinkKind::Loopback };
        socket.port() >= FIRST_PORT && self.any(|network| of_link(network) && network.delivers(ip))
    }
}

impl Range {
    /// Whether a socket may be dialled. `loopback`: whether the dialler listens on loopback itself, so that this is its
    /// network.
    fn allows(self, socket: SocketAddr, networks: &Networks, loopback: bool, vouched: Option<ReachableFrom>) -> bool {
        let ip = socket.ip().to_canonical();
        if !is_unicast(ip) || socket.port() == 0 || vouched.is_none() && socket.port() < FIRST_PORT {
            return false;
        }
        let is_near = if ip.is_loopback() { loopback } else { networks.is_near(ip) };
        match self {
            Self::Link => is_near,
            Self::Given => is_near || vouched == Some(ReachableFrom::Anywhere),
            Self::Anywhere => true,
        }
    }
}

/// Where a vouched address may be dialled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReachableFrom {
    /// On its own network: a connection was made over it there.
    OnLink,
    /// Anywhere: a person gave it, or a connection was made over it through a router.
    Anywhere,
}

/// Inputs of the decision besides the addresses.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) range: Range,
    pub(crate) networks: &'a Networks,
    /// Whether this machine listens on loopback.
    pub(crate) loopback: bool,
    /// Whether there is a live connection to the machine: iroh then uses that, whatever addresses it is given.
    pub(crate) connected: bool,
}

/// Why a machine is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDialled {
    /// No address is known.
    #[error("it has no known address")]
    Unknown,
    /// All known addresses are off this machine's networks.
    #[error("it is on none of this machine's networks")]
    Far,
    /// Its addresses changed too often.
    #[error("too many different addresses were announced for it; it is tried again within a minute")]
    TooMany,
}

/// Other machines' addresses: who vouched for them, and which ones were dialled.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    vouched: HashMap<PeerId, Vec<(SocketAddr, ReachableFrom)>>,
    relays: HashMap<PeerId, RelayUrl>,
    /// Where a machine that this owner is pairing with may connect from, and until when.
    expected: HashMap<IpAddr, (PeerId, Instant)>,
    tried: HashMap<PeerId, Tried>,
}

/// Announced addresses of a machine that iroh was given, and dials again together with every new one.
#[derive(Debug)]
struct Tried {
    sockets: BTreeSet<SocketAddr>,
    last: Instant,
    /// Since when there has been no room for another.
    full_since: Option<Instant>,
}

impl AddressBook {
    /// A person named this address, or a connection was made over it.
    pub(crate) fn vouch(&mut self, peer: PeerId, socket: SocketAddr, from: ReachableFrom) {
        let known = self.vouched.entry(peer).or_default();
        let before = known.iter().position(|(known, _)| *known == socket).map(|at| known.remove(at).1);
        // An address from a person stays one when it is found to work nearby.
        let from = if before == Some(ReachableFrom::Anywhere) { ReachableFrom::Anywhere } else { from };
        known.insert(0, (socket, from));
        known.truncate(VOUCHED);
    }

    /// A person named this relay for a machine, or a connection was made through it.
    pub(crate) fn vouch_relay(&mut self, peer: PeerId, relay: RelayUrl) {
        self.relays.insert(peer, relay);
    }

    /// Whether a machine is reached through this relay.
    pub(crate) fn is_relay_of(&self, peer: PeerId, relay: &RelayUrl) -> bool {
        self.relays.get(&peer) == Some(relay)
    }

    /// A machine that this owner is pairing with may connect from these addresses.
    pub(crate) fn expect(&mut self, peer: PeerId, sockets: &[SocketAddr], now: Instant) {
        self.expected.retain(|_, (_, until)| *until > now);
        let addresses = sockets.iter().take(DIALLED_AT_ONCE).map(|socket| socket.ip().to_canonical());
        self.expected.extend(addresses.map(|address| (address, (peer, now + EXPECTED_FOR))));
    }

    /// Forgets a machine's addresses: they are like any other again.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.vouched.remove(&peer);
        self.relays.remove(&peer);
        self.expected.retain(|_, (expected, _)| *expected != peer);
    }

    /// Classifies a connection by its address.
    pub(crate) fn comer(&self, ip: IpAddr, now: Instant) -> Comer {
        let ip = ip.to_canonical();
        if self.vouched.values().flatten().any(|(socket, _)| socket.ip().to_canonical() == ip) {
            Comer::Known
        } else if self.expected.get(&ip).is_some_and(|(_, until)| now < *until) {
            Comer::Expected
        } else {
            Comer::Stranger
        }
    }

    /// Selects the addresses to dial now from those named for a machine.
    pub(crate) fn choose(
        &mut self,
        peer: PeerId,
        named: &[SocketAddr],
        rules: &Rules<'_>,
        now: Instant,
    ) -> Result<Vec<SocketAddr>, NotDialled> {
        if named.is_empty() {
            return Err(NotDialled::Unknown);
        }
        let vouched = self.vouched.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let voucher = |socket| vouched.iter().find(|(known, _)| *known == socket).map(|(_, from)| *from);
        let allowed = |socket| rules.range.allows(socket, rules.networks, rules.loopback, voucher(socket));
        let allowed = named.iter().copied().filter(|socket| allowed(*socket));
        let (mut chosen, mut announced): (Vec<_>, Vec<_>) = allowed.partition(|socket| voucher(*socket).is_some());
        chosen.truncate(DIALLED_AT_ONCE);
        announced.truncate(DIALLED_AT_ONCE - chosen.len());
        if chosen.is_empty() && announced.is_empty() {
            return Err(NotDialled::Far);
        }
        self.tried.retain(|_, tried| now.saturating_duration_since(tried.last) < FORGOTTEN_AFTER);
        let tried =
            self.tried.entry(peer).or_insert_with(|| Tried { sockets: BTreeSet::new(), last: now, full_since: None });
        let sockets: BTreeSet<SocketAddr> = announced.iter().copied().collect();
        if tried.sockets.union(&sockets).count() <= TRIED {
            tried.sockets.extend(&sockets);
        } else {
            let full_since = *tried.full_since.get_or_insert(now);
            let goes_on = !chosen.is_empty() && now.saturating_duration_since(full_since) < DIALLED_ON_FOR;
            announced.retain(|socket| tried.sockets.contains(socket));
            if !rules.connected && !goes_on {
                return Err(NotDialled::TooMany);
            }
        }
        tried.last = now;
        chosen.extend(announced);
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn networks() -> Networks {
        let networks = Networks::default();
        let network = |interface: &str, address: &str, prefix, kind| Network {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
            prefix,
            kind,
        };
        networks.set(vec![
            network("lo", "127.0.0.1", 8, LinkKind::Loopback),
            network("lo", "::1", 128, LinkKind::Loopback),
            network("lan", "10.77.0.1", 24, LinkKind::Ethernet),
            network("lan", "fd77::1", 64, LinkKind::Ethernet),
            network("wifi", "192.168.1.2", 22, LinkKind::Wifi),
            network("cable", "169.254.3.2", 16, LinkKind::Thunderbolt),
            network("point", "172.16.0.1", 31, LinkKind::Other),
        ]);
        networks
    }

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_announcement_names_addresses_of_the_link_it_came_by_and_no_others() {
        let networks = networks();
        let hears = |text: &str, interface: &str| networks.accepts_announced(socket(text), &[interface.to_owned()]);
        for good in ["10.77.0.2:4000", "10.77.0.254:1024", "[fd77::99]:65535", "[::ffff:10.77.0.2]:4000"] {
            assert!(hears(good, "lan"), "{good}");
        }
        let bad = [
            "8.8.8.8:4000",
            "[2001:db8::1]:4000",
            "192.168.1.3:4000",
            "10.77.1.2:4000",
            "127.0.0.1:4000",
            "[::1]:4000",
            "[::ffff:127.0.0.1]:4000",
            "[::ffff:8.8.8.8]:4000",
            "0.0.0.0:4000",
            "[::]:4000",
            "224.0.0.251:5353",
            "[ff02::fb]:5353",
            "255.255.255.255:4000",
            "10.77.0.255:4000",
            "10.77.0.0:4000",
            "10.77.0.2:53",
            "10.77.0.2:1023",
            "10.77.0.2:0",
        ];
        for bad in bad {
            assert!(!hears(bad, "lan"), "{bad}");
        }
        assert!(hears("192.168.3.254:4000", "wifi") && !hears("192.168.3.255:4000", "wifi"));
        assert!(hears("192.168.2.255:4000", "wifi"), "within a /22 this is a machine like any other");
        assert!(hears("172.16.0.0:4000", "point"), "a cable of two addresses has no broadcast");
        assert!(hears("127.0.0.1:4000", "lo"));
        // An interface not known by name: any of our networks but loopback.
        assert!(hears("10.77.0.2:4000", "alias") && !hears("8.8.8.8:4000", "alias"));
        assert!(!hears("127.0.0.1:4000", "alias"));
        assert!(networks.accepts_announced(socket("10.77.0.2:4000"), &[]));
    }

    #[test]
    fn packets_stay_on_the_link_unless_an_owner_says_otherwise() {
        let networks = networks();
        let (claimed, on_link, given) = (None, Some(ReachableFrom::OnLink), Some(ReachableFrom::Anywhere));
        let allows = |range: Range, text: &str, vouched| range.allows(socket(text), &networks, false, vouched);
        for range in [Range::Link, Range::Given, Range::Anywhere] {
            assert!(allows(range, "10.77.0.2:4000", claimed));
            for never in ["224.0.0.251:5353", "[ff02::1]:4000", "255.255.255.255:4000", "0.0.0.0:4000", "10.77.0.2:0"] {
                assert!(!allows(range, never, claimed) && !allows(range, never, given), "{range:?} {never}");
            }
            assert!(!allows(range, "10.77.0.2:53", claimed) && allows(range, "10.77.0.2:53", on_link), "{range:?}");
        }
        for far in ["8.8.8.8:4000", "[2001:db8::1]:4000", "10.1.0.1:4000", "[fd00::1]:4000", "[::ffff:8.8.8.8]:4000"] {
            assert!([claimed, on_link, given].iter().all(|vouched| !allows(Range::Link, far, *vouched)), "{far}");
            assert!(!allows(Range::Given, far, claimed) && allows(Range::Given, far, given), "{far}");
            // It worked at home, but this machine is elsewhere now.
            assert!(!allows(Range::Given, far, on_link), "{far}");
            assert!(allows(Range::Anywhere, far, claimed), "{far}");
        }
        // Other machines must not reach what listens on this machine's loopback.
        assert!(!allows(Range::Link, "127.0.0.1:4000", claimed) && !allows(Range::Given, "127.0.0.1:4000", claimed));
        assert!(Range::Link.allows(socket("127.0.0.1:4000"), &networks, true, claimed));
    }

    #[test]
    fn a_dial_has_few_addresses_and_those_that_worked_come_first() {
        let (networks, peer, now) = (networks(), Identity::generate().id(), Instant::now());
        let mut book = AddressBook::default();
        let rules = Rules { range: Range::Given, networks: &networks, loopback: false, connected: false };
        let choose = |book: &mut AddressBook, named: &[SocketAddr]| book.choose(peer, named, &rules, now);
        assert_eq!(choose(&mut book, &[]), Err(NotDialled::Unknown));
        assert_eq!(choose(&mut book, &[socket("8.8.8.8:4000")]), Err(NotDialled::Far));
        let mut named: Vec<SocketAddr> = (0..1000).map(|n| SocketAddr::from(([10, 77, 0, 9], 2000 + n))).collect();
        named.push(socket("10.77.0.2:4000"));
        book.vouch(peer, socket("10.77.0.2:4000"), ReachableFrom::OnLink);
        let chosen = choose(&mut book, &named).unwrap();
        assert_eq!((chosen.len(), chosen[0]), (DIALLED_AT_ONCE, socket("10.77.0.2:4000")));
    }

    #[test]
    fn claims_that_keep_changing_lead_to_few_addresses_and_not_for_ever() {
        let (networks, peer, start) = (networks(), Identity::generate().id(), Instant::now());
        let mut book = AddressBook::default();
        let rules = Rules { range: Range::Link, networks: &networks, loopback: false, connected: false };
        let mut dialled = BTreeSet::new();
        let claim = |n: u16| (0..8).map(|i| SocketAddr::from(([10, 77, 0, 9], 2000 + 8 * n + i))).collect::<Vec<_>>();
        for n in 0..500 {
            dialled.extend(book.choose(peer, &claim(n), &rules, start).into_iter().flatten());
        }
        assert_eq!(dialled.len(), TRIED);
        assert_eq!(book.choose(peer, &claim(600), &rules, start), Err(NotDialled::TooMany));
        assert!(book.choose(peer, &claim(0), &rules, start).is_ok(), "what was tried before may be tried again");
        let later = start + FORGOTTEN_AFTER;
        assert_eq!(book.choose(peer, &claim(600), &rules, later).unwrap().len(), 8);
        // A vouched address is dialled whatever is announced, for minutes, and first after a pause.
        let home = socket("10.77.0.2:4000");
        book.vouch(peer, home, ReachableFrom::OnLink);
        let mut dialled_at = Vec::new();
        for second in 0..900 {
            let now = later + Duration::from_secs(second);
            if let Ok(chosen) = book.choose(peer, &[&claim(second as u16)[..], &[home]].concat(), &rules, now) {
                assert_eq!(chosen[0], home);
                dialled_at.push(second);
            }
            assert!(book.tried[&peer].sockets.len() <= TRIED);
        }
        let pauses: Vec<u64> = dialled_at.windows(2).map(|pair| pair[1] - pair[0]).filter(|pause| *pause > 1).collect();
        assert!(pauses.len() <= 2 && pauses.iter().all(|pause| *pause <= 62), "{pauses:?}");
        let later = later + Duration::from_secs(1000);
        book.forget(peer);
        // A connected machine is dialled where it is, whatever is announced.
        let connected = Rules { connected: true, ..rules };
        for n in 700..720 {
            assert!(book.choose(peer, &claim(n), &connected, later).is_ok());
        }
        assert!(book.tried[&peer].sockets.len() <= TRIED);
    }

    #[test]
    fn where_a_machine_was_is_nowhere_once_its_owner_has_had_enough_of_it() {
        let networks = networks();
        let (one, two, now) = (Identity::generate().id(), Identity::generate().id(), Instant::now());
        let rules = Rules { range: Range::Given, networks: &networks, loopback: false, connected: false };
        let (far, near, relay) = (socket("8.8.8.8:4000"), socket("10.77.0.2:4000"), "https://relay.example/");
        let relay: RelayUrl = relay.parse().unwrap();
        let mut book = AddressBook::default();
        book.vouch(one, far, ReachableFrom::Anywhere);
        book.vouch_relay(one, relay.clone());
        book.expect(one, &[near], now);
        book.expect(two, &[socket("10.77.0.3:4000")], now);
        assert_eq!((book.comer(far.ip(), now), book.comer(near.ip(), now)), (Comer::Known, Comer::Expected));
        book.forget(one);
        assert_eq!((book.comer(far.ip(), now), book.comer(near.ip(), now)), (Comer::Stranger, Comer::Stranger));
        assert!(!book.is_relay_of(one, &relay));
        assert_eq!(book.choose(one, &[far], &rules, now), Err(NotDialled::Far));
        assert_eq!(book.comer("10.77.0.3".parse().unwrap(), now), Comer::Expected, "others stay");
    }
}
