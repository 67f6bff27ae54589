//! Linux: `/sys`, `/proc` and logind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::parse::linux::{self as parse, Device, Supply};
use crate::secret::{FileSecrets, SecretStore};
use crate::{Heat, Host, Interface, InterfaceKind, KeepAwake, KeepAwakeError, Power};

pub(crate) struct Linux;

impl Host for Linux {
    fn machine_id(&self) -> Option<String> {
        machine_uid::get().ok()
    }

    fn chip(&self) -> String {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
    }

    fn interfaces(&self) -> Vec<Interface> {
        crate::interfaces::list(|interface| kind(&Path::new("/sys/class/net").join(&interface.name)))
    }

    fn gpu_working_set_bytes(&self) -> Option<u64> {
        // Discrete GPUs have memory of their own.
        None
    }

    fn power(&self) -> Power {
        parse::power(&supplies(Path::new("/sys/class/power_supply")))
    }

    fn heat(&self) -> Heat {
        let zones = fs::read_dir("/sys/class/thermal").into_iter().flatten().flatten();
        zones.filter_map(|zone| zone_heat(&zone.path())).max().unwrap_or_default()
    }

    fn idle(&self) -> Option<Duration> {
        let session = std::env::var("XDG_SESSION_ID").ok()?;
        let output = Command::new("loginctl")
            .args(["show-session", &session, "-p", "IdleHint", "-p", "IdleSinceHint"])
            .output()
            .ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        parse::idle(std::str::from_utf8(&output.stdout).ok()?, now.as_micros() as u64)
    }

    fn keep_awake(&self, reason: &str) -> Result<KeepAwake, KeepAwakeError> {
        crate::keep_awake(reason)
    }

    fn secrets(&self, folder: &Path) -> Box<dyn SecretStore> {
        Box::new(FileSecrets::new(folder))
    }
}

fn kind(device: &Path) -> InterfaceKind {
    let uevent = fs::read_to_string(device.join("uevent")).unwrap_or_default();
    let devtype = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    let driver = fs::read_link(device.join("device/driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    let hardware = fs::read_to_string(device.join("type")).ok().and_then(|text| text.trim().parse().ok());
    let tunnel = device.join("tun_flags").exists();
    parse::kind_of(Device { devtype, driver, hardware: hardware.unwrap_or_default(), tunnel })
}

fn supplies(folder: &Path) -> Vec<Supply> {
    let read = |folder: &Path| -> Supply {
        let value = |file: &str| Some((file.to_owned(), fs::read_to_string(folder.join(file)).ok()?));
        ["type", "scope", "status", "online", "capacity"].into_iter().filter_map(value).collect()
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(|supply| read(&supply.path())).collect()
}

fn zone_heat(zone: &Path) -> Option<Heat> {
    let number = |file: &str| -> Option<i64> { fs::read_to_string(zone.join(file)).ok()?.trim().parse().ok() };
    let critical = (0..10).find_map(|trip| {
        let kind = fs::read_to_string(zone.join(format!("trip_point_{trip}_type"))).ok()?;
        (kind.trim() == "critical").then(|| number(&format!("trip_point_{trip}_temp")))?
    })?;
    Some(parse::heat(number("temp")?, critical))
}
