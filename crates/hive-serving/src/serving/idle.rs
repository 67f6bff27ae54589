//! Unloads models that nobody has asked for a while, if the owner wants that: their memory is then free on every machine.
//!
//! The next question loads the model again. A manual plan stays in effect.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Loaded, Serving};

/// Interval between two looks at the models in memory.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The least idle time: a question that has its model has yet to begin its answer.
const LEAST_IDLE: Duration = Duration::from_secs(5);

impl Loaded {
    /// Whether nothing has used the model for `after`. A model that is answering is in use.
    fn is_idle(&mut self, after: Duration, now: Instant) -> bool {
        if self.ring.is_busy() {
            self.used = now;
        }
        now.saturating_duration_since(self.used) >= after.max(LEAST_IDLE)
    }
}

impl Serving {
    /// Sets after how long without use a model is unloaded; `None` keeps it until its memory is needed.
    pub fn unload_after(&self, idle: Option<Duration>) {
        *self.inner.unload_after.lock().unwrap_or_else(PoisonError::into_inner) = idle;
    }

    /// Unloads idle models until the node stops. Those that are pinned stay.
    pub async fn unload_idle(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.member().stopping() => return,
            }
            // A question that comes meanwhile waits: it is planned with the memory that this frees.
            let Ok(_placing) = self.inner.placing.try_lock() else { continue };
            let after = *self.inner.unload_after.lock().unwrap_or_else(PoisonError::into_inner);
            let idle: Vec<Loaded> = {
                let marks = self.marks().clone();
                let (now, mut loaded) = (Instant::now(), self.loaded());
                // Evaluated without a limit, too: the time counts from the last use, not from the change of the setting.
                let is_idle = |loaded: &mut Loaded| {
                    loaded.is_idle(after.unwrap_or(Duration::MAX), now) && !marks.is_pinned(loaded.name())
                };
                let idle: Vec<Loaded> = loaded.extract_if(.., is_idle).collect();
                if !idle.is_empty() {
                    self.show(loaded.last().map(Loaded::ring));
                }
                idle
            };
            if idle.is_empty() {
                continue;
            }
            self.host().placements().notify();
            self.member().view().notify();
            for Loaded { ring, .. } in idle {
                tracing::info!("{} was unloaded: nobody used it", ring.model().name());
                ring.unload().await;
            }
        }
    }
}
