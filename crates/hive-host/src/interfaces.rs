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
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn this_machine_lists_its_loopback() {
        let found = crate::this().interfaces();
        let is_loopback = |(address, _): &(IpAddr, u8)| *address == Ipv4Addr::LOCALHOST;
        assert!(found.iter().any(|i| i.kind == InterfaceKind::Loopback && i.addresses.iter().any(is_loopback)));
    }
}
