//! macOS: Apple's frameworks where they are simple to call, command-line tools elsewhere.
//!
//! CI compiles and links this file but cannot run it; `docs/mac-checklist.md` lists what to check on a Mac.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use objc2_foundation::{NSProcessInfo, NSProcessInfoThermalState};
use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice};

use crate::parse::macos as parse;
use crate::sandbox::profile::{self, Rules};
use crate::sandbox::{Confine, ConfineError, Confinement, search_path};
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
        let (ports, bridges) = (parse::hardware_ports(&ports), parse::bridge_members(&bridges));
        crate::interfaces::list(|interface| parse::kind_of(&interface.name, &ports, &bridges))
    }

    fn gpu_working_set_bytes(&self) -> Option<u64> {
        Some(MTLCreateSystemDefaultDevice()?.recommendedMaxWorkingSetSize())
    }

    fn power(&self) -> Power {
        let report = run("/usr/bin/pmset", &["-g", "batt"]).unwrap_or_default();
        Power { low_power_mode: NSProcessInfo::processInfo().isLowPowerModeEnabled(), ..parse::power(&report) }
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
        parse::idle(&run("/usr/sbin/ioreg", &["-c", "IOHIDSystem", "-d", "4"])?)
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

pub(crate) fn ignores_hang_ups() -> bool {
    // SAFETY: all zeros are a valid `sigaction`; with no new action the call only writes to `present`.
    let (told, present) = unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut present), present)
    };
    told == 0 && present.sa_sigaction == libc::SIG_IGN
}

// From libsystem, as used by Apple's own daemons and every browser on the Mac.
unsafe extern "C" {
    fn sandbox_init(profile: *const c_char, flags: u64, error: *mut *mut c_char) -> c_int;
    fn sandbox_free_error(error: *mut c_char);
    fn _dyld_image_count() -> u32;
    fn _dyld_get_image_name(index: u32) -> *const c_char;
}

/// Confines this process with its own sandbox profile. If the system rejects the full profile because of an unknown
/// rule, applies the part that every macOS version supports.
pub(crate) fn confine(confine: &Confine) -> Result<Confinement, ConfineError> {
    let executable = std::env::current_exe().and_then(std::fs::canonicalize).unwrap_or_default();
    let searched = std::env::var_os("DYLD_LIBRARY_PATH").unwrap_or_default();
    let loaded = loaded_libraries().filter_map(|library| library.parent().map(Path::to_owned));
    let home = profile::home(&executable).map(Path::to_owned);
    let libraries: Vec<_> = search_path(&searched).chain(home).chain(loaded).collect();
    match apply(&profile::profile(confine, &libraries, Rules::All)) {
        Ok(()) => Ok(Confinement { files: true, calls: true }),
        Err(_) => apply(&profile::profile(confine, &libraries, Rules::Oldest))
            .map(|()| Confinement { files: true, calls: false }),
    }
}

/// The non-system libraries of this process. GPU kernels are in the folder of MLX's library, wherever that is.
fn loaded_libraries() -> impl Iterator<Item = PathBuf> {
    // SAFETY: both only read the loader's list; a name is valid while its image is loaded, and none is unloaded here.
    let name = |index| unsafe {
        let name = _dyld_get_image_name(index);
        (!name.is_null()).then(|| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())))
    };
    let count = unsafe { _dyld_image_count() };
    let is_systems = |library: &PathBuf| library.starts_with("/usr/lib") || library.starts_with("/System");
    (0..count).filter_map(name).filter(move |library| !is_systems(library))
}

fn apply(rules: &str) -> Result<(), ConfineError> {
    let rules = CString::new(rules).map_err(|_| ConfineError("a path with a NUL".into()))?;
    let mut error = std::ptr::null_mut();
    // SAFETY: the profile is a C string that outlives the call, and `error` has room for one pointer.
    if unsafe { sandbox_init(rules.as_ptr(), 0, &raw mut error) } == 0 {
        return Ok(());
    }
    if error.is_null() {
        return Err(ConfineError("the sandbox was refused".into()));
    }
    // SAFETY: the system's C string, freed once and not used after.
    let why = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    unsafe { sandbox_free_error(error) };
    Err(ConfineError(why))
}
