//! Export and import of sessions: a shard with the same layers continues a session without recomputing it.

use serde::{Deserialize, Serialize};

use super::{ForwardError, Session, SessionId, SessionOptions, Shard};
use crate::error::ComputeError;
use crate::kv::{KvLayout, LayerCache};

/// The state of a session without its caches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarriedSession {
    /// The next position.
    pub position: usize,
    /// Tokens sampled so far, with their positions.
    pub answer: Vec<(usize, u32)>,
    /// The memory layout of the caches.
    pub layout: KvLayout,
}

impl Shard {
    /// Exports the state of an open session without its caches.
    pub fn export(&self, session: SessionId) -> Result<CarriedSession, ForwardError> {
        let state = self.sessions.get(&session).ok_or(ForwardError::UnknownSession(session))?;
        let Session { position, answer, .. } = state;
        Ok(CarriedSession { position: *position, answer: answer.clone(), layout: self.stage.kv_layout() })
    }

    /// Exports the session's cache in one layer, counted from the shard's first, up to the session's position.
    pub fn export_kv(&self, session: SessionId, layer: usize) -> Result<Vec<u8>, ForwardError> {
        let state = self.sessions.get(&session).ok_or(ForwardError::UnknownSession(session))?;
        let cache = state.caches.get(layer);
        let cache = cache.ok_or_else(|| ForwardError::Input(format!("there is no layer {layer} in this stage")))?;
        match self.seats.copied(session, layer, state.position)? {
            Some(own) if matches!(cache, LayerCache::Shared) => Ok(own.export(state.position)?),
            _ => Ok(cache.export(state.position)?),
        }
    }

    /// Opens a session from an exported state and the caches of all layers, in order.
    ///
    /// # Errors
    /// The shard uses other kernels, or has other layers.
    pub fn import_kv(
        &mut self,
        session: SessionId,
        options: SessionOptions,
        carried: CarriedSession,
        layers: &[Vec<u8>],
    ) -> Result<(), ForwardError> {
        self.check_adapter(&options)?;
        let CarriedSession { position, answer, layout } = carried;
        if layout != self.stage.kv_layout() {
            return Err(ComputeError::Mlx("the caches are of other kernels".to_owned()).into());
        }
        if position > self.max_context {
            return Err(ForwardError::Context { needed: position, limit: self.max_context });
        }
        let caches = self.stage.imported_caches(position, layers)?;
        self.unseat(|member| member == session)?;
        self.sessions.insert(session, Session::new(options, position, answer, caches));
        Ok(())
    }
}
