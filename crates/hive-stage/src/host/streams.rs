//! Memory for what comes back to this node as a coordinator, machine by machine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hive_net::PeerId;
use hive_net::stage::Budget;

/// Memory for what a machine's stages send back to this node as their coordinator: tokens and words. A stage has its own.
const RETURN_BYTES: usize = 4 << 20;

/// What is held of each machine until it is understood.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<PeerId, Budget>>);

impl Streams {
    /// The memory of a machine. Nothing is held for machines that are not approved any more.
    pub(super) fn returns(&self, peer: PeerId, is_approved: impl Fn(PeerId) -> bool) -> Budget {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|peer, _| is_approved(*peer));
        streams.entry(peer).or_insert_with(|| Budget::new(RETURN_BYTES)).clone()
    }
}
