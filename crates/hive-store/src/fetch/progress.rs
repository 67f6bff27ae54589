//! The events of a running fetch.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::HubError;
use crate::file_name::FileName;

use super::limit::RateLimit;

/// How a model is fetched.
#[derive(Default)]
pub struct FetchOptions {
    /// Hears of progress and waits, on the task that fetches: it must be quick.
    pub on_event: Option<Box<dyn Fn(Event) + Send + Sync>>,
    /// Ends the fetch. The downloaded data is kept, so this also pauses.
    pub cancel: CancellationToken,
    /// The limit for all connections, and for other fetches that have the same.
    pub limit: RateLimit,
}

impl fmt::Debug for FetchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchOptions").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Something that a person who waits may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes have arrived.
    Progress(Progress),
    /// Nothing arrives for a while, for a reason.
    Waiting(Wait),
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are there, those from earlier included. Decreases only when a damaged file starts over.
    pub bytes_done: u64,
    /// Bytes that this fetch has downloaded, for its rate.
    pub bytes_received: u64,
    /// Bytes of the whole model.
    pub bytes_total: u64,
}

/// Why nothing arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Another program, or another fetch, is fetching the same file.
    OtherFetch {
        /// The file.
        file: FileName,
    },
    /// An attempt failed, and the next one comes.
    NextAttempt {
        /// Why it failed.
        error: HubError,
        /// When the next one comes.
        after: Duration,
    },
}

/// Counts bytes for all files of a fetch.
pub(crate) struct Meter<'a> {
    on_event: Option<&'a (dyn Fn(Event) + Send + Sync)>,
    done: AtomicU64,
    received: AtomicU64,
    total: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(options: &'a FetchOptions, done: u64, total: u64) -> Self {
        let meter = Self {
            on_event: options.on_event.as_deref(),
            done: AtomicU64::new(done),
            received: AtomicU64::new(0),
            total,
        };
        meter.add(0);
        meter
    }

    /// Bytes are there.
    pub(crate) fn add(&self, bytes: u64) {
        let bytes_done = self.done.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.progress(bytes_done);
    }

    /// Bytes have come from the hub.
    pub(crate) fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::AcqRel);
        self.add(bytes);
    }

    fn progress(&self, bytes_done: u64) {
        let bytes_received = self.received.load(Ordering::Acquire);
        self.tell(Event::Progress(Progress { bytes_done, bytes_received, bytes_total: self.total }));
    }

    /// Bytes were thrown away.
    pub(crate) fn take_back(&self, bytes: u64) {
        let bytes_done = self.done.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        self.progress(bytes_done);
    }

    pub(crate) fn wait(&self, wait: Wait) {
        self.tell(Event::Waiting(wait));
    }

    fn tell(&self, event: Event) {
        if let Some(on_event) = self.on_event {
            on_event(event);
        }
    }
}
