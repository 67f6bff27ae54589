//! Finding and fetching models, against a stand-in hub on loopback.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod certificates;
mod failing;
mod fetching;
mod finding;
mod parts;
mod resuming;
mod stand_in;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hive_store::{
    Event, FetchError, FetchOptions, FindError, Hub, Listing, ModelName, RetryPolicy, Settings, Token, Wait, fetch,
};
use stand_in::{Repo, StandIn};

/// The commit of [`Repo::new`].
const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
const TOKEN: &str = "hf_secret";
const MIB: usize = 1 << 20;

/// A hub with a model, and a cache.
struct World {
    hub: StandIn,
    cache: tempfile::TempDir,
}

impl World {
    /// With these files in `owner/name`.
    fn new(files: &[(&str, Bytes)]) -> Self {
        Self { hub: StandIn::start(Repo::new(files)), cache: tempfile::tempdir().unwrap() }
    }

    /// With a model in safetensors whose weights are this large.
    fn with_weights(bytes: usize) -> Self {
        Self::new(&model(bytes))
    }

    fn settings(&self) -> Settings {
        Settings { endpoint: self.hub.url(), token: Token::new(TOKEN), offline: false, retry_policy: retry_policy() }
    }

    fn client(&self) -> Hub {
        Hub::new(self.cache.path().to_owned(), &self.settings()).unwrap()
    }

    async fn find(&self, name: &str) -> Result<Listing, FindError> {
        let found = self.client().find(&name.parse().unwrap()).await;
        if let Err(error) = &found {
            assert_keeps_secrets(error);
        }
        found
    }

    async fn fetch(&self, listing: &Listing) -> Result<PathBuf, FetchError> {
        self.fetch_with(listing, &FetchOptions::default()).await
    }

    async fn fetch_with(&self, listing: &Listing, options: &FetchOptions) -> Result<PathBuf, FetchError> {
        let fetched = fetch(&self.client(), listing, options).await;
        if let Err(error) = &fetched {
            assert_keeps_secrets(error);
        }
        fetched
    }

    /// The repository's folder in the cache.
    fn folder(&self) -> PathBuf {
        self.cache.path().join("models--owner--name")
    }

    /// The blobs in the cache, whole or not.
    fn blobs(&self) -> Vec<String> {
        names(&self.folder().join("blobs"))
    }
}

/// Waits short enough for tests.
fn retry_policy() -> RetryPolicy {
    RetryPolicy {
        idle: Duration::from_secs(20),
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_secs(5),
        ..RetryPolicy::default()
    }
}

/// A model in safetensors whose weights are this large.
fn model(bytes: usize) -> Vec<(&'static str, Bytes)> {
    vec![
        ("README.md", Bytes::from("# A model")),
        ("config.json", Bytes::from("{}")),
        ("model.safetensors", noise(bytes, 1)),
        ("modeling.py", Bytes::from("print('hello')")),
        ("tokenizer.json", noise(3000, 2)),
    ]
}

/// Bytes that repeat nowhere.
fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let mut made = Vec::with_capacity(bytes + 8);
    while made.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        made.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    made.truncate(bytes);
    made.into()
}

/// Both run on any task: this compiles.
#[allow(dead_code)]
fn may_change_threads(hub: &Hub, name: &ModelName, listing: &Listing, options: &FetchOptions) {
    fn is_send(_: impl Send) {}
    is_send(hub.find(name));
    is_send(fetch(hub, listing, options));
}

fn assert_keeps_secrets(error: &(impl std::error::Error + 'static)) {
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains(TOKEN) && !text.contains("Bearer"), "{text}");
    }
}

/// Whether the folder has these files with these contents, and no others.
fn assert_holds(folder: &Path, expected: &[(&str, Bytes)]) {
    let expected: BTreeMap<String, &Bytes> =
        expected.iter().map(|(name, contents)| ((*name).to_owned(), contents)).collect();
    assert_eq!(names(folder), expected.keys().cloned().collect::<Vec<_>>());
    for (name, contents) in expected {
        assert!(std::fs::read(folder.join(&name)).unwrap() == *contents, "{name} has other contents");
    }
}

/// The names in a folder, sorted; none if it does not exist.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Options that pass each event on.
fn on_event(hear: impl Fn(Event) + Send + Sync + 'static) -> FetchOptions {
    FetchOptions { on_event: Some(Box::new(hear)), ..FetchOptions::default() }
}

/// The failed attempts among events.
fn is_next_attempt(event: &Event) -> bool {
    matches!(event, Event::Waiting(Wait::NextAttempt { .. }))
}
