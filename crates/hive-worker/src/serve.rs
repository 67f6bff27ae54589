//! The worker's side: one thread that owns MLX, reads orders, computes and replies.

mod ahead;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use hive_model::shard::{ForwardError, LoadError, Slot};
use hive_model::{AdapterId, AdapterRefused, CarriedSession, SessionId, SessionOptions, Shard, ShardOptions};
use hive_weights::ModelFiles;
use hive_weights::adapter::Adapter;
use hive_weights::weights::TensorError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::protocol::{
    AdaptFailure, Blame, Ending, FromWorker, LoadOrder, LoadedAdapters, MAX_MESSAGE_BYTES, Raw, ToWorker, Work,
    WorkerReport, encode,
};
use super::schedule::Schedule;
use super::start::{Role, Start};
use super::{probe, text};
use hive_protocol::Arithmetic;

/// Read size; a prompt chunk's hidden states take a few reads.
const READ_BYTES: usize = 256 << 10;

/// A buffer that a long order, such as an adapter, has made larger than this is given back.
const KEPT_BYTES: usize = 64 << 20;

/// MLX's buffer cache is unbounded, and every new prompt length adds buffers. A small limit is as fast, and keeps
/// memory flat. Measured, see docs/performance.md.
const CPU_CACHE_BYTES: usize = 32 << 20;
/// On a GPU, freeing a buffer waits for running computations, so more are kept.
const GPU_CACHE_BYTES: usize = 256 << 20;

/// Serves until the node exits. The process does nothing else.
///
/// # Errors
/// Standard input or output is not a pipe: somebody ran the subcommand manually.
pub fn serve() -> std::io::Result<()> {
    let mut orders = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut replies = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    for pipe in [&orders, &replies] {
        if !pipe.metadata()?.file_type().is_fifo() {
            return Err(std::io::Error::other(
                "this is a worker of a node; start a node instead, it starts its workers itself",
            ));
        }
    }
    // Before any untrusted byte is read, and before a second thread starts.
    let (role, confinement) = Start::take(&mut orders)?;
    // Output of libraries must not mix with the replies.
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    match role {
        Role::Probe(targets) => return probe::serve(&targets, confinement, &mut replies),
        Role::Text(model) => return text::serve(&model, confinement, orders, replies),
        Role::Shard => send(&mut replies, &confinement)?,
    }
    let orders = Orders { pipe: orders, bytes: Vec::new(), unread: 0..0 };
    let (schedule, report) = (Schedule::default(), WorkerReport::default());
    let (imports, endings) = (HashMap::new(), HashMap::new());
    let [stalled, resting] = [(); 2].map(|()| HashSet::new());
    WorkerLoop { replies, orders, schedule, shard: None, report, imports, stalled, resting, endings }.run()
}

/// Reads orders on the computing thread: a separate reader would cost a wake-up per token. During a computation, orders
/// wait in the pipe; the node writes them from a task of its own, so nothing blocks there.
struct Orders {
    pipe: File,
    /// The read buffer, kept between reads: clearing it takes longer than reading a token's order.
    bytes: Vec<u8>,
    /// The part that was read and is not yet a complete order.
    unread: Range<usize>,
}

impl Orders {
    /// Moves every available order to `to`; waits for one if `may_wait` and `to` is empty. `false` if the node is gone.
    fn take(&mut self, to: &mut VecDeque<ToWorker>, may_wait: bool) -> std::io::Result<bool> {
        let mut drained = false;
        loop {
            while let Some(order) = self.next_whole()? {
                to.push_back(order);
            }
            let may_wait = may_wait && to.is_empty();
            if !may_wait && (drained || !self.has_more()?) {
                return Ok(true);
            }
            self.make_room();
            let room = &mut self.bytes[self.unread.end..];
            match self.pipe.read(room) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    drained = read < room.len();
                    self.unread.end += read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether something can be read, without reading it.
    fn has_unread(&self) -> std::io::Result<bool> {
        Ok(!self.unread.is_empty() || self.has_more()?)
    }

    /// Whether the pipe is readable, or at its end.
    fn has_more(&self) -> std::io::Result<bool> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&at_once))? > 0)
    }

    fn next_whole(&mut self) -> std::io::Result<Option<ToWorker>> {
        let unread = &self.bytes[self.unread.clone()];
        let Some(prefix) = unread.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_MESSAGE_BYTES {
            return Err(std::io::Error::other("an order is too long"));
        }
        let Some(message) = unread.get(4..4 + length) else { return Ok(None) };
        let order = postcard::from_bytes(message).map_err(std::io::Error::other)?;
        self.unread.start += 4 + length;
        Ok(Some(order))
    }

    /// Moves unread bytes to the front, to make room behind them.
    fn make_room(&mut self) {
        self.bytes.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.bytes.len() > KEPT_BYTES && self.unread.end < READ_BYTES {
            self.bytes = self.bytes[..self.unread.end].to_vec();
        }
        let wanted = self.unread.end + READ_BYTES;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
    }
}

/// A layer cache larger than this is recomputed, not transferred.
const MAX_CACHE_BYTES: usize = MAX_MESSAGE_BYTES - (1 << 10);

struct WorkerLoop {
    replies: File,
    orders: Orders,
    schedule: Schedule,
    shard: Option<Shard>,
    report: WorkerReport,
    /// Received caches of sessions that are not open yet.
    imports: HashMap<SessionId, Vec<Vec<u8>>>,
    /// Sessions whose latest work failed. Work already queued for them is dropped without a report.
    stalled: HashSet<SessionId>,
    /// Sessions whose answers are done; their caches are retained.
    resting: HashSet<SessionId>,
    /// Answers that run ahead, and when they end.
    endings: HashMap<SessionId, Ending>,
}

impl WorkerLoop {
    fn run(mut self) -> std::io::Result<()> {
        // Orders that arrive during a computation join the next batch. When the node exits, the worker ends.
        let mut orders = VecDeque::new();
        while self.orders.take(&mut orders, self.schedule.is_empty())? {
            for order in orders.drain(..) {
                self.take(order)?;
            }
            if !self.schedule.is_empty() {
                let batch = self.schedule.next(Instant::now());
                self.forward(batch)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, order: ToWorker) -> std::io::Result<()> {
        match order {
            ToWorker::Load(order) => self.load(&order)?,
            ToWorker::Forward(work) => self.schedule.push(work),
            ToWorker::Adapt(id, Raw(config), Raw(tensors)) => {
                let adapted = self.adapt(id, &config, &tensors);
                let loaded = self.shard.as_ref().map_or_else(LoadedAdapters::default, |shard| LoadedAdapters {
                    ids: shard.adapters(),
                    bytes: shard.adapter_bytes() as u64,
                });
                self.send(&FromWorker::Adapted(id, adapted, loaded))?;
            }
            ToWorker::Open(session, options) => {
                self.stalled.remove(&session);
                if let Some(shard) = &mut self.shard
                    && let Err(error) = shard.open(session, options)
                {
                    self.send(&failed(session, None, &error))?;
                }
            }
            ToWorker::Adopt { from, session, position, options } => {
                self.stalled.remove(&from);
                self.resting.remove(&from);
                if let Some(shard) = &mut self.shard {
                    let reply = match shard.adopt(from, session, position as usize, options) {
                        Ok(reached) => FromWorker::Adopted(session, reached as u32),
                        Err(error) => failed(session, None, &error),
                    };
                    self.send(&reply)?;
                }
            }
            ToWorker::RunAhead(session, ending) => {
                self.endings.insert(session, ending);
            }
            ToWorker::Export(session) => self.export(session)?,
            ToWorker::Cache(session, Raw(cache)) => self.imports.entry(session).or_default().push(cache),
            ToWorker::Import(session, options, carried) => {
                let imported = self.import(session, options, carried);
                self.send(&FromWorker::Imported(session, imported))?;
            }
            ToWorker::Rest(session) => {
                self.resting.insert(session);
                self.endings.remove(&session);
                self.schedule.cancel(session);
            }
            ToWorker::Close(session) => {
                self.endings.remove(&session);
                self.schedule.cancel(session);
                self.imports.remove(&session);
                self.stalled.remove(&session);
                self.resting.remove(&session);
                if let Some(shard) = &mut self.shard {
                    shard.close(session);
                }
            }
            ToWorker::Report => {
                let peak_bytes = hive_host::memory::own_peak_bytes();
                let report = WorkerReport { peak_bytes, ..std::mem::take(&mut self.report) };
                self.send(&FromWorker::Report(report))?;
            }
            ToWorker::Check => self.send(&FromWorker::Checked)?,
        }
        Ok(())
    }

    fn load(&mut self, order: &LoadOrder) -> std::io::Result<()> {
        hive_model::device::set_threads(order.threads);
        let on_gpu = hive_model::device::is_gpu();
        hive_model::device::limit_buffer_cache(if on_gpu { GPU_CACHE_BYTES } else { CPU_CACHE_BYTES });
        let files = match ModelFiles::open_for(&order.path, order.at_load) {
            Ok(files) => files,
            Err(error) => return self.send(&FromWorker::LoadFailed(error.to_string())),
        };
        let options = ShardOptions { layers: order.layers.clone(), compute: order.compute };
        let replies = &mut self.replies;
        let loaded = Shard::load(&files, &options, |layers| {
            // Progress only; if it cannot be sent, the node has exited, and this process ends at its next read.
            let _ = send(replies, &FromWorker::Progress(layers));
        });
        match loaded {
            Ok(mut shard) => {
                let layers = shard.layers().len();
                // Progress shows that the worker is at work. If this fails, an answer that fails for the same reason
                // says so.
                let _ = shard.warm_up(|| drop(send(replies, &FromWorker::Progress(layers))));
                let kernels = if shard.is_fast() { "fast" } else { "plain" };
                let device = format!("{}, {kernels}", hive_model::device::describe());
                let arithmetic = match (hive_model::device::is_gpu(), shard.is_fast()) {
                    (true, _) => Arithmetic::Gpu,
                    (false, true) => Arithmetic::Exact,
                    (false, false) => Arithmetic::ByShape,
                };
                self.shard = Some(shard);
                self.schedule = Schedule::of(arithmetic);
                self.send(&FromWorker::Loaded { device, arithmetic })
            }
            Err(LoadError::Tensor(error)) if !matches!(error, TensorError::Read { .. }) => {
                self.send(&FromWorker::Unfit(error.to_string()))
            }
            Err(error) => self.send(&FromWorker::LoadFailed(error.to_string())),
        }
    }

    fn adapt(&mut self, id: AdapterId, config: &[u8], tensors: &[u8]) -> Result<(), AdaptFailure> {
        let shard = self.shard.as_mut().ok_or_else(|| AdaptFailure::Failed("no shard is loaded".to_owned()))?;
        let adapter = Adapter::open(config, tensors).map_err(|error| AdaptFailure::Unfit(error.to_string()))?;
        let (resting, replies) = (&self.resting, &mut self.replies);
        let loaded = shard.load_adapter(
            id,
            &adapter,
            |session| resting.contains(&session),
            |layers| {
                // Shows that the worker is at work; other sessions wait meanwhile.
                let _ = send(replies, &FromWorker::Progress(layers));
            },
        );
        loaded.map_err(|error| match error {
            AdapterRefused::Adapter(why) => AdaptFailure::Unfit(why.to_string()),
            why @ AdapterRefused::TooLarge(_) => AdaptFailure::Unfit(why.to_string()),
            why @ AdapterRefused::Full => AdaptFailure::Full(why.to_string()),
            AdapterRefused::Compute(why) => AdaptFailure::Failed(why.to_string()),
        })
    }

    /// Exports a session one layer at a time, so that a long conversation's caches are not held twice.
    fn export(&mut self, session: SessionId) -> std::io::Result<()> {
        let Some(shard) = &self.shard else { return Ok(()) };
        let layers = shard.layers().len();
        let exported = shard.export(session).ok().map(|carried| (carried, layers));
        let is_open = exported.is_some();
        send(&mut self.replies, &FromWorker::Exported(session, exported))?;
        for layer in (0..layers).filter(|_| is_open) {
            // If one cannot be read, the others are useless; the receiver detects that by its size.
            let cache = shard.export_kv(session, layer).unwrap_or_default();
            let cache = if cache.len() < MAX_CACHE_BYTES { cache } else { Vec::new() };
            send(&mut self.replies, &FromWorker::Cache(session, Raw(cache)))?;
        }
        Ok(())
    }

    fn import(&mut self, session: SessionId, options: SessionOptions, carried: CarriedSession) -> Result<(), String> {
        let caches = self.imports.remove(&session).unwrap_or_default();
        let shard = self.shard.as_mut().ok_or("no shard is loaded")?;
        shard.import_kv(session, options, carried, &caches).map_err(|error| error.to_string())
    }

    fn forward(&mut self, batch: Vec<Work>) -> std::io::Result<()> {
        let Some(shard) = &mut self.shard else { return Ok(()) };
        let started = Instant::now();
        let mut slots: Vec<Slot> = batch.into_iter().map(slot).collect();
        let is_behind_a_failure = |slot: &Slot| {
            self.stalled.contains(&slot.session) && shard.position(slot.session).is_some_and(|at| slot.position > at)
        };
        slots.retain(|slot| !is_behind_a_failure(slot));
        if slots.is_empty() {
            return Ok(());
        }
        let runs_ahead = |slot: &Slot| self.endings.contains_key(&slot.session);
        if self.schedule.is_empty() && slots.iter().all(runs_ahead) && shard.can_run_ahead(&slots) {
            return self.run_ahead(&slots);
        }
        let results = shard.forward(&slots);
        let (took, kv_bytes) = (started.elapsed(), shard.kv_bytes() as u64);
        let tokens = slots.iter().filter(|slot| slot.input.rows() == 1).count();
        let prompt_rows = slots.iter().map(|slot| slot.input.rows()).sum::<usize>() - tokens;
        self.record(tokens, prompt_rows, took, kv_bytes);
        for (slot, result) in slots.iter().zip(results) {
            let (position, rows) = (slot.position as u32, slot.input.rows() as u32);
            if let Some(work) = self.answer(slot.session, position, rows, slot.sample, result)? {
                self.schedule.push(work);
            }
        }
        Ok(())
    }

    /// Records how long a batch took, and how large the caches are.
    fn record(&mut self, tokens: usize, prompt_rows: usize, took: Duration, kv_bytes: u64) {
        self.schedule.took(tokens, prompt_rows, took);
        self.report.computed(tokens, prompt_rows, took);
        self.report.kv_bytes = self.report.kv_bytes.max(kv_bytes);
    }

    fn send(&mut self, message: &FromWorker) -> std::io::Result<()> {
        send(&mut self.replies, message)
    }
}

fn failed(session: SessionId, position: Option<u32>, error: &ForwardError) -> FromWorker {
    let blame = match error {
        ForwardError::NotFinite(_) | ForwardError::Compute(_) => Blame::Own,
        ForwardError::Input(_) => Blame::Previous,
        _ => Blame::Request,
    };
    FromWorker::Failed { session, position, why: error.to_string(), blame }
}

fn slot(work: Work) -> Slot {
    Slot { session: work.session, position: work.position as usize, input: work.input, sample: work.sample }
}

fn send(replies: &mut File, message: &impl Serialize) -> std::io::Result<()> {
    replies.write_all(&encode(message).map_err(std::io::Error::other)?)
}

#[cfg(test)]
mod tests;
