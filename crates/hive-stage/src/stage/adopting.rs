//! Sessions that continue another's cache. The worker says from which position on: a recurrent state may go back further
//! than asked.

use std::collections::HashMap;

use hive_protocol::{Reply, SessionSpec};
use tokio::sync::oneshot;

use super::digest::Received;
use super::sent::Sent;
use super::spec_bytes::bytes_of;

/// A session whose cache the worker is preparing.
pub(super) struct Adopting {
    pub(super) spec: SessionSpec,
    sent: Sent,
    received: Received,
    answer: oneshot::Sender<Result<Reply, String>>,
}

/// All of them.
pub(super) type AllAdopting = HashMap<u128, Adopting>;

impl Adopting {
    /// `sent` and `received` are those of the session that it continues; `answer` waits for its position.
    pub(super) fn new(
        spec: SessionSpec,
        sent: Sent,
        received: Received,
        answer: oneshot::Sender<Result<Reply, String>>,
    ) -> Self {
        Self { spec, sent, received, answer }
    }

    /// Memory on this node for the session, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + bytes_of(&self.spec) + self.sent.bytes()
    }

    /// The worker has the cache, up to this position. Returns the session's options, and its frames sent and received.
    pub(super) fn done(self, reached: u32) -> (SessionSpec, Sent, Received) {
        let _ = self.answer.send(Ok(Reply::At(reached)));
        (self.spec, self.sent.continued(reached), self.received.continued(reached))
    }

    /// There is no such cache.
    pub(super) fn failed(self, why: String) {
        let _ = self.answer.send(Err(why));
    }
}
