//! The audit log, for this machine's owner to read later: who asked to pair and what was decided, what other machines
//! loaded, used and were refused here, and who changed which rights.
//!
//! [`AuditEvent`] lists the events, [`Entry`] is a line of the log. `ledger` decides which events get a line and which
//! are only counted, so that a hostile machine can neither fill the disk nor push out what matters. `files` keeps one
//! file of JSON lines per day, for 90 days. No entry contains a prompt, an answer or one of the owner's paths.
//!
//! Logging never waits for the disk and never fails: a thread of its own writes. Entries that could not be written are
//! counted, and the log reports their number once it can be written again.

mod entry;
mod files;
mod ledger;
mod query;
mod visit;
mod words;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hive_protocol::Request;
use jiff::Timestamp;

pub use entry::{Asked, AuditEvent, Entry, Machine, PairingEnd, Refusal};
pub use files::FOLDER;
use files::Keeper;
use ledger::Ledger;
pub use query::{Line, Log, Query};
pub use visit::{Usage, Visit};

/// The kind of a request, as the log classifies it.
pub fn asked(request: &Request) -> Asked {
    match request {
        Request::Load(..) => Asked::Load,
        Request::Join(..) => Asked::Connect,
        Request::Drain(..) | Request::ReceiveSessions(..) => Asked::HandOver,
        Request::Open(..) | Request::Close(..) | Request::Retain(..) | Request::Replay(..) => Asked::Session,
        _ => Asked::Other,
    }
}

/// Queue between callers and the writing thread. It fills up only while the disk hangs.
const QUEUE: usize = 1024;
/// How often other machines' usage is counted and expired files are deleted.
const POLL_INTERVAL: Duration = Duration::from_mins(1);
/// A stopping node waits this long for the last entries to reach the disk.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a reader waits for queued entries to reach the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The audit log of a node. Clones share it; a node without a data folder keeps none.
#[derive(Clone, Default)]
pub struct Audit {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    folder: PathBuf,
    ledger: Mutex<Ledger>,
    visits: Mutex<Vec<Weak<Visit>>>,
    /// Entries that could not be written and are not yet reported in a file.
    lost: Arc<AtomicU64>,
    /// Orders to the writing thread; `None` once the log is closed.
    orders: Mutex<Option<SyncSender<Order>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

enum Order {
    Write(Entry),
    /// Reply when everything before this is written.
    CaughtUp(SyncSender<()>),
}

impl Audit {
    /// Opens the log in a data folder. If today's file cannot be read, the day's line budgets start afresh; if no
    /// thread can be spawned, nothing is written.
    fn open(data: &Path) -> Self {
        let folder = data.join(files::FOLDER);
        let today = files::read_day(&folder, Timestamp::now());
        let (orders, queue) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let shared = Arc::new(Shared {
            folder: folder.clone(),
            ledger: Mutex::new(Ledger::resume(&today, Timestamp::now())),
            visits: Mutex::default(),
            lost: lost.clone(),
            orders: Mutex::new(None),
            writer: Mutex::new(None),
        });
        let weak = Arc::downgrade(&shared);
        let writer = std::thread::Builder::new().name("audit log".to_owned());
        match writer.spawn(move || write(&folder, &queue, &lost, &weak)) {
            Ok(writer) => {
                *lock(&shared.orders) = Some(orders);
                *lock(&shared.writer) = Some(writer);
            }
            Err(error) => tracing::warn!("nothing is written to the audit log: {error}"),
        }
        Self { shared: Some(shared) }
    }

    /// Opens a starting node's log in its data folder, if it has one, and logs the start.
    pub fn begin(data: Option<&Path>) -> Self {
        let audit = data.map_or_else(Self::default, Self::open);
        audit.note(None, AuditEvent::Started { version: env!("CARGO_PKG_VERSION").to_owned() });
        audit
    }

    /// Logs an event that happened now.
    pub fn note(&self, machine: Option<Machine>, event: AuditEvent) {
        let Some(shared) = &self.shared else { return };
        let entry = Entry::now(machine, event);
        let lines = lock(&shared.ledger).note(entry);
        shared.send(lines);
    }

    /// Logs that a machine has loaded layers here, and tracks their usage until the visit is dropped.
    pub fn visit(&self, machine: Machine, model: &str, layers: [usize; 2], usage: Arc<Usage>) -> Arc<Visit> {
        let audit = self.clone();
        let note = Box::new(move |event| audit.note(Some(machine.clone()), event));
        let visit = Arc::new(Visit::new(note, model, layers, usage));
        if let Some(shared) = &self.shared {
            let mut visits = lock(&shared.visits);
            visits.retain(|visit| visit.strong_count() > 0);
            visits.push(Arc::downgrade(&visit));
        }
        visit
    }

    /// Reads the log, including entries that are not on disk yet.
    pub fn read(&self, query: &Query) -> std::io::Result<Log> {
        let Some(shared) = &self.shared else { return Ok(Log::default()) };
        shared.count_usage();
        shared.catch_up();
        let (mut entries, unreadable) = files::read(&shared.folder, query.since)?;
        entries.extend(lock(&shared.ledger).pending());
        Ok(query.answer(entries, unreadable, shared.lost.load(Ordering::Relaxed)))
    }

    /// Writes pending entries and closes the log. Later events are lost.
    pub async fn close(&self) {
        let Some(shared) = &self.shared else { return };
        shared.count_usage();
        let lines = lock(&shared.ledger).flush();
        shared.send(lines);
        lock(&shared.orders).take();
        let Some(writer) = lock(&shared.writer).take() else { return };
        // A hanging disk does not keep the node from stopping.
        let ended = tokio::task::spawn_blocking(move || writer.join());
        if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
            tracing::warn!("the last entries of the audit log may not be on the disk");
        }
    }
}

/// Reads the log of a data folder that no node is using.
pub fn read(data: &Path, query: &Query) -> std::io::Result<Log> {
    let (entries, unreadable) = files::read(&data.join(files::FOLDER), query.since)?;
    Ok(query.answer(entries, unreadable, 0))
}

impl Shared {
    fn send(&self, lines: Vec<Entry>) {
        let orders = lock(&self.orders);
        for line in lines {
            let sent = orders.as_ref().is_some_and(|orders| orders.try_send(Order::Write(line)).is_ok());
            if !sent {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Logs other machines' usage since the last count.
    fn count_usage(&self) {
        let visits: Vec<_> = lock(&self.visits).iter().filter_map(Weak::upgrade).collect();
        for visit in visits {
            visit.count();
        }
    }

    /// Waits until queued entries are on disk.
    fn catch_up(&self) {
        let (written, caught_up) = sync_channel(1);
        let asked = lock(&self.orders).as_ref().is_some_and(|it| it.try_send(Order::CaughtUp(written)).is_ok());
        if asked {
            let _ = caught_up.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// The writing thread. It runs until the log is closed.
fn write(folder: &Path, orders: &Receiver<Order>, lost: &AtomicU64, shared: &Weak<Shared>) {
    let mut keeper = Keeper::new(Timestamp::now(), Instant::now());
    let mut look = Instant::now() + POLL_INTERVAL;
    loop {
        let first = orders.recv_timeout(look.saturating_duration_since(Instant::now()));
        let (mut lines, mut readers) = (Vec::new(), Vec::new());
        let mut sort = |order| match order {
            Order::Write(line) => lines.push(line),
            Order::CaughtUp(reader) => readers.push(reader),
        };
        let ended = matches!(first, Err(RecvTimeoutError::Disconnected));
        first.into_iter().chain(orders.try_iter()).for_each(&mut sort);
        if Instant::now() >= look {
            look = Instant::now() + POLL_INTERVAL;
            if let Some(shared) = shared.upgrade() {
                shared.count_usage();
                lines.extend(lock(&shared.ledger).turn(Timestamp::now()));
            }
            if keeper.may_delete(Timestamp::now(), Instant::now()) {
                files::delete_expired(folder, Timestamp::now());
            }
        }
        append(folder, lines, lost);
        for reader in readers {
            let _ = reader.send(());
        }
        if ended {
            return;
        }
    }
}

/// Writes lines, and a report of those lost before.
fn append(folder: &Path, mut lines: Vec<Entry>, lost: &AtomicU64) {
    if lines.is_empty() {
        return;
    }
    let (before, count) = (lost.load(Ordering::Relaxed), lines.len() as u64);
    if before > 0 {
        lines.push(Entry::now(None, AuditEvent::Lost { entries: before }));
    }
    match files::append(folder, &lines) {
        Ok(()) => drop(lost.fetch_sub(before, Ordering::Relaxed)),
        Err(error) => {
            tracing::warn!("{count} entries of the audit log could not be written: {error}");
            lost.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its value consistent, even if it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
