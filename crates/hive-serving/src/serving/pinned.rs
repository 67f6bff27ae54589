//! The parts of pinned models on this machine's disk, kept from making room for others.

use hive_stage::InUse;

/// A pinned model.
pub(super) struct Pinned {
    pub(super) name: String,
    /// What keeps its parts here; nothing if there are none, as of a model that is whole in the cache.
    pub(super) parts: Option<InUse>,
}
