//! Network interfaces and their kinds.
//!
//! The kind decides which link carries the swarm's traffic, so it is never guessed from a name: macOS provides the
//! hardware ports and the bridge's members, Linux the kernel's device attributes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The kind of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// Within this machine.
    Loopback,
    /// A Thunderbolt or USB4 cable between two machines.
    Thunderbolt,
    /// An Ethernet cable.
    Ethernet,
    /// Wi-Fi.
    Wifi,
    /// A tunnel: VPN or overlay network.
    Vpn,
    /// Anything else: containers, virtual machines, phones.
    Other,
}

/// An interface that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The system's name for it.
    pub name: String,
    /// Its kind.
    pub kind: InterfaceKind,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The link's reported rate, in bits per second.
    pub speed_bits_per_s: Option<u64>,
}

impl Interface {
    /// Whether an address is in a network of this interface.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(own, prefix)| same_network(own, address, prefix))
    }
}

fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(prefix.min(32));
            (u64::from(a.to_bits()) >> shift) == (u64::from(b.to_bits()) >> shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(prefix.min(128));
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

/// Every interface that is up and has an address, with the kind returned by `kind`.
pub(crate) fn list(kind: impl Fn(&netdev::Interface) -> InterfaceKind) -> Vec<Interface> {
    netdev::get_interfaces()
        .into_iter()
        .filter(|interface| interface.is_up() && !(interface.ipv4.is_empty() && interface.ipv6.is_empty()))
        .map(|interface| {
            let v4 = interface.ipv4.iter().map(|net| (IpAddr::V4(net.addr()), net.prefix_len()));
            let v6 = interface.ipv6.iter().map(|net| (IpAddr::V6(net.addr()), net.prefix_len()));
            Interface {
                kind: if interface.is_loopback() { InterfaceKind::Loopback } else { kind(&interface) },
                addresses: v4.chain(v6).collect(),
                speed_bits_per_s: interface.transmit_speed.filter(|&speed| speed > 0),
                name: interface.name,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reached_through_the_interface_of_its_network() {
        let interface = Interface {
            name: "en0".into(),
            kind: InterfaceKind::Wifi,
            addresses: vec![("192.168.1.5".parse().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)],
            speed_bits_per_s: None,
        };
        assert!(interface.reaches("192.168.1.200".parse().unwrap()));
        assert!(!interface.reaches("192.168.2.5".parse().unwrap()));
        assert!(interface.reaches("fe80::99".parse().unwrap()));
        assert!(!interface.reaches("fd00::1".parse().unwrap()));
        assert!(same_network("1.2.3.4".parse().unwrap(), "9.9.9.9".parse().unwrap(), 0));
        assert!(same_network("::1".parse().unwrap(), "fd00::".parse().unwrap(), 0));
    }

    #[test]
    fn this_machine_lists_its_loopback() {
        let found = crate::this().interfaces();
        assert!(found.iter().any(|i| i.kind == InterfaceKind::Loopback && i.reaches("127.0.0.1".parse().unwrap())));
    }
}
