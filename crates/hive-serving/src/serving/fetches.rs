//! Fetches in progress: all requests for a model share one fetch, which can be paused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

/// The models for which machines are fetching layers, by digest.
#[derive(Debug, Default)]
pub(super) struct Fetches(Mutex<HashMap<String, Entry>>);

#[derive(Debug)]
struct Entry {
    /// The names by which the model was requested.
    names: Vec<String>,
    fetch: Arc<Fetch>,
}

/// A model's fetch, shared by everybody who waits for it.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// Held by the task that fetches.
    pub(super) lock: AsyncMutex<()>,
    /// Cancelled when it is paused, for all who wait.
    pub(super) paused: CancellationToken,
}

impl Fetches {
    /// The fetch of a model, which is in progress until nobody holds it.
    pub(super) fn join<'a>(&self, digest: &str, names: impl IntoIterator<Item = &'a str>) -> Arc<Fetch> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, entry| entry.is_in_progress());
        let entry = all.entry(digest.to_owned()).or_insert_with(|| Entry { names: Vec::new(), fetch: Arc::default() });
        for name in names {
            if !entry.names.iter().any(|known| known == name) {
                entry.names.push(name.to_owned());
            }
        }
        entry.fetch.clone()
    }

    /// Pauses the fetch of a model by any of its names; `false` if there is none. Who asks after this begins another.
    pub(super) fn pause(&self, name: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut any = false;
        all.retain(|_, entry| {
            let is_meant = entry.is_in_progress() && entry.names.iter().any(|known| known == name);
            if is_meant {
                entry.fetch.paused.cancel();
                any = true;
            }
            !is_meant
        });
        any
    }
}

impl Entry {
    /// Whether anybody holds it beside the map.
    fn is_in_progress(&self) -> bool {
        Arc::strong_count(&self.fetch) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_fetched_once_for_everybody_who_asks() {
        let fetches = Fetches::default();
        let first = fetches.join("one", ["o/m"]);
        let same = fetches.join("one", ["o/m/file.gguf"]);
        let other = fetches.join("two", ["o/n"]);
        assert!(Arc::ptr_eq(&first, &same) && !Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn a_paused_fetch_ends_for_all_who_wait_and_the_next_begins_another() {
        let fetches = Fetches::default();
        let [first, same] = [fetches.join("one", ["o/m", "o/m/file.gguf"]), fetches.join("one", ["o/m"])];
        let other = fetches.join("two", ["o/n"]);
        assert!(!fetches.pause("o/unknown"));
        assert!(fetches.pause("o/m/file.gguf"));
        assert!(first.paused.is_cancelled() && same.paused.is_cancelled() && !other.paused.is_cancelled());
        assert!(!fetches.pause("o/m"), "it is paused already");
        let resumed = fetches.join("one", ["o/m"]);
        assert!(!resumed.paused.is_cancelled());
        drop((first, same, resumed));
        assert!(!fetches.pause("o/m"), "nobody waits for it");
    }
}
