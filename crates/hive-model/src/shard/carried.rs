//! A session that is carried to another shard of the same layers, in place of being computed there once more.

use serde::{Deserialize, Serialize};

use super::{ForwardError, Session, SessionId, SessionOptions, Shard};
use crate::error::ComputeError;
use crate::kv::KvLayout;

/// What a session is, without its caches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarriedSession {
    /// The position that comes next.
    pub position: usize,
    /// Tokens chosen where it was, with the position each stands at.
    pub answer: Vec<(usize, u32)>,
    /// How the caches lie in memory.
    pub layout: KvLayout,
}

impl Shard {
    /// What is carried of an open session beside its caches.
    pub fn export(&self, session: SessionId) -> Result<CarriedSession, ForwardError> {
        let state = self.sessions.get(&session).ok_or(ForwardError::UnknownSession(session))?;
        let Session { position, answer, .. } = state;
        Ok(CarriedSession { position: *position, answer: answer.clone(), layout: self.stage.kv_layout() })
    }

    /// The cache of a session in one layer, counted from the shard's first, up to the session's position.
    pub fn export_kv(&self, session: SessionId, layer: usize) -> Result<Vec<u8>, ForwardError> {
        let state = self.sessions.get(&session).ok_or(ForwardError::UnknownSession(session))?;
        let cache = state.caches.get(layer);
        let cache = cache.ok_or_else(|| ForwardError::Input(format!("there is no layer {layer} in this stage")))?;
        Ok(cache.export(state.position)?)
    }

    /// Opens a session with what was exported elsewhere, the caches of all layers in their order.
    ///
    /// # Errors
    /// The shard there computes with other kernels, or has other layers.
    pub fn import_kv(
        &mut self,
        session: SessionId,
        options: SessionOptions,
        carried: CarriedSession,
        layers: &[Vec<u8>],
    ) -> Result<(), ForwardError> {
        let CarriedSession { position, answer, layout } = carried;
        if layout != self.stage.kv_layout() {
            return Err(ComputeError::Mlx("the caches are of other kernels".to_owned()).into());
        }
        if position > self.max_context {
            return Err(ForwardError::Context { needed: position, limit: self.max_context });
        }
        let caches = self.stage.imported_caches(position, layers)?;
        self.sessions.insert(session, Session { options, position, answer, caches });
        Ok(())
    }
}
