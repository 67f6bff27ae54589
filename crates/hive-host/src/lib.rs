//! Knows this machine: its name, memory and processors, and where HiveMind keeps its files on it.

pub mod folders;
pub mod memory;

use std::num::NonZero;

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
