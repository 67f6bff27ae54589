//! Linux: landlock restricts files, seccomp system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{Confine, ConfineError, Confinement, Step, search_path};

/// Read at run time by the C library and MLX: their libraries, and the number of processors.
const ALWAYS_READ: [&str; 16] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/status",
    "/proc/self/cgroup",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
];

/// Read in addition by NVIDIA's driver and compiler.
const GPU_READ: [&str; 12] = [
    "/usr",
    "/etc/ld.so.conf.d",
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/proc/self",
    "/proc/sys/vm",
    "/sys/bus/pci",
    "/sys/devices",
    "/sys/module",
    "/sys/class",
    "/etc/alternatives",
];

// Calls that libc has no names for yet. New calls have the same number on every architecture.
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;

/// System calls that a worker does not need: those that reach other processes, the network, or rarely used parts of the
/// kernel.
const REFUSED: &[libc::c_long] = &[
    // The network. For sockets themselves, see `filters`.
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    // Other programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_kcmp,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    // Files: what landlock, or an older version of it, does not cover.
    libc::SYS_mknodat,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
];

/// More of them, which exist only on older architectures.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// x86-64 has a second numbering of the same calls (x32), which is practically unused. Some calls have numbers only
/// there ([`OWN_NUMBERS`]).
#[cfg(target_arch = "x86_64")]
const SECOND_NUMBERS: Option<i64> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const SECOND_NUMBERS: Option<i64> = None;

/// Numbers that only the second numbering has.
const OWN_NUMBERS: std::ops::Range<i64> = 512..548;

pub(super) fn confine(confine: &Confine) -> Result<Step, ConfineError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(refused)?.count();
    let life = if threads > 1 { Life::Before } else { Life::Only };
    let files = confine_files(confine, life).map_err(refused)?;
    match life {
        // Without landlock, a restart gains nothing.
        Life::Before if files => Ok(Step::Restart),
        _ => Ok(Step::Done(Confinement { files, calls: confine_calls(confine)? })),
    }
}

/// Whether this process is confined as it is, or will execute itself again.
#[derive(Clone, Copy)]
enum Life {
    Only,
    Before,
}

/// Limits memory, and filters the system calls of all threads.
pub(super) fn confine_calls(confine: &Confine) -> Result<bool, ConfineError> {
    if let Some(bytes) = confine.memory_bytes {
        let present = rustix::process::getrlimit(rustix::process::Resource::Data).maximum;
        let most = Some(present.map_or(bytes, |present| present.min(bytes)));
        let limit = rustix::process::Rlimit { current: most, maximum: most };
        rustix::process::setrlimit(rustix::process::Resource::Data, limit).map_err(refused)?;
    }
    // Not even the owner's other programs may inspect it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(refused)?;
    let filters = filters(confine.gpu_cache.is_some()).map_err(refused)?;
    // If one filter is rejected, the other is still applied.
    let mut all = true;
    for filter in &filters {
        all &= seccompiler::apply_filter_all_threads(filter).is_ok();
    }
    Ok(all)
}

fn refused(error: impl std::fmt::Display) -> ConfineError {
    ConfineError(error.to_string())
}

/// Allows reading the named files, and nothing else on any file.
fn confine_files(confine: &Confine, life: Life) -> Result<bool, landlock::RulesetError> {
    // The newest landlock version at the time of writing; older kernels enforce the rules they know.
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut libraries = library_folders(&maps);
    libraries.extend(search_path(&std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default()));
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // GPU kernels are compiled while a model runs, from headers beside the libraries.
    let headers: Vec<_> = libraries.iter().filter_map(|folder| Some(folder.parent()?.join("include"))).collect();
    let named = ALWAYS_READ.iter().map(PathBuf::from).chain(libraries).chain(confine.read.iter().cloned());
    let mut ruleset = allow(ruleset, named, read)?;
    if matches!(life, Life::Before) {
        // Executing itself once, and the loader: afterwards the system call is refused.
        let again = std::iter::once(PathBuf::from("/proc/self/exe")).chain(loader(&maps));
        ruleset = allow(ruleset, again, AccessFs::Execute | AccessFs::ReadFile)?;
    }
    if let Some(cache) = &confine.gpu_cache {
        ruleset = allow(ruleset, headers.into_iter(), read)?;
        ruleset = allow(ruleset, GPU_READ.iter().map(PathBuf::from), read)?;
        ruleset = allow(ruleset, gpu_devices(), read | AccessFs::WriteFile | AccessFs::IoctlDev)?;
        // The process names its threads.
        let name = read | AccessFs::WriteFile | AccessFs::Truncate;
        ruleset = allow(ruleset, std::iter::once(PathBuf::from("/proc/self/task")), name)?;
        let keep = AccessFs::from_all(abi) & !AccessFs::Execute;
        ruleset = allow(ruleset, std::iter::once(cache.clone()), keep)?;
    }
    Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// Grants rights on those of the paths that exist.
fn allow(
    ruleset: RulesetCreated,
    paths: impl Iterator<Item = PathBuf>,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let opened = paths.filter_map(|path| Some((path.is_dir(), PathFd::new(path).ok()?)));
    // Files have no entries to list.
    let for_file = rights & AccessFs::from_file(ABI::V6);
    let rules = opened.map(|(is_folder, fd)| Ok(PathBeneath::new(fd, if is_folder { rights } else { for_file })));
    ruleset.add_rules(rules)
}

/// Folders of the libraries mapped into this process: more may be loaded from there.
fn library_folders(maps: &str) -> BTreeSet<PathBuf> {
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let is_library = |file: &&Path| file.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    files.filter(is_library).filter_map(|file| file.parent().map(Path::to_owned)).collect()
}

/// The dynamic loader.
fn loader(maps: &str) -> Option<PathBuf> {
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let is_loader = |file: &&Path| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-"));
    files.into_iter().find(is_loader).map(Path::to_owned)
}

fn gpu_devices() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_nvidia = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("nvidia");
    entries.filter(is_nvidia).map(|entry| entry.path())
}

/// The system call filters. NVIDIA's driver needs a socket with a name of its own (`cuda-uvmfd-…`); without connect,
/// accept or send, it reaches nobody.
fn filters(gpu: bool) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = |rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int| {
        let refuse = SeccompAction::Errno(errno as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, here)?.try_into()
    };
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in REFUSED.iter().chain(REFUSED_HERE) {
        refused.insert(*call, Vec::new());
    }
    let local = libc::AF_UNIX as u64;
    let remote = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, local)?;
    refused.insert(libc::SYS_socket, if gpu { vec![SeccompRule::new(vec![remote])?] } else { Vec::new() });
    if !gpu {
        refused.extend([libc::SYS_bind, libc::SYS_listen].map(|call| (call, Vec::new())));
    }
    let thread = libc::CLONE_THREAD as u64;
    let no_thread = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0)
        .map(|condition| vec![condition])?;
    // Threads are allowed, processes are not.
    refused.insert(libc::SYS_clone, vec![SeccompRule::new(no_thread)?]);
    // Another process's limits.
    let another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    refused.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![another])?]);
    // A signal to another process.
    let own = u64::from(std::process::id());
    let another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    refused.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![another])?]);
    // A filter cannot see its flags, which are in memory; on ENOSYS the C library falls back to the older call.
    let mut unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    if let Some(offset) = SECOND_NUMBERS {
        refused.extend(OWN_NUMBERS.map(|call| (call, Vec::new())));
        let again: Vec<_> = refused.keys().map(|call| (call + offset, Vec::new())).collect();
        refused.extend(again);
        unknown.insert(libc::SYS_clone3 + offset, Vec::new());
    }
    Ok(vec![filter(unknown, libc::ENOSYS)?, filter(refused, libc::EPERM)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_libraries_are_read_from_the_map_of_the_process() {
        let maps = "7f00-7f01 r--p 00000000 fe:00 12 /opt/mlx/lib/libmlx.so\n\
                    7f01-7f02 r-xp 00001000 fe:00 12 /opt/mlx/lib/libmlx.so\n\
                    7f02-7f03 r--p 00000000 fe:00 13 /usr/lib/libc.so.6\n\
                    5500-5501 r--p 00000000 fe:00 14 /home/ann/models/m.gguf\n\
                    7fff-8000 rw-p 00000000 00:00 0 [stack]\n";
        let folders: Vec<_> = library_folders(maps).into_iter().collect();
        assert_eq!(folders, [PathBuf::from("/opt/mlx/lib"), PathBuf::from("/usr/lib")]);
    }

    #[test]
    fn the_loader_is_read_from_the_map_of_the_process() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 12 /usr/lib/libc.so.6\n\
                    7f01-7f02 r-xp 00000000 fe:00 13 /usr/lib/ld-linux-x86-64.so.2\n";
        assert_eq!(loader(maps), Some(PathBuf::from("/usr/lib/ld-linux-x86-64.so.2")));
        let own = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(loader(&own).is_some_and(|path| path.is_file()), "{own}");
    }

    #[test]
    fn the_filters_are_valid() {
        assert_eq!(filters(false).unwrap().len(), 2);
        assert_eq!(filters(true).unwrap().len(), 2);
    }
}
