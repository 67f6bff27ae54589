//! Models of which a machine fetches what it needs: what is kept of them, and what machines send each other.

pub(crate) mod held;
pub(crate) mod message;
mod sources;

use std::path::Path;
use std::sync::OnceLock;

use hive_store::{Hub, HubError, PartCopy, PartStore};

pub(crate) use sources::Sources;

/// What this machine keeps of models that it does not have whole, and the hub that it may ask for the rest.
#[derive(Debug)]
pub(crate) struct Fetching {
    store: PartStore,
    asks_hub: bool,
    hub: OnceLock<Result<Hub, HubError>>,
}

impl Fetching {
    /// With the store of parts beside the cache of whole models. `asks_hub` says whether anything beyond the approved
    /// machines may be asked.
    pub(crate) fn new(asks_hub: bool) -> Self {
        Self { store: store(), asks_hub, hub: OnceLock::new() }
    }

    /// The store of parts.
    pub(crate) fn store(&self) -> &PartStore {
        &self.store
    }

    /// The parts that a path belongs to, if it is one of theirs.
    pub(crate) fn copy_at(&self, path: &Path) -> Option<PartCopy> {
        self.store.at(path)
    }

    /// The hub, if it may be asked.
    pub(crate) fn hub(&self) -> Option<Result<&Hub, &HubError>> {
        let open = || Hub::from_environment(hive_host::folders::hugging_face_cache().unwrap_or_default());
        self.asks_hub.then(|| self.hub.get_or_init(open).as_ref())
    }
}

/// The store of parts: a folder beside the cache of whole models, on the same disk.
pub(crate) fn store() -> PartStore {
    let cache = hive_host::folders::hugging_face_cache().unwrap_or_default();
    let mut name = cache.file_name().unwrap_or_default().to_owned();
    name.push(".hivemind");
    PartStore::new(cache.with_file_name(name))
}
