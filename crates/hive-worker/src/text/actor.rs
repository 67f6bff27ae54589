//! The node's end of a text worker: forwards orders, matches replies, and restarts a process that died.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::BytesMut;
use hive_host::sandbox::{Confine, paths_of};
use hive_net::border;
use hive_text::split::files_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::super::protocol::{encode, next_whole};
use super::super::spawn::{End, SpawnError, Spawned, spawn};
use super::super::start::Role;
use super::error::{StartFailure, TextError};
use super::order::{Numbered, Order, Reply, Said};

/// Memory limit for reading a model's text: the largest vocabularies need a quarter of it.
const MEMORY_BYTES: u64 = 2 << 30;

/// The confinement of a text worker that reads these files.
pub(crate) fn confine(read: Vec<PathBuf>) -> Confine {
    Confine { read, gpu_cache: None, memory_bytes: Some(MEMORY_BYTES) }
}

/// Read size.
const READ_BYTES: usize = 64 << 10;

/// Attempts per order: a second crash shows that this order causes it.
const TRIES: u32 = 2;

pub(super) enum Ask {
    Order(Order, oneshot::Sender<Result<Reply, TextError>>),
    /// Restart the process, which hangs.
    Restart,
}

/// An order without a reply yet.
struct Pending {
    order: Order,
    reply: oneshot::Sender<Result<Reply, TextError>>,
    tries: u32,
}

struct Running {
    orders: mpsc::UnboundedSender<Vec<u8>>,
    answers: Receiver,
    bytes: BytesMut,
    end: End,
    _writer: AbortOnDropHandle<()>,
}

pub(super) struct Actor {
    model: PathBuf,
    running: Option<Running>,
    pending: BTreeMap<u64, Pending>,
    next: u64,
}

impl Actor {
    pub(super) fn new(model: PathBuf) -> Self {
        Self { model, running: None, pending: BTreeMap::new(), next: 0 }
    }

    /// Serves until all senders are dropped; that ends the process.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    None => return,
                    Some(Ask::Order(order, reply)) => self.take(order, reply),
                    // If several orders timed out together, the first has already restarted the process.
                    Some(Ask::Restart) if self.pending.values().any(|pending| pending.reply.is_closed()) => {
                        self.restart().await;
                    }
                    Some(Ask::Restart) => {}
                },
                said = next(&mut self.running) => match said {
                    Some(Said::Confined(confinement)) if !confinement.is_whole() => {
                        tracing::debug!("this system can sandbox the text worker only in part: {confinement:?}");
                    }
                    Some(Said::Confined(_)) => {}
                    Some(Said::Reply(Numbered { number, what })) => {
                        if let Some(pending) = self.pending.remove(&number) {
                            let reply = what.map_err(|failure| TextError::Fault(failure.fault, border::reason(&failure.why)));
                            let _ = pending.reply.send(reply);
                        }
                    }
                    None => self.restart().await,
                },
            }
        }
    }

    fn take(&mut self, order: Order, reply: oneshot::Sender<Result<Reply, TextError>>) {
        self.next += 1;
        self.pending.insert(self.next, Pending { order, reply, tries: 1 });
        if self.running.is_some() {
            self.send(self.next);
        } else {
            self.start();
        }
    }

    /// Retries pending orders once; fails those that have used their attempts.
    async fn restart(&mut self) {
        let how = match self.running.take() {
            Some(mut running) => running.end.learn().await,
            None => return,
        };
        for (number, pending) in std::mem::take(&mut self.pending) {
            if pending.reply.is_closed() {
                continue;
            }
            if pending.tries >= TRIES {
                let _ = pending.reply.send(Err(TextError::Died(how.to_string())));
            } else {
                self.pending.insert(number, Pending { tries: pending.tries + 1, ..pending });
            }
        }
        tracing::warn!("the process that reads a model's text ended: {how}");
        if !self.pending.is_empty() {
            self.start();
        }
    }

    /// Starts the process and sends it all pending orders.
    fn start(&mut self) {
        match spawn(Role::Text(self.model.clone()), confine(paths_of(&files_of(&self.model)))) {
            Ok(Spawned { orders, answers, end }) => {
                let (sender, queue) = mpsc::unbounded_channel();
                #[allow(clippy::disallowed_methods, reason = "it ends with the process it writes to")]
                let writer = AbortOnDropHandle::new(tokio::spawn(write(orders, queue)));
                self.running = Some(Running { orders: sender, answers, bytes: BytesMut::new(), end, _writer: writer });
                for number in self.pending.keys().copied().collect::<Vec<_>>() {
                    self.send(number);
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &SpawnError) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            let _ = pending.reply.send(Err(StartFailure(error.to_string()).into()));
        }
    }

    fn send(&self, number: u64) {
        let (Some(running), Some(pending)) = (&self.running, self.pending.get(&number)) else { return };
        if let Ok(bytes) = encode(&Numbered { number, what: &pending.order }) {
            // A dead process is detected by its reader.
            let _ = running.orders.send(bytes);
        }
    }
}

/// The next message of the process; `None` once it has ended or violates the protocol. Pending while none runs.
async fn next(running: &mut Option<Running>) -> Option<Said> {
    let Some(running) = running else { return std::future::pending().await };
    loop {
        match next_whole(&mut running.bytes) {
            Ok(Some(said)) => return Some(said),
            Ok(None) => {}
            Err(_) => return None,
        }
        running.bytes.reserve(READ_BYTES);
        match running.answers.read_buf(&mut running.bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// Writes orders in sequence. Ends with the process, or when it is abandoned.
async fn write(mut pipe: Sender, mut orders: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(order) = orders.recv().await {
        if pipe.write_all(&order).await.is_err() {
            return;
        }
    }
}
