//! macOS: Apple's frameworks where they answer without ceremony, its own commands where they do not.
//!
//! CI compiles and links this file but cannot run it; `docs/mac-checklist.md` says what to look at on a Mac.

#![allow(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use objc2_foundation::{NSProcessInfo, NSProcessInfoThermalState};
use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice};

use crate::parse;
use crate::secret::{Keychain, SecretStore};
use crate::{Heat, Host, Interface, KeepAwake, KeepAwakeError, Power};

pub(crate) struct Mac;

impl Host for Mac {
    fn machine_id(&self) -> Option<String> {
        machine_uid::get().ok()
    }

    fn chip(&self) -> String {
        let brand = run("/usr/sbin/sysctl", &["-n", "machdep.cpu.brand_string"]);
        brand.map_or_else(|| "Apple silicon".to_owned(), |brand| brand.trim().to_owned())
    }

    fn interfaces(&self) -> Vec<Interface> {
        let ports = run("/usr/sbin/networksetup", &["-listallhardwareports"]).unwrap_or_default();
        let bridges = run("/sbin/ifconfig", &["-a"]).unwrap_or_default();
        let (ports, bridges) = (parse::mac_hardware_ports(&ports), parse::mac_bridge_members(&bridges));
        crate::interfaces::list(|interface| parse::mac_kind(&interface.name, &ports, &bridges))
    }

    fn gpu_working_set_bytes(&self) -> Option<u64> {
        Some(MTLCreateSystemDefaultDevice()?.recommendedMaxWorkingSetSize())
    }

    fn power(&self) -> Power {
        let report = run("/usr/bin/pmset", &["-g", "batt"]).unwrap_or_default();
        Power { low_power_mode: NSProcessInfo::processInfo().isLowPowerModeEnabled(), ..parse::mac_power(&report) }
    }

    fn heat(&self) -> Heat {
        match NSProcessInfo::processInfo().thermalState() {
            NSProcessInfoThermalState::Nominal => Heat::Nominal,
            NSProcessInfoThermalState::Fair => Heat::Fair,
            NSProcessInfoThermalState::Serious => Heat::Serious,
            _ => Heat::Critical,
        }
    }

    fn idle(&self) -> Option<Duration> {
        parse::mac_idle(&run("/usr/sbin/ioreg", &["-c", "IOHIDSystem", "-d", "4"])?)
    }

    fn keep_awake(&self, reason: &str) -> Result<KeepAwake, KeepAwakeError> {
        crate::keep_awake(reason)
    }

    fn secrets(&self, folder: &Path) -> Box<dyn SecretStore> {
        Box::new(Keychain::new(folder))
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
