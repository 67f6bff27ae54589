//! Copies of models to and from other machines, which give way to the tokens that this machine computes.
//!
//! Stages note how long their token steps take, every piece of a model waits for its turn, and `giving_way` decides. The limit
//! that the owner sets for sending is another one (`hive_net::Pace`), and counts beside this.

mod giving_way;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use giving_way::Share;
pub(crate) use giving_way::Steps;

/// All copies of a machine. Clones share their state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copies(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    share: Mutex<Share>,
    /// Bytes copied so far.
    bytes: AtomicU64,
}

impl Copies {
    /// Waits until a piece of this many bytes may be copied.
    pub(crate) async fn pass(&self, bytes: usize) {
        loop {
            let passed = self.0.share.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes, Instant::now());
            match passed {
                Ok(()) => break,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes copied so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Notes a token step of a stage that computes `sessions` conversations together, during which this many bytes were copied.
    pub(crate) fn stepped(&self, steps: &mut Steps, took: Duration, sessions: usize, copied_bytes: u64) {
        let finding = steps.note(took, sessions, copied_bytes);
        self.0.share.lock().unwrap_or_else(PoisonError::into_inner).note(finding, took, Instant::now());
    }
}
