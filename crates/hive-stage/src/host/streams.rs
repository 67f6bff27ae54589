//! Memory for frames that come back to this node as a coordinator, per machine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hive_net::PeerId;
use hive_net::stage::Budget;

/// Limit per machine: tokens and error messages. A stage has a budget of its own.
const RETURN_BYTES: usize = 4 << 20;

/// The budgets of the machines.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<PeerId, Budget>>);

impl Streams {
    /// The budget of a machine. Drops those of machines that are no longer approved.
    pub(super) fn returns(&self, peer: PeerId, is_approved: impl Fn(PeerId) -> bool) -> Budget {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|peer, _| is_approved(*peer));
        streams.entry(peer).or_insert_with(|| Budget::new(RETURN_BYTES)).clone()
    }
}
