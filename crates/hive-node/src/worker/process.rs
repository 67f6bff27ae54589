//! The node's side of a worker: start it, talk to it, notice its end.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;

use super::protocol::{FromWorker, MAX_MESSAGE_BYTES, ToWorker, encode};
use crate::mlx_library;

/// Orders on their way to a worker. A sender that outruns the worker waits.
const WAITING_ORDERS: usize = 256;

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
    /// The process ended: how, and its last words.
    Died(String),
}

/// A running worker. Dropping it ends the process.
#[derive(Debug)]
pub struct Worker {
    socket: Arc<OwnedWriteHalf>,
    /// Orders that the socket had no room for.
    late: mpsc::Sender<Vec<u8>>,
    /// How many of them wait; while there are any, no order may overtake them.
    waiting: Arc<AtomicUsize>,
    process_id: Option<u32>,
}

impl Worker {
    /// Starts a worker; what it says arrives on the receiver, in order, its death last.
    pub fn spawn() -> Result<(Self, mpsc::Receiver<WorkerEvent>), SpawnError> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(super::SUBCOMMAND)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group; only the node decides what it means.
            .process_group(0)
            .kill_on_drop(true);
        if let Some((variable, value)) = mlx_library::environment() {
            command.env(variable, value);
        }
        let mut child = command.spawn()?;
        let process_id = child.id();
        let stderr = child.stderr.take();
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        let (socket, waiting) = (Arc::new(write), Arc::new(AtomicUsize::new(0)));
        let (late, late_orders) = mpsc::channel(WAITING_ORDERS);
        let (events, event_queue) = mpsc::channel(WAITING_ORDERS);
        tokio::spawn(write_late(socket.clone(), late_orders, waiting.clone()));
        tokio::spawn(watch(read, child, stderr, events));
        Ok((Self { socket, late, waiting, process_id }, event_queue))
    }

    /// Sends an order. A worker that has died takes none; its death is told by the receiver.
    ///
    /// Written from here where the socket has room, which it has while tokens go through: handing every order to a task
    /// would cost a wake-up per token.
    pub async fn order(&self, order: ToWorker) {
        let Ok(mut bytes) = encode(&order) else { return };
        if self.waiting.load(Ordering::Acquire) == 0 {
            match self.socket.try_write(&bytes) {
                Ok(written) if written == bytes.len() => return,
                Ok(written) => drop(bytes.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = self.late.send(bytes).await;
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process_id
    }
}

/// Writes what the socket had no room for. Ends when the [`Worker`] is dropped; with both of them the socket closes, and
/// that ends the process.
async fn write_late(socket: Arc<OwnedWriteHalf>, mut orders: mpsc::Receiver<Vec<u8>>, waiting: Arc<AtomicUsize>) {
    while let Some(bytes) = orders.recv().await {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            if socket.writable().await.is_err() {
                return;
            }
            match socket.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn watch(
    mut read: OwnedReadHalf,
    mut child: Child,
    stderr: Option<ChildStderr>,
    events: mpsc::Sender<WorkerEvent>,
) {
    let words = tokio::spawn(last_words(stderr));
    while let Some(message) = read_message(&mut read).await {
        if events.send(WorkerEvent::Said(message)).await.is_err() {
            return;
        }
    }
    let _ = child.start_kill();
    let how = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let words = words.await.unwrap_or_default();
    let _ = events.send(WorkerEvent::Died(if words.is_empty() { how } else { format!("{how}: {words}") })).await;
}

async fn read_message(read: &mut OwnedReadHalf) -> Option<FromWorker> {
    let length = read.read_u32_le().await.ok()? as usize;
    if length > MAX_MESSAGE_BYTES {
        return None;
    }
    let mut bytes = vec![0; length];
    read.read_exact(&mut bytes).await.ok()?;
    postcard::from_bytes(&bytes).ok()
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
