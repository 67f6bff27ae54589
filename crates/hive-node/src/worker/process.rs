//! The node's side of a worker: start it, talk to it, notice its end.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
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
    orders: mpsc::Sender<ToWorker>,
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
        let (orders, order_queue) = mpsc::channel(WAITING_ORDERS);
        let (events, event_queue) = mpsc::channel(WAITING_ORDERS);
        tokio::spawn(write_orders(write, order_queue));
        tokio::spawn(watch(read, child, stderr, events));
        Ok((Self { orders, process_id }, event_queue))
    }

    /// Sends an order. A worker that has died takes none; its death is told by the receiver.
    pub async fn order(&self, order: ToWorker) {
        let _ = self.orders.send(order).await;
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process_id
    }
}

/// Ends when the [`Worker`] is dropped; the socket's closing ends the process.
async fn write_orders(mut write: OwnedWriteHalf, mut orders: mpsc::Receiver<ToWorker>) {
    while let Some(order) = orders.recv().await {
        let Ok(bytes) = encode(&order) else { continue };
        if write.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _ = write.shutdown().await;
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
