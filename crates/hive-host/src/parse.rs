//! Parsers for what systems print about themselves. Pure functions, tested on `tests/fixtures`. The macOS fixtures are
//! handwritten in its commands' formats, until somebody with a Mac records real ones.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Heat, InterfaceKind, Power};

/// Devices and their kinds, from `networksetup -listallhardwareports` (macOS).
///
/// A Thunderbolt *port* (`Thunderbolt 1`, en1) is not used as an interface itself, only as a member of a bridge.
pub fn mac_hardware_ports(text: &str) -> BTreeMap<String, InterfaceKind> {
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
pub fn mac_bridge_members(text: &str) -> BTreeMap<String, Vec<String>> {
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
pub fn mac_kind(
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
pub fn mac_power(text: &str) -> Power {
    let percent = text.split_whitespace().find_map(|word| word.trim_end_matches(';').strip_suffix('%')?.parse().ok());
    Power { on_battery: text.contains("'Battery Power'"), battery_percent: percent, low_power_mode: false }
}

/// Time since the last input, from `ioreg -c IOHIDSystem -d 4` (macOS), which counts nanoseconds.
pub fn mac_idle(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.contains("\"HIDIdleTime\""))?;
    line.rsplit('=').next()?.trim().parse().ok().map(Duration::from_nanos)
}

/// Attributes of a Linux interface, from `/sys/class/net/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinuxDevice<'a> {
    /// `DEVTYPE` of `uevent`, for example `wlan` or `bridge`.
    pub devtype: Option<&'a str>,
    /// The driver of `device`, if there is a device.
    pub driver: Option<&'a str>,
    /// The hardware type in `type`: 1 is Ethernet, 65534 is none.
    pub hardware: u32,
    /// Whether it is a tunnel (`tun_flags` exists).
    pub tunnel: bool,
}

/// The kind of a Linux interface. A virtual Ethernet pair counts as Ethernet, since it behaves like it.
pub fn linux_kind(device: LinuxDevice<'_>) -> InterfaceKind {
    const ETHERNET: u32 = 1;
    match device {
        LinuxDevice { devtype: Some("wlan"), .. } => InterfaceKind::Wifi,
        LinuxDevice { driver: Some("thunderbolt-net"), .. } => InterfaceKind::Thunderbolt,
        LinuxDevice { tunnel: true, .. } | LinuxDevice { devtype: Some("wireguard" | "ppp"), .. } => InterfaceKind::Vpn,
        LinuxDevice { devtype: Some(_), .. } => InterfaceKind::Other,
        LinuxDevice { hardware: ETHERNET, .. } => InterfaceKind::Ethernet,
        _ => InterfaceKind::Vpn,
    }
}

/// One supply of `/sys/class/power_supply`: its files by name.
pub type Supply = BTreeMap<String, String>;

/// Power from all supplies of a Linux machine. Without a reported battery, it has none.
pub fn linux_power(supplies: &[Supply]) -> Power {
    let is = |supply: &Supply, key: &str, value: &str| supply.get(key).is_some_and(|found| found.trim() == value);
    let batteries: Vec<_> = supplies
        .iter()
        // Mice have batteries, too.
        .filter(|supply| is(supply, "type", "Battery") && !is(supply, "scope", "Device"))
        .collect();
    let mains = supplies.iter().any(|supply| !is(supply, "type", "Battery") && is(supply, "online", "1"));
    let discharging = batteries.iter().any(|battery| is(battery, "status", "Discharging"));
    let percent = batteries.iter().find_map(|battery| battery.get("capacity")?.trim().parse().ok());
    Power { on_battery: discharging && !mains, battery_percent: percent, low_power_mode: false }
}

/// Thermal state from a zone of `/sys/class/thermal`: temperature and critical point, in millidegrees Celsius.
pub fn linux_heat(temperature: i64, critical: i64) -> Heat {
    match critical - temperature {
        ..=4_999 => Heat::Critical,
        5_000..=12_000 => Heat::Serious,
        12_001..=20_000 => Heat::Fair,
        _ => Heat::Nominal,
    }
}

/// Time since the last input, from `loginctl show-session -p IdleHint -p IdleSinceHint` and now, in microseconds since
/// 1970.
pub fn linux_idle(text: &str, now_us: u64) -> Option<Duration> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if value("IdleHint")? == "no" {
        return Some(Duration::ZERO);
    }
    let since: u64 = value("IdleSinceHint")?.trim().parse().ok()?;
    Some(Duration::from_micros(now_us.saturating_sub(since)))
}

/// The file of a loaded library, from `/proc/self/maps`; `name` is its file name up to the first dot.
pub fn linux_loaded_library<'a>(maps: &'a str, name: &str) -> Option<&'a str> {
    maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).find(|path| {
        let file = path.rsplit('/').next().unwrap_or_default();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".so"))
    })
}

/// Whether a Linux `status` file reports SIGHUP (signal 1) as ignored.
pub fn linux_ignores_hang_ups(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: &str = include_str!("../tests/fixtures/mac-hardware-ports.txt");
    const IFCONFIG: &str = include_str!("../tests/fixtures/mac-ifconfig.txt");

    #[test]
    fn what_nohup_starts_ignores_hang_ups() {
        assert!(linux_ignores_hang_ups("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!linux_ignores_hang_ups("SigIgn:\t0000000000001000\n"));
        assert!(!linux_ignores_hang_ups(""));
    }

    #[test]
    fn a_macs_interfaces_are_told_apart_by_ports_and_members() {
        let (ports, bridges) = (mac_hardware_ports(PORTS), mac_bridge_members(IFCONFIG));
        let kind = |name: &str| mac_kind(name, &ports, &bridges);
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
        let ports = mac_hardware_ports(PORTS);
        let bridges = mac_bridge_members(&IFCONFIG.replace("bridge0", "bridge7"));
        assert_eq!(mac_kind("bridge7", &ports, &bridges), InterfaceKind::Thunderbolt);
    }

    #[test]
    fn a_macs_power_and_idle_time_are_read() {
        let battery = mac_power(include_str!("../tests/fixtures/mac-pmset-battery.txt"));
        assert_eq!(battery, Power { on_battery: true, battery_percent: Some(73), low_power_mode: false });
        let mains = mac_power(include_str!("../tests/fixtures/mac-pmset-mains.txt"));
        assert_eq!(mains, Power { on_battery: false, battery_percent: Some(100), low_power_mode: false });
        assert_eq!(mac_power("Now drawing from 'AC Power'\n").battery_percent, None);
        let idle = mac_idle(include_str!("../tests/fixtures/mac-ioreg-hid.txt"));
        assert_eq!(idle, Some(Duration::from_nanos(94_125_500_416)));
        assert_eq!(mac_idle("nothing"), None);
    }

    #[test]
    fn a_linux_interface_is_what_the_kernel_says() {
        let device = |devtype, driver, hardware, tunnel| linux_kind(LinuxDevice { devtype, driver, hardware, tunnel });
        assert_eq!(device(None, Some("igb"), 1, false), InterfaceKind::Ethernet);
        assert_eq!(device(None, None, 1, false), InterfaceKind::Ethernet);
        assert_eq!(device(Some("wlan"), Some("iwlwifi"), 1, false), InterfaceKind::Wifi);
        assert_eq!(device(None, Some("thunderbolt-net"), 1, false), InterfaceKind::Thunderbolt);
        assert_eq!(device(Some("bridge"), None, 1, false), InterfaceKind::Other);
        assert_eq!(device(None, None, 65534, true), InterfaceKind::Vpn);
        assert_eq!(device(Some("wireguard"), None, 65534, false), InterfaceKind::Vpn);
    }

    #[test]
    fn a_linux_laptop_off_its_charger_is_on_battery() {
        let supply = |pairs: &[(&str, &str)]| -> Supply {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), format!("{v}\n"))).collect()
        };
        let battery = supply(&[("type", "Battery"), ("status", "Discharging"), ("capacity", "41")]);
        let charger = |online| supply(&[("type", "Mains"), ("online", online)]);
        let mouse = supply(&[("type", "Battery"), ("scope", "Device"), ("status", "Discharging"), ("capacity", "9")]);
        let power = linux_power(&[mouse.clone(), battery.clone(), charger("0")]);
        assert_eq!(power, Power { on_battery: true, battery_percent: Some(41), low_power_mode: false });
        assert!(!linux_power(&[battery, charger("1")]).on_battery);
        assert_eq!(linux_power(&[mouse]), Power::default());
    }

    #[test]
    fn heat_is_the_distance_to_the_critical_point() {
        assert_eq!(linux_heat(45_000, 100_000), Heat::Nominal);
        assert_eq!(linux_heat(85_000, 100_000), Heat::Fair);
        assert_eq!(linux_heat(92_000, 100_000), Heat::Serious);
        assert_eq!(linux_heat(99_000, 100_000), Heat::Critical);
        assert_eq!(linux_heat(105_000, 100_000), Heat::Critical);
    }

    #[test]
    fn a_loaded_library_is_found_by_its_name() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 12 /usr/bin/hivemind\n\
                    7f00-7f01 rw-p 00000000 00:00 0\n\
                    7f02-7f03 r-xp 00000000 fe:00 15 /opt/my libs/libmlx_extra.so\n\
                    7f02-7f03 r-xp 00000000 fe:00 13 /opt/my libs/libmlx.so\n\
                    7f04-7f05 r-xp 00000000 fe:00 14 /usr/lib/libcudart.so.13.0.48\n\
                    7fff-7fff r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(linux_loaded_library(maps, "libmlx"), Some("/opt/my libs/libmlx.so"));
        assert_eq!(linux_loaded_library(maps, "libcudart"), Some("/usr/lib/libcudart.so.13.0.48"));
        assert_eq!(linux_loaded_library(maps, "libcublas"), None);
    }

    #[test]
    fn a_session_that_is_in_use_is_not_idle() {
        assert_eq!(linux_idle("IdleHint=no\nIdleSinceHint=0\n", 9), Some(Duration::ZERO));
        assert_eq!(linux_idle("IdleHint=yes\nIdleSinceHint=1000000\n", 4_000_000), Some(Duration::from_secs(3)));
        assert_eq!(linux_idle("", 9), None);
    }
}
