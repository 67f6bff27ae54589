//! What follows when a machine was found to compute wrong numbers.

use std::sync::atomic::Ordering;

use hive_net::PeerId;
use hive_stage::Fault;

use super::Ring;
use super::state::Cause;

impl Ring {
    /// A stage was found to compute wrong numbers: its machine is left out, and what was computed from them counts no more.
    pub(crate) fn caught(&self, epoch: u32, index: usize, machine: PeerId, name: &str) {
        tracing::warn!("{name} computed wrong numbers");
        self.inner.host.membership().quarantine(machine, name);
        self.inner.tainted_epochs.fetch_max(epoch + 1, Ordering::Relaxed);
        let forgotten = self.kept().clear();
        let ring = self.clone();
        self.inner.host.membership().spawn(async move {
            for session in forgotten {
                ring.close(session).await;
            }
        });
        self.report_trouble(epoch, Cause::Fault(Fault::Stage(index as u32)), format!("{name} computed wrong numbers"));
    }
}
