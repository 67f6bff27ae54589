//! Models of which a machine fetches what it needs: what is kept of them, and what machines send each other.

pub(crate) mod held;
pub(crate) mod message;
mod sources;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use hive_net::PeerId;
use hive_store::{Hub, HubError, PartCopy, PartStore, Settings};

pub(crate) use sources::Sources;

/// Above the number of machines times the number of models that are in use.
const MOST_GIVEN: usize = 1000;

/// What this machine keeps of models that it does not have whole, and the hub that it may ask for the rest.
#[derive(Debug)]
pub(crate) struct Fetching {
    store: PartStore,
    asks_hub: bool,
    hub: OnceLock<Result<Hub, HubError>>,
    /// The same without this owner's token.
    hub_for_all: OnceLock<Result<Hub, HubError>>,
    /// Which machines this one has asked to hold layers of which model, by its digest; the latest last.
    given: Mutex<VecDeque<(PeerId, String)>>,
}

impl Fetching {
    /// With the store of parts beside the cache of whole models. `asks_hub` says whether anything beyond the approved
    /// machines may be asked.
    pub(crate) fn new(asks_hub: bool) -> Self {
        Self { store: store(), asks_hub, hub: OnceLock::new(), hub_for_all: OnceLock::new(), given: Mutex::default() }
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
        let open = || Hub::from_environment(cache());
        self.asks_hub.then(|| self.hub.get_or_init(open).as_ref())
    }

    /// The hub, asked as anybody may.
    pub(crate) fn hub_for_all(&self) -> Option<Result<&Hub, &HubError>> {
        let open = || Hub::new(cache(), &Settings { token: None, ..Settings::from_environment() });
        self.asks_hub.then(|| self.hub_for_all.get_or_init(open).as_ref())
    }

    /// Notes that a machine is asked to hold layers of a model, and may have its bytes.
    pub(crate) fn give(&self, machine: PeerId, digest: &str) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|(known, of)| (*known, of.as_str()) != (machine, digest));
        given.push_back((machine, digest.to_owned()));
        let too_many = given.len().saturating_sub(MOST_GIVEN);
        given.drain(..too_many);
    }

    /// Whether a machine was asked to hold layers of a model.
    pub(crate) fn is_given(&self, machine: PeerId, digest: &str) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.iter().any(|(known, of)| *known == machine && of == digest)
    }
}

fn cache() -> PathBuf {
    hive_host::folders::hugging_face_cache().unwrap_or_default()
}

/// The store of parts: a folder beside the cache of whole models, on the same disk.
pub(crate) fn store() -> PartStore {
    let cache = cache();
    let mut name = cache.file_name().unwrap_or_default().to_owned();
    name.push(".hivemind");
    PartStore::new(cache.with_file_name(name))
}
