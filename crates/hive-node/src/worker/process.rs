//! The node's side of a worker: start it, talk to it, notice its end.

use std::collections::VecDeque;
use std::io::{ErrorKind, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::protocol::{FromWorker, MAX_MESSAGE_BYTES, ToWorker, encode};
use crate::mlx_library;

/// Orders that may wait for a worker before its node should take no more work for it.
const WAITING_ORDERS: usize = 64;

/// Read at a time; a prompt chunk's hidden states come in a few.
const READ_BYTES: usize = 256 << 10;

/// Room in a pipe where the system lets one choose: a prompt chunk then takes fewer turns of writing and reading.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// A token reads all weights from one end to the other, and in pages of 4 kB finding them takes a tenth of the time. This asks
/// glibc to ask the kernel for pages of 2 MB; others know no such setting.
const LARGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Words a dying worker leaves that are worth repeating.
const LAST_WORDS: usize = 4;

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a worker process: {0}")]
pub struct SpawnError(#[from] std::io::Error);

/// What a worker says, and its end.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A message.
    Said(FromWorker),
    /// The process ended.
    Died(Death),
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

/// A running worker. Dropping it ends the process.
#[derive(Debug)]
pub struct Worker {
    orders: Arc<Sender>,
    /// Orders that the pipe had no room for. Unbounded, because a node that waited here would not hear the worker,
    /// and a worker that is not heard takes no orders; [`Worker::has_room`] is the bound.
    late: mpsc::UnboundedSender<Vec<u8>>,
    /// How many of them wait; while there are any, no order may overtake them.
    waiting: Arc<AtomicUsize>,
    process_id: Option<u32>,
}

impl Worker {
    /// Starts a worker, and gives what it says.
    pub fn spawn() -> Result<(Self, Events), SpawnError> {
        let ((theirs_in, ours_out), (ours_in, theirs_out)) = (pipe()?, pipe()?);
        for end in [ours_out.as_fd(), ours_in.as_fd()] {
            widen(end);
        }
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(super::SUBCOMMAND)
            .stdin(theirs_in)
            .stdout(theirs_out)
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group; only the node decides what it means.
            .process_group(0)
            .kill_on_drop(true);
        // Whoever has chosen settings of glibc's keeps them.
        if cfg!(target_os = "linux") && std::env::var_os(LARGE_PAGES.0).is_none() {
            command.env(LARGE_PAGES.0, LARGE_PAGES.1);
        }
        if let Some((variable, value)) = mlx_library::environment() {
            command.env(variable, value);
        }
        let mut child = command.spawn()?;
        let process_id = child.id();
        let words = tokio::spawn(last_words(child.stderr.take()));
        let orders = Arc::new(Sender::from_owned_fd(ours_out.into())?);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (late, late_orders) = mpsc::unbounded_channel();
        tokio::spawn(write_late(orders.clone(), late_orders, waiting.clone()));
        let answers = Receiver::from_owned_fd(ours_in.into())?;
        let events = Events { answers, bytes: BytesMut::new(), end: Some(End { child, words }) };
        Ok((Self { orders, late, waiting, process_id }, events))
    }

    /// One that does nothing; its orders can be read.
    #[cfg(test)]
    pub(crate) fn that_only_listens() -> (Self, std::io::PipeReader) {
        let (theirs, ours) = pipe().unwrap();
        let (orders, (late, _)) = (Arc::new(Sender::from_owned_fd(ours.into()).unwrap()), mpsc::unbounded_channel());
        (Self { orders, late, waiting: Arc::default(), process_id: None }, theirs)
    }

    /// Sends an order. A worker that has died takes none; its death is told by [`Events`].
    ///
    /// Written from here where the pipe has room, which it has while tokens go through: handing every order to a task
    /// would cost a wake-up per token.
    pub fn order(&self, order: &ToWorker) {
        let Ok(mut bytes) = encode(order) else { return };
        if self.waiting.load(Ordering::Acquire) == 0 {
            match self.orders.try_write(&bytes) {
                Ok(written) if written == bytes.len() => return,
                Ok(written) => drop(bytes.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = self.late.send(bytes);
    }

    /// Whether the worker keeps up. One that does not will say something before it does.
    pub fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < WAITING_ORDERS
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process_id
    }
}

/// What a worker says, in order, its death last. Read by whoever acts on it: a task in between would cost a wake-up per
/// token.
#[derive(Debug)]
pub struct Events {
    answers: Receiver,
    /// Read but not yet a whole message.
    bytes: BytesMut,
    /// Taken when the death has been told.
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    child: Child,
    words: JoinHandle<String>,
}

impl Events {
    /// Those of a worker that says nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        let (ours, theirs) = pipe().unwrap();
        let answers = Receiver::from_owned_fd(ours.into()).unwrap();
        drop(theirs);
        Self { answers, bytes: BytesMut::new(), end: None }
    }

    /// The next one; `None` after the worker's death. Losing the future loses nothing.
    pub async fn next(&mut self) -> Option<WorkerEvent> {
        loop {
            match next_whole(&mut self.bytes) {
                Ok(Some(message)) => return Some(WorkerEvent::Said(message)),
                Ok(None) => {}
                Err(NotAMessage) => break,
            }
            self.bytes.reserve(READ_BYTES);
            match self.answers.read_buf(&mut self.bytes).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.bytes.clear();
        let End { child, words } = self.end.as_mut()?;
        let _ = child.start_kill();
        let status = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let last_words = words.await.unwrap_or_default();
        self.end = None;
        Some(WorkerEvent::Died(Death { status, last_words }))
    }

    /// Ends the process; its death is told as any other.
    pub fn kill(&mut self) {
        if let Some(End { child, .. }) = &mut self.end {
            let _ = child.start_kill();
        }
    }
}

/// Makes room in a pipe. One who has many pipes may have no more wide ones; narrow ones serve as well.
fn widen(pipe: BorrowedFd) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// Bytes that a whole worker does not say.
struct NotAMessage;

fn next_whole(bytes: &mut BytesMut) -> Result<Option<FromWorker>, NotAMessage> {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(NotAMessage);
    }
    let Some(message) = bytes.get(4..4 + length) else { return Ok(None) };
    let message = postcard::from_bytes(message).map_err(|_| NotAMessage)?;
    bytes.advance(4 + length);
    Ok(Some(message))
}

/// Writes what the pipe had no room for. Ends when the [`Worker`] is dropped; with both of them the pipe closes, and that
/// ends the process.
async fn write_late(pipe: Arc<Sender>, mut late: mpsc::UnboundedReceiver<Vec<u8>>, waiting: Arc<AtomicUsize>) {
    while let Some(bytes) = late.recv().await {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            if pipe.writable().await.is_err() {
                return;
            }
            match pipe.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The end of what a worker wrote to its standard error.
async fn last_words(stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut lines = BufReader::new(stderr).lines();
    let mut last = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(target: "worker", "{line}");
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join(" · ")
}
