//! Knows this machine: its name, memory and processors, its interfaces, power, heat and owner, and where HiveMind keeps
//! its files and its secret on it.
//!
//! What differs between systems stands behind one trait, [`Host`], with a small file per system. What those systems
//! print is read by pure functions ([`parse`]) that are tested on recordings, so that the Mac's half is tested anywhere.

pub mod folders;
pub mod interfaces;
pub mod memory;
pub mod parse;
pub mod sandbox;
pub mod secret;

mod colours;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;

use std::num::NonZero;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use colours::are_wanted_on_stderr as colours_on_stderr;
pub use interfaces::{Interface, InterfaceKind};
pub use memory::Memory;
pub use secret::{SecretError, SecretStore};

/// Whether this process was started to outlive its terminal, as `nohup` does: then a closed terminal is no reason to end.
pub fn outlives_its_terminal() -> bool {
    #[cfg(target_os = "linux")]
    return parse::linux_ignores_hang_ups(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    #[cfg(target_os = "macos")]
    return macos::ignores_hang_ups();
}

/// What this machine tells about itself. Every answer is a snapshot; `None` is "the system does not say".
pub trait Host: Send + Sync {
    /// Identifies the hardware or installation, and survives restarts; a copy of the disk has another one.
    fn machine_id(&self) -> Option<String>;

    /// The processor as its maker calls it: "Apple M4 Pro", "AMD EPYC 9B14".
    fn chip(&self) -> String;

    /// Interfaces that are up and have an address.
    fn interfaces(&self) -> Vec<Interface>;

    /// The most memory the GPU may hold at a time, where it shares the machine's.
    fn gpu_working_set_bytes(&self) -> Option<u64>;

    /// Where the power comes from.
    fn power(&self) -> Power;

    /// How hot the machine is.
    fn heat(&self) -> Heat;

    /// How long nobody has touched keyboard, mouse or screen.
    fn idle(&self) -> Option<Duration>;

    /// Keeps the machine from falling asleep while the result lives; the display may still turn off.
    fn keep_awake(&self, reason: &str) -> Result<KeepAwake, KeepAwakeError>;

    /// Where secrets are kept: the Keychain, or files that only the owner reads in `folder`.
    fn secrets(&self, folder: &std::path::Path) -> Box<dyn SecretStore>;
}

/// This machine.
pub fn this() -> &'static dyn Host {
    #[cfg(target_os = "linux")]
    return &linux::Linux;
    #[cfg(target_os = "macos")]
    return &macos::Mac;
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Whether it is the battery.
    pub on_battery: bool,
    /// Charge of the battery, where there is one.
    pub battery_percent: Option<u8>,
    /// Whether the owner asked the system to save energy.
    pub low_power_mode: bool,
}

/// How hot the machine is, as macOS grades it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heat {
    /// As it should be.
    #[default]
    Nominal,
    /// Warm; fans may be heard.
    Fair,
    /// Hot: the system slows down.
    Serious,
    /// Too hot to go on.
    Critical,
}

/// The machine stays awake as long as this lives.
pub struct KeepAwake {
    _awake: keepawake::KeepAwake,
}

/// Why the machine cannot be kept awake.
#[derive(Debug, thiserror::Error)]
#[error("this machine cannot be kept awake: {0}")]
pub struct KeepAwakeError(String);

fn keep_awake(reason: &str) -> Result<KeepAwake, KeepAwakeError> {
    let created = keepawake::Builder::default()
        .idle(true)
        .reason(reason)
        .app_name("HiveMind")
        .app_reverse_domain("dev.hivemind.desktop")
        .create();
    created.map(|awake| KeepAwake { _awake: awake }).map_err(|error| KeepAwakeError(error.to_string()))
}

/// The computer's name as its owner knows it, or a plain word where it has none.
pub fn name() -> String {
    sysinfo::System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "this machine".to_owned())
}

/// Threads that can compute at the same time.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Whether the machine has an NVIDIA card whose driver is loaded.
pub fn has_nvidia_card() -> bool {
    cfg!(target_os = "linux") && std::path::Path::new("/dev/nvidiactl").exists()
}
