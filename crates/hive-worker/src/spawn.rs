//! Starts a worker process: this executable, with two pipes, a cleared environment and a first message.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;

use hive_host::sandbox::Confine;
use hive_net::border;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, ChildStderr, Command};
use tokio_util::task::AbortOnDropHandle;

use super::protocol::encode;
use super::start::{Role, Start};
use crate::mlx_library;

/// Pipe capacity, where the system allows choosing it: a prompt chunk then takes fewer reads and writes.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// A token reads all weights from one end to the other; with 4 kB pages, address translation takes a tenth of the time.
/// This tells glibc to request 2 MB pages; other C libraries ignore it.
const LARGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// The environment variables that a worker inherits; all others, such as tokens and keys, are removed.
const PASSED_ON: [&str; 13] = [
    "GLIBC_TUNABLES",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
];

/// Lines of a dying worker's standard error to keep.
const LAST_WORDS: usize = 4;

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system failed.
    #[error("cannot start a worker process: {why}{remedy}", why = .0, remedy = remedy(.0))]
    System(#[from] std::io::Error),
    /// The executable on disk has changed. Where a running program cannot be started from its old file, a worker of the
    /// new version would not understand the node.
    #[error("HiveMind was updated while it ran; restart it")]
    Replaced,
}

/// The remedy for too many open files.
fn remedy(error: &std::io::Error) -> &'static str {
    // EMFILE and ENFILE, the same on every supported system.
    match error.raw_os_error() {
        Some(23 | 24) => "; close other programs, or start HiveMind where more is allowed (`ulimit -n 1024`)",
        _ => "",
    }
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Its exit status or signal.
    pub status: String,
    /// The last lines of its standard error; they may name files, so they stay on this machine.
    pub last_words: String,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.last_words.as_str() {
            "" => f.write_str(&self.status),
            words => write!(f, "{}: {words}", self.status),
        }
    }
}

/// A started process, and both ends of its pipes.
pub(crate) struct Spawned {
    pub(crate) orders: Sender,
    pub(crate) answers: Receiver,
    pub(crate) end: End,
}

/// Collects the exit status and last words of a process.
#[derive(Debug)]
pub(crate) struct End {
    child: Child,
    /// Reads its standard error.
    words: AbortOnDropHandle<String>,
}

impl End {
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.start_kill();
    }

    /// Kills the process if it still runs; returns how it ended, and its last words.
    pub(crate) async fn learn(&mut self) -> Death {
        self.kill();
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Death { status, last_words: (&mut self.words).await.unwrap_or_default() }
    }
}

/// Starts a worker for a role. Dropping the result kills it.
pub(crate) fn spawn(role: Role, confine: Confine) -> Result<Spawned, SpawnError> {
    prepare();
    #[cfg(any(test, feature = "testing"))]
    if let Some(model) = here::model(&role) {
        return here::serve(model);
    }
    let ((theirs_in, mut ours_out), (ours_in, theirs_out)) = (pipe()?, pipe()?);
    for end in [ours_out.as_fd(), ours_in.as_fd()] {
        widen(end);
    }
    let mut command = Command::new(executable()?);
    command
        .arg0(role.process_name())
        .arg(super::SUBCOMMAND)
        .env_clear()
        .envs(environment(confine.gpu_cache.as_deref()))
        .current_dir("/")
        .stdin(theirs_in)
        .stdout(theirs_out)
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal signals the whole process group; the node decides how to react.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    #[allow(clippy::disallowed_methods, reason = "it ends with the handle to the process")]
    let words = AbortOnDropHandle::new(tokio::spawn(last_words(child.stderr.take())));
    let start = encode(&Start::new(role, confine)).map_err(std::io::Error::other)?;
    // The message fits into the pipe. If the process has already died, the reader of its messages reports that.
    let _ = ours_out.write_all(&start);
    let orders = Sender::from_owned_fd(ours_out.into())?;
    Ok(Spawned { orders, answers: Receiver::from_owned_fd(ours_in.into())?, end: End { child, words } })
}

/// A unit test's executable is not a worker: there, a thread reads a model's text.
#[cfg(any(test, feature = "testing"))]
pub(crate) mod here {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{AbortOnDropHandle, Command, End, PathBuf, Receiver, Role, Sender, SpawnError, Spawned, pipe};

    static WANTED: AtomicBool = AtomicBool::new(cfg!(test));

    /// Runs text workers as threads of this process from now on. For tests only.
    pub fn read_texts_here() {
        WANTED.store(true, Ordering::Relaxed);
    }

    /// The model of a text worker that is to run as a thread.
    pub(super) fn model(role: &Role) -> Option<PathBuf> {
        match role {
            Role::Text(model) if WANTED.load(Ordering::Relaxed) => Some(model.clone()),
            _ => None,
        }
    }

    pub(super) fn serve(model: PathBuf) -> Result<Spawned, SpawnError> {
        let ((theirs_in, ours_out), (ours_in, theirs_out)) = (pipe()?, pipe()?);
        let [orders, answers] = [theirs_in.into(), theirs_out.into()].map(|end: std::os::fd::OwnedFd| end.into());
        std::thread::spawn(move || {
            crate::text::serve(&model, hive_host::sandbox::Confinement::default(), orders, answers)
        });
        let child = Command::new("true").kill_on_drop(true).spawn()?;
        #[allow(clippy::disallowed_methods, reason = "it has ended")]
        let end = End { child, words: AbortOnDropHandle::new(tokio::spawn(async { String::new() })) };
        let (orders, answers) = (Sender::from_owned_fd(ours_out.into())?, Receiver::from_owned_fd(ours_in.into())?);
        Ok(Spawned { orders, answers, end })
    }
}

/// This executable, as it was when the node started.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may have been replaced")]
fn executable() -> Result<PathBuf, SpawnError> {
    // The running program itself, even if its file was replaced or removed.
    Ok(PathBuf::from("/proc/self/exe"))
}

#[cfg(not(target_os = "linux"))]
fn executable() -> Result<PathBuf, SpawnError> {
    use std::os::unix::fs::MetadataExt;
    use std::sync::OnceLock;

    static AT_FIRST: OnceLock<(PathBuf, (u64, u64, i64, i64))> = OnceLock::new();
    let identity =
        |path: &Path| std::fs::metadata(path).map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
    let path = std::env::current_exe()?;
    let now = identity(&path).map_err(|_| SpawnError::Replaced)?;
    let (path, at_first) = AT_FIRST.get_or_init(|| (path, now));
    if now == *at_first { Ok(path.clone()) } else { Err(SpawnError::Replaced) }
}

/// Records which executable runs, to detect a replaced one, and marks open descriptors as not inheritable. Called when
/// a node starts, and before a process starts its first worker.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        hive_host::sandbox::keep_descriptors();
        let _ = executable();
    });
}

fn environment(gpu_cache: Option<&Path>) -> Vec<(&'static str, OsString)> {
    let mut passed: Vec<_> = PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
    // The user's own glibc settings take precedence.
    if cfg!(target_os = "linux") && std::env::var_os(LARGE_PAGES.0).is_none() {
        passed.push((LARGE_PAGES.0, LARGE_PAGES.1.into()));
    }
    // MLX for CUDA keeps compiled graphs of steps, at most 400. It counts the new ones of a process's whole life, and from
    // the 801st on it refuses each, unless it is told not to. Old ones make room in any case.
    passed.push(("MLX_ENABLE_CACHE_THRASHING_CHECK", "0".into()));
    if let Some((variable, value)) = mlx_library::environment() {
        passed.retain(|(name, _)| *name != variable);
        passed.push((variable, value));
    }
    if let Some(cache) = gpu_cache {
        // The variables of CUDA and MLX for compiled kernels, and for temporary files while compiling.
        for variable in ["CUDA_CACHE_PATH", "MLX_PTX_CACHE_DIR", "TMPDIR"] {
            passed.push((variable, cache.into()));
        }
    }
    passed
}

/// Enlarges a pipe. The system limits the total, and small pipes work as well.
fn widen(pipe: BorrowedFd) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// The last lines of a worker's standard error.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut lines = BufReader::new(stderr).lines();
    let mut last = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        // It may quote a stranger's file.
        let line = border::line(&line, border::REASON_COLUMNS);
        tracing::debug!(target: "worker", "{line}");
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_computes_however_many_kinds_of_steps_it_has_seen() {
        let check = ("MLX_ENABLE_CACHE_THRASHING_CHECK", OsString::from("0"));
        assert!(environment(None).contains(&check));
    }
}
