//! The adapters of a shard, and of its sessions.

use std::collections::BTreeMap;

use hive_weights::adapter::Adapter;

use super::{ForwardError, Output, Session, SessionId, SessionOptions, Shard, Slot};
use crate::adapter::{AdapterId, AdapterRefused, LayerAdapter};
use crate::error::ComputeError;

impl Shard {
    /// Loads an adapter for sessions to come; `progress` is called with the number of layers so far. If it is loaded
    /// already, this does nothing. Adapters make room for it that no session uses, but for sessions that are `resting`,
    /// which are closed then.
    ///
    /// # Errors
    /// It is of another model, or too large.
    pub fn load_adapter(
        &mut self,
        id: AdapterId,
        adapter: &Adapter<'_>,
        resting: impl Fn(SessionId) -> bool,
        progress: impl FnMut(usize),
    ) -> Result<(), AdapterRefused> {
        let active = self.sessions.iter().filter(|(session, _)| !resting(**session));
        let used = active.filter_map(|(_, session)| session.options.adapter).collect();
        self.adapters.load(id, adapter, &used, progress)?;
        let adapters = &self.adapters;
        self.sessions.retain(|_, session| session.options.adapter.is_none_or(|adapter| adapters.has(adapter)));
        Ok(())
    }

    /// The size of all adapters in memory, in bytes.
    pub fn adapter_bytes(&self) -> usize {
        self.adapters.bytes()
    }

    /// The adapters that are loaded.
    pub fn adapters(&self) -> Vec<AdapterId> {
        self.adapters.ids().collect()
    }

    pub(super) fn check_adapter(&self, options: &SessionOptions) -> Result<(), ForwardError> {
        match options.adapter {
            Some(id) if !self.adapters.has(id) => Err(ForwardError::UnknownAdapter(id)),
            _ => Ok(()),
        }
    }

    /// The adapter that these sessions have in common.
    pub(super) fn adapter_of(&self, sessions: &[Session]) -> Result<Option<&[LayerAdapter]>, ComputeError> {
        let Some(id) = sessions.first().and_then(|session| session.options.adapter) else { return Ok(None) };
        let layers = self.adapters.layers(id);
        layers.map(Some).ok_or_else(|| ComputeError::Mlx(ForwardError::UnknownAdapter(id).to_string()))
    }

    fn adapter_of_slot(&self, slot: &Slot) -> Option<AdapterId> {
        self.sessions.get(&slot.session).and_then(|session| session.options.adapter)
    }

    /// Whether the sessions of a batch have the same adapter, or none has one.
    pub(super) fn is_of_one_adapter(&self, batch: &[Slot]) -> bool {
        batch.windows(2).all(|pair| self.adapter_of_slot(&pair[0]) == self.adapter_of_slot(&pair[1]))
    }

    /// Computes slots that have been checked, those of each adapter together.
    pub(super) fn forward_by_adapter(&mut self, batch: &[&Slot]) -> Vec<Result<Output, ForwardError>> {
        let of = |slot: &&Slot| self.adapter_of_slot(slot);
        if batch.windows(2).all(|pair| of(&pair[0]) == of(&pair[1])) {
            return self.forward_sound(batch);
        }
        let mut groups: BTreeMap<Option<AdapterId>, Vec<usize>> = BTreeMap::new();
        for (index, slot) in batch.iter().enumerate() {
            groups.entry(self.adapter_of_slot(slot)).or_default().push(index);
        }
        let mut results: Vec<(usize, Result<Output, ForwardError>)> = Vec::with_capacity(batch.len());
        for indices in groups.into_values() {
            let slots: Vec<&Slot> = indices.iter().map(|index| batch[*index]).collect();
            results.extend(indices.into_iter().zip(self.forward_sound(&slots)));
        }
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
