//! Memory of the machine and of processes.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Installed.
    pub total_bytes: u64,
    /// Available without evicting anything, so it can be offered to a swarm.
    pub available_bytes: u64,
}

impl Memory {
    /// Queries the system; `None` if it does not answer.
    pub fn now() -> Option<Self> {
        let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(what).ok()?;
        Some(Self { total_bytes: system.total_memory(), available_bytes: system.available_memory() })
    }
}

/// This process's peak resident memory in bytes; `None` if the system does not say.
pub fn own_peak_bytes() -> Option<u64> {
    if cfg!(target_os = "linux") {
        parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
    } else {
        // macOS keeps no such figure in a file; current resident memory is the closest without a system call.
        resident_bytes(std::process::id())
    }
}

/// A process's private resident memory in bytes; `None` if there is no such process. On Linux this excludes file-backed
/// pages, which the system reclaims when needed. GPU memory does not count.
pub fn resident_bytes(process_id: u32) -> Option<u64> {
    if cfg!(target_os = "linux") {
        parse_resident(&std::fs::read_to_string(format!("/proc/{process_id}/status")).ok()?)
    } else {
        let mut system = System::new().ok()?;
        let pid = sysinfo::Pid::from_u32(process_id);
        let _ = system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
        Some(system.process(pid)?.memory())
    }
}

/// `VmHWM` of a Linux `status` file.
fn parse_peak(status: &str) -> Option<u64> {
    parse_kib(status, "VmHWM:")
}

/// `RssAnon` and `RssShmem` of a Linux `status` file.
fn parse_resident(status: &str) -> Option<u64> {
    Some(parse_kib(status, "RssAnon:")? + parse_kib(status, "RssShmem:")?)
}

/// A value in kibibytes, converted to bytes.
fn parse_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
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
    fn what_a_process_has_for_itself_is_read_in_bytes() {
        let status = "RssAnon:\t  2048 kB\nRssFile:\t 900 kB\nRssShmem:\t  1 kB\n";
        assert_eq!(parse_resident(status), Some(2049 * 1024));
        assert_eq!(parse_resident("RssAnon:\t 1 kB\n"), None);
    }

    #[test]
    fn what_this_process_takes_is_seen_in_what_it_has_resident() {
        let before = resident_bytes(std::process::id()).unwrap();
        let taken = vec![7u8; 64 << 20];
        let after = resident_bytes(std::process::id()).unwrap();
        assert!(after >= before + (60 << 20), "{before} {after} {}", taken[9]);
        assert_eq!(resident_bytes(u32::MAX), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::now().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    }
}
