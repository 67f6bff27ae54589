//! Another machine's use of this one: its layers, from loading until they are freed, however that happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::AuditEvent;

/// A stage's work since it was loaded.
#[derive(Debug, Default)]
pub struct Usage {
    /// Sessions opened.
    pub sessions: AtomicU64,
    /// Tokens that passed through its layers.
    pub tokens: AtomicU64,
    /// Time with a session in progress, in milliseconds.
    pub busy_ms: AtomicU64,
}

impl Usage {
    fn now(&self) -> [u64; 3] {
        [&self.sessions, &self.tokens, &self.busy_ms].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Layers that another machine has here. Dropping it logs that they are freed.
pub struct Visit {
    /// Logs an event about the machine.
    note: Box<dyn Fn(AuditEvent) + Send + Sync>,
    model: String,
    layers: [usize; 2],
    usage: Arc<Usage>,
    /// The usage that is logged already.
    noted: Mutex<[u64; 3]>,
}

impl Visit {
    pub(super) fn new(
        note: Box<dyn Fn(AuditEvent) + Send + Sync>,
        model: &str,
        layers: [usize; 2],
        usage: Arc<Usage>,
    ) -> Self {
        Self { note, model: model.to_owned(), layers, usage, noted: Mutex::default() }
    }

    /// Logs the usage since the last call, in whole seconds; the remainder is carried over.
    pub(super) fn count(&self) {
        let now = self.usage.now();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let [sessions, tokens, busy_ms] = [0, 1, 2].map(|index| now[index].saturating_sub(noted[index]));
        if sessions == 0 && tokens == 0 && busy_ms < 1000 {
            return;
        }
        let seconds = busy_ms / 1000;
        *noted = [now[0], now[1], noted[2] + seconds * 1000];
        drop(noted);
        (self.note)(AuditEvent::Used { sessions, tokens, seconds });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.count();
        let freed = AuditEvent::Freed { model: std::mem::take(&mut self.model), layers: self.layers };
        (self.note)(freed);
    }
}
