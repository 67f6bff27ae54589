//! A fetch that ends at any byte, and the next one that resumes there.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hive_store::{Event, FetchOptions, Hub, Settings, fetch};
use tokio::sync::Notify;

use crate::stand_in::{Fault, sha256};
use crate::{COMMIT, MIB, World, assert_holds, model, on_event, retry_policy};

const WEIGHTS: usize = 70 * MIB;
/// What may come twice each time.
const AGAIN: u64 = MIB as u64;

/// A hub that sends no faster than a client reads, so that nothing waits in the system's buffers.
fn steady() -> World {
    let world = World::with_weights(WEIGHTS);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_micros(200))));
    world
}

fn assert_arrived(world: &World) {
    let files = model(WEIGHTS);
    let expected = [1, 2, 4].map(|index| files[index].clone());
    assert_holds(&world.folder().join("snapshots").join(COMMIT), &expected);
    assert_eq!(world.blobs().len(), 3, "{:?}", world.blobs());
}

fn random(below: u64) -> u64 {
    getrandom::u64().unwrap() % below
}

#[tokio::test]
async fn a_fetch_that_is_dropped_at_any_byte_goes_on_there() {
    let world = steady();
    let listing = world.find("owner/name").await.unwrap();
    let mut ends: Vec<u64> = (0..20).map(|_| random(listing.bytes())).collect();
    ends.sort_unstable();
    for end in ends {
        let reached = Arc::new(Notify::new());
        let tells = Arc::clone(&reached);
        let options = on_event(move |event| match event {
            Event::Progress(progress) if progress.bytes_done >= end => tells.notify_one(),
            _ => {}
        });
        tokio::select! {
            biased;
            () = reached.notified() => {}
            fetched = world.fetch_with(&listing, &options) => { fetched.unwrap(); }
        }
    }
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world);
    let again = world.hub.sent() - listing.bytes();
    println!("{again} bytes came twice in 20 interruptions");
    assert!(again <= 20 * AGAIN, "{again} bytes came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_any_moment_leaves_nothing_to_do_twice() {
    let world = steady();
    let listing = world.find("owner/name").await.unwrap();
    let sent_before_each = async |share: u64| {
        while world.hub.sent() < share {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for kill in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "resuming::fetches_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env("HIVE_STORE_TEST_HUB", world.hub.url())
            .env("HIVE_STORE_TEST_CACHE", world.cache.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        sent_before_each(listing.bytes() * kill / 10 + random(1 << 20)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!world.folder().join("snapshots").exists());
    }
    world.fetch(&listing).await.unwrap();
    assert_arrived(&world);
    let again = world.hub.sent() - listing.bytes();
    println!("{again} bytes came twice in 8 kills");
    assert!(again <= 8 * AGAIN, "{again} bytes came twice");
}

#[tokio::test]
#[ignore = "a_process_that_is_killed_at_any_moment_leaves_nothing_to_do_twice starts it"]
async fn fetches_in_a_process_of_its_own() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let settings =
        Settings { endpoint: variable("HIVE_STORE_TEST_HUB"), retry_policy: retry_policy(), ..Settings::default() };
    let hub = Hub::new(variable("HIVE_STORE_TEST_CACHE").into(), &settings).unwrap();
    let listing = hub.find(&"owner/name".parse().unwrap()).await.unwrap();
    fetch(&hub, &listing, &FetchOptions::default()).await.unwrap();
}

#[tokio::test]
async fn bytes_that_were_lost_with_the_power_are_fetched_again() {
    let world = World::with_weights(3 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    let weights = sha256(&model(3 * MIB)[2].1);
    // The file has its length, as before the power failed, and not its contents.
    let blobs = world.folder().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let lost = std::fs::File::create(blobs.join(format!("{weights}.hivemind.incomplete"))).unwrap();
    lost.set_len(3 * MIB as u64).unwrap();
    let path = world.fetch(&listing).await.unwrap();
    assert!(std::fs::read(path.join("model.safetensors")).unwrap() == model(3 * MIB)[2].1);
    assert_eq!(world.blobs().len(), 3);
}

#[tokio::test]
async fn what_an_older_program_began_is_continued() {
    let world = World::with_weights(3 * MIB);
    let listing = world.find("owner/name").await.unwrap();
    let weights = model(3 * MIB)[2].1.clone();
    let blobs = world.folder().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&weights))), &weights[..2 * MIB]).unwrap();
    let path = world.fetch(&listing).await.unwrap();
    assert!(std::fs::read(path.join("model.safetensors")).unwrap() == weights);
    assert_eq!(world.hub.sent(), listing.bytes() - 2 * MIB as u64);
}
