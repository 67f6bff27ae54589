//! The sessions that share buffers, and their rows in these. `seating.rs` decides who they are.

use crate::error::ComputeError;
use crate::kv::LayerCache;
use crate::kv::shared::SharedCaches;
use crate::session_id::SessionId;
use crate::span::Together;

/// The sessions that share buffers.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// By row.
    pub(super) members: Vec<SessionId>,
    pub(super) caches: SharedCaches,
    /// The last batch of several sessions with one token each, sorted.
    pub(super) latest: Vec<SessionId>,
}

impl Seats {
    pub(super) fn bytes(&self) -> usize {
        self.caches.bytes()
    }

    pub(super) fn row(&self, session: SessionId) -> Option<usize> {
        self.members.iter().position(|member| *member == session)
    }

    /// The members that are in this batch of sessions and positions, which must be all of them or none.
    pub(super) fn together(&mut self, batch: &[(SessionId, usize)]) -> Option<Together<'_>> {
        let members: Vec<usize> =
            self.members.iter().filter_map(|member| batch.iter().position(|(session, _)| session == member)).collect();
        let positions: Vec<usize> = batch.iter().map(|(_, position)| *position).collect();
        (!members.is_empty()).then(|| Together::new(&mut self.caches, members, &positions))
    }

    /// The arrays to evaluate after a step with this batch.
    pub(super) fn pending(&self, batch: &[(SessionId, usize)]) -> impl Iterator<Item = &mlx_rs::Array> {
        let is_in_it = batch.iter().any(|(session, _)| self.row(*session).is_some());
        self.caches.pending().filter(move |_| is_in_it)
    }

    /// What a session keeps in a layer, if that is in its row.
    pub(super) fn copied(
        &self,
        session: SessionId,
        layer: usize,
        position: usize,
    ) -> Result<Option<LayerCache>, ComputeError> {
        self.row(session).map_or(Ok(None), |row| self.caches.copied(layer, row, position))
    }
}
