//! Counters that wake listeners.

use tokio::sync::watch;

/// A counter that increases with every change. Clones share it.
#[derive(Debug, Clone)]
pub struct Changes(watch::Sender<u64>);

impl Default for Changes {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Changes {
    /// Reports a change.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Subscribes to later changes; several in quick succession may arrive as one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
