//! What happens when a machine was found to compute wrong numbers.

use std::sync::atomic::Ordering;

use hive_net::PeerId;

use super::Ring;
use super::failover::FaultOrigin;

impl Ring {
    /// A stage was found to compute wrong numbers: quarantines its machine and discards everything computed from them.
    pub(crate) fn quarantine(&self, epoch: u32, index: usize, machine: PeerId, name: &str) {
        tracing::warn!("{name} computed wrong numbers");
        self.inner.host.membership().quarantine(machine, name);
        self.inner.tainted_epochs.fetch_max(epoch + 1, Ordering::Relaxed);
        let dropped = self.prefix_cache().clear();
        let ring = self.clone();
        self.inner.host.membership().spawn(async move {
            for session in dropped {
                ring.close(session).await;
            }
        });
        self.inner.report_fault(epoch, FaultOrigin::Output(index), format!("{name} computed wrong numbers"));
    }
}
