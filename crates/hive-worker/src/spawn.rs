//! Starting a worker process: this very executable again, with two pipes, a cleared environment and its first message.

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
use tokio::task::JoinHandle;

use super::protocol::encode;
use super::start::{Role, Start};
use crate::mlx_library;

/// Room in a pipe where the system lets one choose: a prompt chunk then takes fewer turns of writing and reading.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// A token reads all weights from one end to the other, and in pages of 4 kB finding them takes a tenth of the time. This asks
/// glibc to ask the kernel for pages of 2 MB; others know no such setting.
const LARGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// What a worker is told of the node's environment; everything else, tokens and keys among it, stays here.
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

/// Words a dying worker leaves that are worth repeating.
const LAST_WORDS: usize = 4;

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system refused.
    #[error("cannot start a worker process: {why}{remedy}", why = .0, remedy = remedy(.0))]
    System(#[from] std::io::Error),
    /// The executable is another one by now. Where a running program cannot be started again from its old file, a
    /// worker of the new version would not understand the node.
    #[error("HiveMind was updated while it ran; restart it")]
    Replaced,
}

/// What to do where too much is open.
fn remedy(error: &std::io::Error) -> &'static str {
    // EMFILE and ENFILE, the same on every system that HiveMind runs on.
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
    /// The end of what it wrote to its standard error: for this machine only, as it may name files.
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

/// A process that has been started, and both ends of its pipes.
pub(crate) struct Spawned {
    pub(crate) orders: Sender,
    pub(crate) answers: Receiver,
    pub(crate) end: End,
}

/// What is left to learn of a process once it has ended.
#[derive(Debug)]
pub(crate) struct End {
    child: Child,
    words: JoinHandle<String>,
}

impl End {
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the process.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.start_kill();
    }

    /// Ends the process if it still runs; says how it ended, and its last words.
    pub(crate) async fn learn(&mut self) -> Death {
        self.kill();
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Death { status, last_words: (&mut self.words).await.unwrap_or_default() }
    }
}

/// Starts a worker for a role. Dropping the result ends it.
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
        // Ctrl-C in a terminal goes to the whole group; only the node decides what it means.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let words = tokio::spawn(last_words(child.stderr.take()));
    let start = encode(&Start::new(role, confine)).map_err(std::io::Error::other)?;
    // A pipe has room for some paths. A process that is gone already is noticed, and named, by whoever listens to it.
    let _ = ours_out.write_all(&start);
    let orders = Sender::from_owned_fd(ours_out.into())?;
    Ok(Spawned { orders, answers: Receiver::from_owned_fd(ours_in.into())?, end: End { child, words } })
}

/// A unit test's executable is no worker: there, a model's text is read by a thread.
#[cfg(any(test, feature = "testing"))]
pub(crate) mod here {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{Command, End, PathBuf, Receiver, Role, Sender, SpawnError, Spawned, pipe};

    static WANTED: AtomicBool = AtomicBool::new(cfg!(test));

    /// From now on, text workers are threads of this process. Only tests call this.
    pub fn read_texts_here() {
        WANTED.store(true, Ordering::Relaxed);
    }

    /// The model of a text worker that is to be a thread.
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
        let end = End { child, words: tokio::spawn(async { String::new() }) };
        let (orders, answers) = (Sender::from_owned_fd(ours_out.into())?, Receiver::from_owned_fd(ours_in.into())?);
        Ok(Spawned { orders, answers, end })
    }
}

/// This executable, as it was when the node started.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may have been replaced")]
fn executable() -> Result<PathBuf, SpawnError> {
    // The running program itself, also when its file has been replaced or removed.
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

/// Notes which executable runs, so that one that replaces it is told apart, and what is open that is no worker's business.
/// Called when a node starts, and before a process starts its first worker.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        hive_host::sandbox::keep_descriptors();
        let _ = executable();
    });
}

fn environment(gpu_cache: Option<&Path>) -> Vec<(&'static str, OsString)> {
    let mut passed: Vec<_> = PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
    // Whoever has chosen settings of glibc's keeps them.
    if cfg!(target_os = "linux") && std::env::var_os(LARGE_PAGES.0).is_none() {
        passed.push((LARGE_PAGES.0, LARGE_PAGES.1.into()));
    }
    if let Some((variable, value)) = mlx_library::environment() {
        passed.retain(|(name, _)| *name != variable);
        passed.push((variable, value));
    }
    if let Some(cache) = gpu_cache {
        // Compiled kernels, by the names that CUDA and MLX know, and what they need on the way.
        for variable in ["CUDA_CACHE_PATH", "MLX_PTX_CACHE_DIR", "TMPDIR"] {
            passed.push((variable, cache.into()));
        }
    }
    passed
}

/// Makes room in a pipe. One who has many pipes may have no more wide ones; narrow ones serve as well.
fn widen(pipe: BorrowedFd) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// The end of what a worker wrote to its standard error.
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
