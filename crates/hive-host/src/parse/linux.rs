//! Files and output of Linux.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Heat, InterfaceKind, Power};

/// Attributes of a Linux interface, from `/sys/class/net/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device<'a> {
    /// `DEVTYPE` of `uevent`, for example `wlan` or `bridge`.
    pub(crate) devtype: Option<&'a str>,
    /// The driver of `device`, if there is a device.
    pub(crate) driver: Option<&'a str>,
    /// The hardware type in `type`: 1 is Ethernet, 65534 is none.
    pub(crate) hardware: u32,
    /// Whether it is a tunnel (`tun_flags` exists).
    pub(crate) tunnel: bool,
}

/// The kind of a Linux interface. A virtual Ethernet pair counts as Ethernet, since it behaves like it.
pub(crate) fn kind_of(device: Device<'_>) -> InterfaceKind {
    const ETHERNET: u32 = 1;
    match device {
        Device { devtype: Some("wlan"), .. } => InterfaceKind::Wifi,
        Device { driver: Some("thunderbolt-net"), .. } => InterfaceKind::Thunderbolt,
        Device { tunnel: true, .. } | Device { devtype: Some("wireguard" | "ppp"), .. } => InterfaceKind::Vpn,
        Device { devtype: Some(_), .. } => InterfaceKind::Other,
        Device { hardware: ETHERNET, .. } => InterfaceKind::Ethernet,
        _ => InterfaceKind::Vpn,
    }
}

/// One supply of `/sys/class/power_supply`: its files by name.
pub(crate) type Supply = BTreeMap<String, String>;

/// Power from all supplies of a Linux machine. Without a reported battery, it has none.
pub(crate) fn power(supplies: &[Supply]) -> Power {
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
pub(crate) fn heat(temperature: i64, critical: i64) -> Heat {
    match critical - temperature {
        ..=4_999 => Heat::Critical,
        5_000..=12_000 => Heat::Serious,
        12_001..=20_000 => Heat::Fair,
        _ => Heat::Nominal,
    }
}

/// Time since the last input, from `loginctl show-session -p IdleHint -p IdleSinceHint` and now, in microseconds since
/// 1970.
pub(crate) fn idle(text: &str, now_us: u64) -> Option<Duration> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if value("IdleHint")? == "no" {
        return Some(Duration::ZERO);
    }
    let since: u64 = value("IdleSinceHint")?.trim().parse().ok()?;
    Some(Duration::from_micros(now_us.saturating_sub(since)))
}

/// Whether a Linux `status` file reports SIGHUP (signal 1) as ignored.
pub(crate) fn ignores_hang_ups(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_starts_ignores_hang_ups() {
        assert!(ignores_hang_ups("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hang_ups("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hang_ups(""));
    }

    #[test]
    fn a_linux_interface_is_what_the_kernel_says() {
        let device = |devtype, driver, hardware, tunnel| kind_of(Device { devtype, driver, hardware, tunnel });
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
        let unplugged = power(&[mouse.clone(), battery.clone(), charger("0")]);
        assert_eq!(unplugged, Power { on_battery: true, battery_percent: Some(41), low_power_mode: false });
        assert!(!power(&[battery, charger("1")]).on_battery);
        assert_eq!(power(&[mouse]), Power::default());
    }

    #[test]
    fn heat_is_the_distance_to_the_critical_point() {
        assert_eq!(heat(45_000, 100_000), Heat::Nominal);
        assert_eq!(heat(85_000, 100_000), Heat::Fair);
        assert_eq!(heat(92_000, 100_000), Heat::Serious);
        assert_eq!(heat(99_000, 100_000), Heat::Critical);
        assert_eq!(heat(105_000, 100_000), Heat::Critical);
    }

    #[test]
    fn a_session_that_is_in_use_is_not_idle() {
        assert_eq!(idle("IdleHint=no\nIdleSinceHint=0\n", 9), Some(Duration::ZERO));
        assert_eq!(idle("IdleHint=yes\nIdleSinceHint=1000000\n", 4_000_000), Some(Duration::from_secs(3)));
        assert_eq!(idle("", 9), None);
    }
}
