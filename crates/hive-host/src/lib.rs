//! The host machine: its name, memory and processors, interfaces, power, heat and activity, and where HiveMind keeps
//! its files and its secret on it.
//!
//! Differences between systems are behind one trait, [`Host`], with a small file per system. Pure functions (`parse.rs`)
//! read what those systems print and are tested on recordings, so the macOS half is tested on any system.

pub mod folders;
pub mod memory;
pub mod sandbox;
pub mod secret;

mod awake;
mod colours;
mod energy;
mod host;
mod interfaces;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod parse;

use std::num::NonZero;

use awake::keep_awake;

pub use awake::{KeepAwake, KeepAwakeError};
pub use colours::are_wanted_on_stderr as colours_on_stderr;
pub use energy::{Heat, Power};
pub use host::Host;
pub use interfaces::{Interface, InterfaceKind};
pub use memory::Memory;
pub use secret::{SecretError, SecretStore};

/// Whether this process was started to outlive its terminal, as `nohup` does. Then a closed terminal does not end it.
pub fn outlives_its_terminal() -> bool {
    #[cfg(target_os = "linux")]
    return parse::linux::ignores_hang_ups(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    #[cfg(target_os = "macos")]
    return macos::ignores_hang_ups();
}

/// The host this process runs on.
pub fn this() -> &'static dyn Host {
    #[cfg(target_os = "linux")]
    return &linux::Linux;
    #[cfg(target_os = "macos")]
    return &macos::Mac;
}

/// The computer's name, or "this machine" if it has none.
pub fn name() -> String {
    sysinfo::System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "this machine".to_owned())
}

/// Hardware threads.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The file from which this process has loaded a library, by its name up to the first dot; `None` if it has not, or the
/// system does not say.
pub fn loaded_library(name: &str) -> Option<std::path::PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    parse::loaded_library(&maps, name).map(Into::into)
}

/// Whether the machine has an NVIDIA GPU whose driver is loaded.
pub fn has_nvidia_card() -> bool {
    cfg!(target_os = "linux") && std::path::Path::new("/dev/nvidiactl").exists()
}
