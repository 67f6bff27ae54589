//! A model on its way into the cache, while all goes well.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use hive_store::{Event, FetchOptions, Progress, RateLimit, Wait, fetch};

use crate::stand_in::{Fault, git, sha256};
use crate::{COMMIT, MIB, TOKEN, World, assert_holds, model, names, noise, on_event};

/// The files of a model that are fetched.
fn fetched(files: &[(&'static str, Bytes)]) -> Vec<(&'static str, Bytes)> {
    files.iter().filter(|(name, _)| ![".py", ".md"].iter().any(|ending| name.ends_with(ending))).cloned().collect()
}

#[tokio::test]
async fn a_model_arrives_in_the_layout_that_other_programs_read() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    let path = world.fetch(&listing).await.unwrap();
    let files = model(5000);
    assert_eq!(path, world.folder().join("snapshots").join(COMMIT));
    assert_holds(&path, &fetched(&files));
    assert_eq!(fs::read_to_string(world.folder().join("refs/main")).unwrap(), COMMIT);
    let mut blobs = vec![sha256(&files[2].1), sha256(&files[4].1), git(b"{}")];
    let link = fs::read_link(path.join("config.json")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(&blobs[2]));
    blobs.sort();
    assert_eq!(world.blobs(), blobs, "nothing half-written is left");
    let locks: Vec<String> = blobs.iter().map(|blob| format!("{blob}.lock")).collect();
    assert_eq!(names(&world.cache.path().join(".locks/models--owner--name")), locks);
    assert_eq!(world.hub.sent(), listing.bytes());
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again_and_needs_no_network() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    let path = world.fetch(&listing).await.unwrap();
    let before = (world.hub.seen().len(), state_of(world.cache.path()));
    assert_eq!(world.fetch(&listing).await.unwrap(), path);
    let offline = hive_store::Settings { offline: true, ..world.settings() };
    let hub = hive_store::Hub::new(world.cache.path().to_owned(), &offline).unwrap();
    assert_eq!(fetch(&hub, &listing, &FetchOptions::default()).await.unwrap(), path);
    assert_eq!((world.hub.seen().len(), state_of(world.cache.path())), before, "nothing is asked, nothing is written");

    // A new commit takes from the hub what is new.
    let mut files = model(5000);
    files[1].1 = Bytes::from("{\"new\": true}");
    let sent = world.hub.sent();
    world.hub.change("owner/name", |repo| repo.commit("main", &"1".repeat(40), &files));
    let path = world.fetch(&world.find("owner/name").await.unwrap()).await.unwrap();
    assert_holds(&path, &fetched(&files));
    assert_eq!(world.hub.sent() - sent, 13);
    assert_eq!(fs::read_to_string(world.folder().join("refs/main")).unwrap(), "1".repeat(40));
}

/// All paths below a folder, with the time of their last change.
fn state_of(folder: &Path) -> BTreeSet<(String, SystemTime, u64)> {
    let mut found = BTreeSet::new();
    for name in names(folder) {
        let path = folder.join(name);
        let metadata = path.symlink_metadata().unwrap();
        found.insert((path.display().to_string(), metadata.modified().unwrap(), metadata.ino()));
        if metadata.is_dir() {
            found.extend(state_of(&path));
        }
    }
    found
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_not_to_its_storage() {
    let world = World::with_weights(5000);
    world.fetch(&world.find("owner/name").await.unwrap()).await.unwrap();
    let (storage, hub): (Vec<_>, Vec<_>) = world.hub.seen().into_iter().partition(|seen| seen.at_storage);
    assert!(!storage.is_empty() && storage.iter().all(|seen| seen.authorization.is_none()), "{storage:?}");
    let bearer = format!("Bearer {TOKEN}");
    assert!(hub.iter().all(|seen| seen.authorization.as_ref() == Some(&bearer)), "{hub:?}");
}

#[tokio::test]
async fn a_gguf_model_is_a_file_with_all_its_parts() {
    let parts = [("Q4/m-Q4_0-00001-of-00002.gguf", noise(5000, 1)), ("Q4/m-Q4_0-00002-of-00002.gguf", noise(4000, 2))];
    let files = [parts.to_vec(), vec![("m-Q8_0.gguf", noise(9000, 3)), ("config.json", Bytes::from("{}"))]].concat();
    let world = World::new(&files);
    let path = world.fetch(&world.find("owner/name:Q4_0").await.unwrap()).await.unwrap();
    assert_eq!(path, world.folder().join("snapshots").join(COMMIT).join(parts[0].0));
    assert_holds(path.parent().unwrap(), &parts.clone().map(|(name, contents)| (&name[3..], contents)));
    assert_eq!(world.hub.sent(), 9000);
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../../blobs").join(sha256(&parts[0].1)));
}

#[tokio::test]
async fn a_large_file_comes_in_several_ranges_at_once_and_progress_is_told() {
    let world = World::with_weights(80 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let options = on_event(move |event| hears.lock().unwrap().push(event));
    let path = world.fetch_with(&listing, &options).await.unwrap();
    assert_holds(&path, &fetched(&model(80 * MIB)));
    assert_eq!(world.hub.sent(), listing.bytes());
    let seen = world.hub.seen();
    let ranges: Vec<_> = seen.iter().filter(|seen| seen.at_storage).filter_map(|seen| seen.range.clone()).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    let done = |event: &Event| match event {
        Event::Progress(Progress { bytes_done, bytes_total, .. }) => Some((*bytes_done, *bytes_total)),
        Event::Waiting(_) => None,
    };
    let progress: Vec<_> = told.lock().unwrap().iter().filter_map(done).collect();
    assert!(progress.len() > 100 && progress.is_sorted(), "{} events", progress.len());
    assert_eq!((progress[0], progress[progress.len() - 1]), ((0, listing.bytes()), (listing.bytes(), listing.bytes())));
}

#[tokio::test]
async fn all_files_come_from_the_commit_that_was_found() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    let mut later = model(5000);
    later[1].1 = Bytes::from("{\"later\": true}");
    later[2].1 = noise(5000, 9);
    world.hub.change("owner/name", |repo| repo.commit("main", &"2".repeat(40), &later));
    let path = world.fetch(&listing).await.unwrap();
    assert_holds(&path, &fetched(&model(5000)));
}

#[tokio::test]
async fn two_fetches_of_one_model_share_the_work() {
    let world = World::with_weights(3 * MIB);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_millis(1))));
    let listing = world.find("owner/name").await.unwrap();
    let waited = Arc::new(Mutex::new(false));
    let options = || {
        let hears = Arc::clone(&waited);
        on_event(move |event| *hears.lock().unwrap() |= matches!(event, Event::Waiting(Wait::OtherFetch { .. })))
    };
    let options = [options(), options()];
    let (one, other) = tokio::join!(world.fetch_with(&listing, &options[0]), world.fetch_with(&listing, &options[1]));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_holds(&world.folder().join("snapshots").join(COMMIT), &fetched(&model(3 * MIB)));
    assert_eq!(world.hub.sent(), listing.bytes(), "each byte came once");
    assert!(*waited.lock().unwrap(), "whoever waits says so");
}

#[tokio::test]
async fn a_limit_holds_for_all_connections_together() {
    let world = World::with_weights(2 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    let limit = RateLimit::default();
    limit.set(NonZeroU64::new(4 * MIB as u64));
    let began = Instant::now();
    world.fetch_with(&listing, &FetchOptions { limit, ..FetchOptions::default() }).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_that_arrives_is_not_followed() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    let mine = world.cache.path().join("mine");
    fs::write(&mine, "keep me").unwrap();
    let blobs = world.folder().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let arriving = blobs.join(format!("{}.hivemind.incomplete", sha256(&model(5000)[2].1)));
    std::os::unix::fs::symlink(&mine, arriving).unwrap();
    let error = world.fetch(&listing).await.unwrap_err();
    assert!(matches!(error, hive_store::FetchError::Cache { .. }), "{error}");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "keep me");
}
