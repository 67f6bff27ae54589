//! Output of macOS. The fixtures are handwritten in its commands' formats, until somebody with a Mac records real ones.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{InterfaceKind, Power};

/// Devices and their kinds, from `networksetup -listallhardwareports` (macOS).
///
/// A Thunderbolt *port* (`Thunderbolt 1`, en1) is not used as an interface itself, only as a member of a bridge.
pub(crate) fn hardware_ports(text: &str) -> BTreeMap<String, InterfaceKind> {
    let mut ports = BTreeMap::new();
    let mut port = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Hardware Port: ") {
            port = name.trim();
        } else if let Some(device) = line.strip_prefix("Device: ") {
            let kind = if port.starts_with("Thunderbolt ") && port != "Thunderbolt Bridge" {
                InterfaceKind::Thunderbolt
            } else if port == "Wi-Fi" || port == "AirPort" {
                InterfaceKind::Wifi
            } else if port.contains("Ethernet") || port.contains("LAN") {
                InterfaceKind::Ethernet
            } else {
                InterfaceKind::Other
            };
            ports.insert(device.trim().to_owned(), kind);
        }
    }
    ports
}

/// The members of each bridge, from `ifconfig -a` (macOS).
pub(crate) fn bridge_members(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut bridges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut interface = "";
    for line in text.lines() {
        if !line.starts_with([' ', '\t']) {
            interface = line.split(':').next().unwrap_or_default();
        } else if let Some(member) = line.trim().strip_prefix("member: ") {
            let member = member.split_whitespace().next().unwrap_or_default();
            bridges.entry(interface.to_owned()).or_default().push(member.to_owned());
        }
    }
    bridges
}

/// The kind of a Mac's interface. A bridge is Thunderbolt if all its members are Thunderbolt ports, whatever its name.
pub(crate) fn kind_of(
    name: &str,
    ports: &BTreeMap<String, InterfaceKind>,
    bridges: &BTreeMap<String, Vec<String>>,
) -> InterfaceKind {
    if let Some(members) = bridges.get(name) {
        let of_member = |member: &String| ports.get(member) == Some(&InterfaceKind::Thunderbolt);
        return if members.iter().all(of_member) { InterfaceKind::Thunderbolt } else { InterfaceKind::Other };
    }
    match ports.get(name) {
        Some(kind) => *kind,
        // Tunnels have no hardware port; utun is the kernel's own device type, not a user-chosen name.
        None if ["utun", "ipsec", "ppp"].iter().any(|tunnel| name.starts_with(tunnel)) => InterfaceKind::Vpn,
        None => InterfaceKind::Other,
    }
}

/// Power from `pmset -g batt` (macOS).
pub(crate) fn power(text: &str) -> Power {
    let percent = text.split_whitespace().find_map(|word| word.trim_end_matches(';').strip_suffix('%')?.parse().ok());
    Power { on_battery: text.contains("'Battery Power'"), battery_percent: percent, low_power_mode: false }
}

/// Time since the last input, from `ioreg -c IOHIDSystem -d 4` (macOS), which counts nanoseconds.
pub(crate) fn idle(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.contains("\"HIDIdleTime\""))?;
    line.rsplit('=').next()?.trim().parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: &str = include_str!("../../tests/fixtures/mac-hardware-ports.txt");
    const IFCONFIG: &str = include_str!("../../tests/fixtures/mac-ifconfig.txt");

    #[test]
    fn a_macs_interfaces_are_told_apart_by_ports_and_members() {
        let (ports, bridges) = (hardware_ports(PORTS), bridge_members(IFCONFIG));
        let kind = |name: &str| kind_of(name, &ports, &bridges);
        assert_eq!(kind("en0"), InterfaceKind::Wifi);
        assert_eq!(kind("en4"), InterfaceKind::Ethernet);
        assert_eq!(kind("bridge0"), InterfaceKind::Thunderbolt);
        // A virtual machine's bridge is not Thunderbolt.
        assert_eq!(kind("bridge100"), InterfaceKind::Other);
        assert_eq!(kind("utun3"), InterfaceKind::Vpn);
        assert_eq!(kind("awdl0"), InterfaceKind::Other);
    }

    #[test]
    fn a_renamed_thunderbolt_bridge_is_still_one() {
        let ports = hardware_ports(PORTS);
        let bridges = bridge_members(&IFCONFIG.replace("bridge0", "bridge7"));
        assert_eq!(kind_of("bridge7", &ports, &bridges), InterfaceKind::Thunderbolt);
    }

    #[test]
    fn a_macs_power_and_idle_time_are_read() {
        let battery = power(include_str!("../../tests/fixtures/mac-pmset-battery.txt"));
        assert_eq!(battery, Power { on_battery: true, battery_percent: Some(73), low_power_mode: false });
        let mains = power(include_str!("../../tests/fixtures/mac-pmset-mains.txt"));
        assert_eq!(mains, Power { on_battery: false, battery_percent: Some(100), low_power_mode: false });
        assert_eq!(power("Now drawing from 'AC Power'\n").battery_percent, None);
        let since_input = idle(include_str!("../../tests/fixtures/mac-ioreg-hid.txt"));
        assert_eq!(since_input, Some(Duration::from_nanos(94_125_500_416)));
        assert_eq!(idle("nothing"), None);
    }
}
