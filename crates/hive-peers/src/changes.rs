//! Counters that wake whoever follows something.

use tokio::sync::watch;

/// Counts up whenever something has changed. Clones share it.
#[derive(Debug, Clone)]
pub struct Changes(watch::Sender<u64>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Changes {
    /// Says that something has changed.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Hears of every change from now on; several at once may count as one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
