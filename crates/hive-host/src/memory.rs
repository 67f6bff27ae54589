//! Memory of the machine and of processes.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What the machine has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Installed.
    pub total_bytes: u64,
    /// Free to use without pushing anything out: what may be offered to a swarm.
    pub available_bytes: u64,
}

impl Memory {
    /// Asks the system; `None` where it does not answer.
    pub fn now() -> Option<Self> {
        let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(what).ok()?;
        Some(Self { total_bytes: system.total_memory(), available_bytes: system.available_memory() })
    }
}

/// The most memory this process has had resident so far, in bytes; `None` where the system does not tell.
pub fn own_peak_bytes() -> Option<u64> {
    if cfg!(target_os = "linux") {
        parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
    } else {
        // macOS keeps no such figure in a file; what is resident now is the nearest that needs no system call.
        let mut system = System::new().ok()?;
        let pid = sysinfo::get_current_pid().ok()?;
        let _ = system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
        Some(system.process(pid)?.memory())
    }
}

/// `VmHWM` of a Linux `status` file.
fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(parse_peak("Name:\tx\nVmHWM:\t  123456 kB\nVmRSS:\t 1 kB\n"), Some(123_456 * 1024));
        assert_eq!(parse_peak("Name:\tx\n"), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::now().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    }
}
