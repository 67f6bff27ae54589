//! Models of which a machine fetches only the layers it needs: the store of parts, and the messages between machines.

pub(crate) mod buffers;
mod failure;
pub(crate) mod held;
pub(crate) mod message;
mod sources;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hive_net::PeerId;
use hive_store::{Coming, Hub, HubError, NoRoom, PartCopy, PartStore, RateLimit, Settings, Space, Token};
use tokio::sync::Mutex as AsyncMutex;

pub use failure::FetchFailure;
pub(crate) use sources::{Chunk, Sources};

/// Above the number of machines times the number of models that are in use.
const MOST_GIVEN: usize = 1000;

/// The store of partial models on this machine, and the hub that has the rest.
#[derive(Debug)]
pub(crate) struct Fetching {
    store: PartStore,
    /// The most bytes that the store may take.
    cap: Mutex<Option<u64>>,
    /// Held during evictions, so that two fetches do not count on the same space.
    making_room: Mutex<()>,
    asks_hub: bool,
    /// For all that comes from the hub together.
    hub_limit: RateLimit,
    /// The token that this owner has given to HiveMind; without it, that of the environment counts.
    token: Mutex<Option<Token>>,
    /// The hub as this owner asks it. Opened when it is first asked, and again with another token.
    hub: Mutex<Option<Opened>>,
    /// The same without a token.
    hub_for_all: OnceLock<Opened>,
    /// By the key of a model's copy: held by the one who fetches its outline from the hub.
    turns: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
    /// Which machines this one has asked to hold layers of which model, by its digest; the latest last.
    given: Mutex<VecDeque<(PeerId, String)>>,
}

impl Fetching {
    /// With the store of parts beside the cache of whole models. `asks_hub` says whether anything beyond the approved
    /// machines may be asked; `cap` is the most bytes for the store.
    pub(crate) fn new(asks_hub: bool, cap: Option<u64>) -> Self {
        Self {
            store: store(),
            cap: Mutex::new(cap),
            making_room: Mutex::default(),
            asks_hub,
            hub_limit: RateLimit::default(),
            token: Mutex::default(),
            hub: Mutex::default(),
            hub_for_all: OnceLock::new(),
            turns: Mutex::default(),
            given: Mutex::default(),
        }
    }

    /// Sets the most bytes for the store; `None` is no limit.
    pub(crate) fn limit(&self, cap: Option<u64>) {
        *self.cap.lock().unwrap_or_else(PoisonError::into_inner) = cap;
    }

    /// How fast the hub may be read.
    pub(crate) fn hub_limit(&self) -> &RateLimit {
        &self.hub_limit
    }

    /// Makes room for `needed` bytes of a copy that is in use, and `left` bytes beside them on the disk, by evicting
    /// other copies. A copy that comes into use meanwhile stays, and another is evicted in its place. The result
    /// reserves the bytes until it is dropped.
    pub(crate) fn make_room(
        &self,
        copy: &PartCopy,
        needed: u64,
        left: u64,
        mut remove: impl FnMut(&PartCopy) -> io::Result<()>,
    ) -> Result<Coming, FetchFailure> {
        let _making_room = self.making_room.lock().unwrap_or_else(PoisonError::into_inner);
        // Another fetch into the same copy may write some of it.
        let needed = needed.saturating_sub(copy.pending());
        loop {
            let leaving = self.leaving(needed, left)?;
            if leaving.is_empty() {
                return Ok(copy.expect(needed));
            }
            leaving.iter().try_for_each(&mut remove).map_err(FetchFailure::other)?;
        }
    }

    /// The turn of whoever fetches the outline of a model from the hub.
    pub(crate) fn turn(&self, key: &str) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(key.to_owned()).or_default().clone()
    }

    /// Whether other copies would have to make room for `needed` bytes of a copy.
    pub(crate) fn would_remove(&self, copy: &PartCopy, needed: u64, left: u64) -> bool {
        self.leaving(needed.saturating_sub(copy.pending()), left).is_ok_and(|leaving| !leaving.is_empty())
    }

    /// The copies that have to go for `needed` bytes, and `left` beside them on the disk.
    fn leaving(&self, needed: u64, left: u64) -> Result<Vec<PartCopy>, FetchFailure> {
        let cap = *self.cap.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.store.room().map_err(FetchFailure::other)?.saturating_sub(left);
        self.store.leaving(needed, Space { free, cap }).map_err(|why| match why {
            NoRoom::Disk { available } => FetchFailure::Disk { needed, free: available },
            NoRoom::Cap { cap, available } => FetchFailure::Cap { needed, cap, free: available },
        })
    }

    /// The store of parts.
    pub(crate) fn store(&self) -> &PartStore {
        &self.store
    }

    /// The parts that a path belongs to, if it is one of theirs.
    pub(crate) fn copy_at(&self, path: &Path) -> Option<PartCopy> {
        self.store.at(path)
    }

    /// Sets the token with which this owner asks the hub; `None` leaves it to the environment.
    pub(crate) fn set_token(&self, token: Option<Token>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        *self.hub.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether this owner has given a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The hub, if it may be asked.
    pub(crate) fn hub(&self) -> Option<Opened> {
        let open = || {
            let own = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            opened(&Settings::with_token(own))
        };
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        self.asks_hub.then(|| hub.get_or_insert_with(open).clone())
    }

    /// The hub, asked as anybody may.
    pub(crate) fn hub_for_all(&self) -> Option<Opened> {
        let open = || opened(&Settings { token: None, ..Settings::from_environment() });
        self.asks_hub.then(|| self.hub_for_all.get_or_init(open).clone())
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

type Opened = Result<Arc<Hub>, HubError>;

fn opened(settings: &Settings) -> Opened {
    Hub::new(cache(), settings).map(Arc::new)
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
