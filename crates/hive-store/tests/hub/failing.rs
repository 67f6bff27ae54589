//! A model on its way into the cache, while something goes wrong.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hive_store::{Event, FetchError, Hub, HubError, RetryPolicy, Settings, Wait, fetch};

use crate::stand_in::{Fault, Seen, sha256};
use crate::{COMMIT, MIB, World, assert_holds, is_next_attempt, model, on_event, retry_policy};

/// Whether the cache shows the whole model.
fn assert_arrived(world: &World, weights: usize) {
    let files = model(weights);
    let expected = [1, 2, 4].map(|index| files[index].clone());
    assert_holds(&world.folder().join("snapshots").join(COMMIT), &expected);
    assert_eq!(world.blobs().len(), 3, "{:?}", world.blobs());
}

#[tokio::test]
async fn a_hub_that_asks_for_a_pause_gets_it() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    world.hub.faults(|seen| {
        let is_first = seen.is_get_of("model.safetensors") && !seen.at_storage && seen.before == 0;
        is_first.then(|| Fault::Status(429, vec![("retry-after", "1")]))
    });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&waits);
    let options = on_event(move |event| {
        if let Event::Waiting(Wait::NextAttempt { error, after }) = event {
            hears.lock().unwrap().push((error, after));
        }
    });
    world.fetch_with(&listing, &options).await.unwrap();
    assert_arrived(&world, 5000);
    let waits = waits.lock().unwrap();
    let [(HubError::Busy { status: 429, .. }, after)] = waits.as_slice() else { panic!("{waits:?}") };
    assert!(*after >= Duration::from_secs(1));
}

#[tokio::test]
async fn connections_that_break_cost_nothing_but_time() {
    for end in [Fault::Cut as fn(usize) -> Fault, Fault::End] {
        let world = World::with_weights(3 * MIB);
        let listing = world.find("owner/name").await.unwrap();
        // Every connection ends a little later than the one before.
        world.hub.faults(move |seen| seen.at_storage.then(|| end(((seen.before % 5) + 3) * 40_000)));
        world.fetch(&listing).await.unwrap();
        assert_arrived(&world, 3 * MIB);
        assert!(world.hub.sent() <= listing.bytes() + 500_000, "{} of {}", world.hub.sent(), listing.bytes());
    }
}

#[tokio::test]
async fn a_connection_that_hangs_or_drips_is_replaced() {
    for fault in [Fault::Stall(100_000), Fault::Slow(Duration::from_millis(100))] {
        let world = World::with_weights(2 * MIB);
        let listing = world.find("owner/name").await.unwrap();
        world.hub.faults(move |seen| (seen.at_storage && seen.before == 0).then(|| fault.clone()));
        let retry_policy = RetryPolicy { idle: Duration::from_millis(500), least_bytes: 200_000, ..retry_policy() };
        let hub = Hub::new(world.cache.path().to_owned(), &Settings { retry_policy, ..world.settings() }).unwrap();
        fetch(&hub, &listing, &on_event(|_| ())).await.unwrap();
        assert_arrived(&world, 2 * MIB);
        let is_weights = |seen: &Seen| seen.at_storage && seen.is_get_of("model.safetensors");
        assert_eq!(world.hub.seen().into_iter().filter(is_weights).count(), 2);
    }
}

#[tokio::test]
async fn a_fetch_fails_after_several_attempts_without_progress_and_keeps_what_it_has() {
    let world = World::with_weights(3 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    world.hub.faults(|seen| match seen.is_get_of("model.safetensors") && seen.at_storage {
        true if seen.before == 0 => Some(Fault::Cut(2 * MIB)),
        true => Some(Fault::Status(500, vec![])),
        false => None,
    });
    let attempts = Arc::new(Mutex::new(0));
    let hears = Arc::clone(&attempts);
    let options = on_event(move |event| *hears.lock().unwrap() += u32::from(is_next_attempt(&event)));
    let error = world.fetch_with(&listing, &options).await.unwrap_err();
    assert!(matches!(error, FetchError::Hub(HubError::Busy { status: 500, .. })), "{error:?}");
    assert_eq!(*attempts.lock().unwrap(), retry_policy().attempts - 1);
    assert!(!world.folder().join("snapshots").exists(), "nothing is shown before all is there");

    world.hub.faults(|_| None);
    let sent = world.hub.sent();
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world, 3 * MIB);
    assert!(world.hub.sent() - sent <= MIB as u64 + 200_000, "{}", world.hub.sent() - sent);
}

#[tokio::test]
async fn wrong_bytes_are_noticed_and_never_shown() {
    let world = World::with_weights(40 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    world.hub.faults(|seen| {
        let second = seen.range.as_ref().is_some_and(|range| range.start > 0);
        (seen.at_storage && second).then_some(Fault::Corrupt)
    });
    let error = world.fetch(&listing).await.unwrap_err();
    assert!(matches!(&error, FetchError::Checksum { file, .. } if file.as_str() == "model.safetensors"), "{error:?}");
    assert!(!world.folder().join("snapshots").exists());
    let weights = sha256(&model(40 * MIB)[2].1);
    assert!(world.blobs().iter().all(|blob| !blob.contains(&weights)), "{:?}", world.blobs());
    world.hub.faults(|_| None);
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world, 40 * MIB);
}

#[tokio::test]
async fn a_small_file_with_wrong_bytes_is_noticed_too() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    world.hub.faults(|seen| seen.is_get_of("config.json").then_some(Fault::Corrupt));
    let error = world.fetch(&listing).await.unwrap_err();
    assert!(matches!(&error, FetchError::Checksum { file, .. } if file.as_str() == "config.json"), "{error:?}");
}

#[tokio::test]
async fn a_server_without_ranges_gives_the_whole_file() {
    let world = World::with_weights(40 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::NoRange));
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world, 40 * MIB);
}

#[tokio::test]
async fn a_link_to_the_storage_that_no_longer_works_is_renewed() {
    let world = World::with_weights(80 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    // Each link that the hub gives works once.
    let links = AtomicU32::new(0);
    world.hub.faults(move |seen| {
        let is_link = seen.is_get_of("model.safetensors") && !seen.at_storage;
        links.fetch_add(u32::from(is_link), Ordering::SeqCst);
        let is_used_up = || links.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        let is_refused = seen.at_storage && seen.is_get_of("model.safetensors") && is_used_up();
        is_refused.then(|| Fault::Status(403, vec![]))
    });
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world, 80 * MIB);
}

#[tokio::test]
async fn a_web_page_ends_a_fetch() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Page("text/html")));
    let error = world.fetch(&listing).await.unwrap_err();
    assert!(matches!(error, FetchError::Hub(HubError::CaptivePortal { .. })), "{error:?}");
}

#[tokio::test]
async fn a_storage_with_another_file_is_not_believed() {
    let world = World::with_weights(40 * MIB);
    world.hub.change("owner/name", |repo| {
        repo.claims.insert("model.safetensors".to_owned(), 50 << 20);
    });
    let listing = world.find("owner/name").await.unwrap();
    let error = world.fetch(&listing).await.unwrap_err();
    assert!(matches!(error, FetchError::Hub(HubError::NotAHub { .. })), "{error:?}");
}

#[tokio::test]
async fn a_model_that_does_not_fit_on_the_disk_is_not_begun() {
    let world = World::with_weights(5000);
    world.hub.change("owner/name", |repo| {
        repo.claims.insert("model.safetensors".to_owned(), 1 << 43);
    });
    let listing = world.find("owner/name").await.unwrap();
    let error = world.fetch(&listing).await.unwrap_err();
    let FetchError::DiskFull { needed, free, .. } = &error else { panic!("{error:?}") };
    assert!(*needed > 1 << 43 && *free > 0 && *free < 1 << 43);
    assert_eq!((world.hub.sent(), world.blobs()), (0, vec![]));
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let world = World::with_weights(5000);
    let listing = world.find("owner/name").await.unwrap();
    // Even root writes nothing there.
    let read_only = if cfg!(target_os = "macos") { "/System/Library" } else { "/sys/kernel" };
    let hub = Hub::new(read_only.into(), &world.settings()).unwrap();
    let error = fetch(&hub, &listing, &on_event(|_| ())).await.unwrap_err();
    let FetchError::Cache { path, .. } = &error else { panic!("{error:?}") };
    assert_eq!(path.to_str(), Some(read_only));
    assert!(error.to_string().contains("HF_HUB_CACHE"), "{error}");
    assert_eq!(world.hub.sent(), 0);
}

#[tokio::test]
async fn a_fetch_that_is_cancelled_is_continued() {
    let world = World::with_weights(3 * MIB);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_micros(200))));
    let listing = world.find("owner/name").await.unwrap();
    let mut options = on_event(|_| ());
    let cancel = options.cancel.clone();
    options.on_event = Some(Box::new(move |event| match event {
        Event::Progress(progress) if progress.bytes_done > 1 << 20 => cancel.cancel(),
        _ => {}
    }));
    let error = world.fetch_with(&listing, &options).await.unwrap_err();
    assert_eq!(error, FetchError::Cancelled);
    assert!(!world.folder().join("snapshots").exists());
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world, 3 * MIB);
    assert!(world.hub.sent() <= listing.bytes() + MIB as u64, "{} of {}", world.hub.sent(), listing.bytes());
}
