//! The node's side of a worker: starts it, sends orders, and detects its end.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use hive_host::sandbox::{Confine, Confinement, paths_of};
use hive_text::split::files_of;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::protocol::{FromWorker, ToWorker, encode, next_whole};
use super::spawn::{Death, End, SpawnError, Spawned, spawn};
use super::start::Role;

/// Queued orders above which the node should take no more work for a worker.
const WAITING_ORDERS: usize = 64;

/// Read size; a prompt chunk's hidden states take a few reads.
const READ_BYTES: usize = 256 << 10;

/// A message from a worker, or its end.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A message.
    Said(FromWorker),
    /// The process ended.
    Died(Death),
}

/// A running worker. Dropping it kills the process.
#[derive(Debug)]
pub struct Worker {
    orders: Arc<Sender>,
    /// Orders that did not fit into the pipe. Unbounded, because a node that blocked here would not read the worker's
    /// messages, and a worker that cannot write reads no orders; [`Worker::has_room`] is the bound.
    late: mpsc::UnboundedSender<Vec<u8>>,
    /// Length of that queue; while it is not empty, every order goes through it.
    waiting: Arc<AtomicUsize>,
    process_id: Option<u32>,
    /// Writes the queue.
    _writer: Option<AbortOnDropHandle<()>>,
}

impl Worker {
    /// Starts a worker that may read a model; returns it with its events.
    pub fn spawn(model: &Path) -> Result<(Self, Events), SpawnError> {
        let Spawned { orders, answers, end } = spawn(Role::Shard, confine(paths_of(&files_of(model))))?;
        let process_id = end.process_id();
        let (orders, waiting) = (Arc::new(orders), Arc::new(AtomicUsize::new(0)));
        let (late, late_orders) = mpsc::unbounded_channel();
        #[allow(clippy::disallowed_methods, reason = "it ends with the handle to the worker")]
        let writer = tokio::spawn(write_late(orders.clone(), late_orders, waiting.clone()));
        let events = Events { answers, has_begun: false, bytes: BytesMut::new(), end: Some(end) };
        let writer = Some(AbortOnDropHandle::new(writer));
        Ok((Self { orders, late, waiting, process_id, _writer: writer }, events))
    }

    /// A worker without a process, and the pipe with its orders, for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn that_only_listens() -> (Self, std::io::PipeReader) {
        let (theirs, ours) = std::io::pipe().expect("a test may open a pipe");
        let (orders, (late, _)) =
            (Arc::new(Sender::from_owned_fd(ours.into()).expect("it is a pipe")), mpsc::unbounded_channel());
        (Self { orders, late, waiting: Arc::default(), process_id: None, _writer: None }, theirs)
    }

    /// Sends an order. A dead worker ignores it; [`Events`] reports the death.
    ///
    /// Writes directly if the pipe has room, as it has while decoding: passing every order to a task would cost a
    /// wake-up per token.
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

    /// Whether the worker keeps up. One that falls behind sends a message before it catches up.
    pub fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < WAITING_ORDERS
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process_id
    }
}

/// A worker's messages in order, its death last. Read directly by the task that acts on them: a task in between would
/// cost a wake-up per token.
#[derive(Debug)]
pub struct Events {
    answers: Receiver,
    /// Whether the first message, the confinement in force, has arrived.
    has_begun: bool,
    /// Bytes of an incomplete message.
    bytes: BytesMut,
    /// Taken once the death has been reported.
    end: Option<End>,
}

impl Events {
    /// Events of a worker without a process: none, ever.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn none() -> Self {
        let (ours, theirs) = std::io::pipe().expect("a test may open a pipe");
        let answers = Receiver::from_owned_fd(ours.into()).expect("it is a pipe");
        drop(theirs);
        Self { answers, has_begun: true, bytes: BytesMut::new(), end: None }
    }

    /// The next event; `None` after the worker's death. Cancel-safe.
    pub async fn next(&mut self) -> Option<WorkerEvent> {
        loop {
            match self.next_whole() {
                Ok(Some(message)) => return Some(WorkerEvent::Said(message.at_the_border())),
                Ok(None) => {}
                Err(_) => break,
            }
            self.bytes.reserve(READ_BYTES);
            match self.answers.read_buf(&mut self.bytes).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.bytes.clear();
        let how = self.end.as_mut()?.learn().await;
        self.end = None;
        Some(WorkerEvent::Died(how))
    }

    fn next_whole(&mut self) -> Result<Option<FromWorker>, postcard::Error> {
        if !self.has_begun {
            let Some(confinement) = next_whole::<Confinement>(&mut self.bytes)? else { return Ok(None) };
            self.has_begun = true;
            if !confinement.is_whole() {
                tracing::warn!("this system can sandbox a worker only in part: {confinement:?}");
            }
        }
        next_whole(&mut self.bytes)
    }

    /// Kills the process; its death is reported as any other.
    pub fn kill(&mut self) {
        if let Some(end) = &mut self.end {
            end.kill();
        }
    }
}

/// The confinement of a shard worker that reads these files.
pub(super) fn confine(read: Vec<PathBuf>) -> Confine {
    let uses_gpu = cfg!(target_os = "macos") || hive_host::has_nvidia_card();
    Confine { read, gpu_cache: gpu_cache().filter(|_| uses_gpu), memory_bytes: None }
}

/// The folder where a GPU driver caches compiled kernels.
fn gpu_cache() -> Option<PathBuf> {
    let folder = hive_host::folders::cache()?.join("gpu");
    hive_host::folders::create_private(&folder).ok()?;
    Some(folder)
}

/// Writes orders that did not fit into the pipe. Ends when the [`Worker`] is dropped; then the pipe closes, which ends
/// the process.
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
