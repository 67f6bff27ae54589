//! Byte ranges of a model on their way into a copy of parts.

use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hive_store::{
    BLOCK, Event, FetchError, FetchOptions, FileName, FindError, Hub, HubError, Listing, Manifest, Origin, PartCopy,
    PartStore, Progress, Settings, Wait, fetch_parts,
};
use tokio::sync::Notify;

use crate::stand_in::{Fault, Seen};
use crate::{MIB, World, assert_keeps_secrets, model, noise, on_event, retry_policy};

const WEIGHTS: usize = 70 * MIB;
/// What may come twice after each interruption.
const AGAIN: u64 = MIB as u64;

fn name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

fn weights() -> FileName {
    name("model.safetensors")
}

/// A machine's store, which ends with it.
struct Machine {
    store: PartStore,
    _folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: PartStore::new(folder.path().join("parts")), _folder: folder }
    }

    fn open(&self, listing: &Listing) -> PartCopy {
        self.store.open(&Manifest::of(listing)).unwrap()
    }
}

async fn bring(
    world: &World,
    listing: &Listing,
    copy: &PartCopy,
    wanted: &[(FileName, Range<u64>)],
) -> Result<(), FetchError> {
    let fetched = fetch_parts(&world.client(), listing, copy, wanted, &FetchOptions::default()).await;
    if let Err(error) = &fetched {
        assert_keeps_secrets(error);
    }
    fetched
}

/// Whether a range is there, with the bytes of the hub.
fn assert_there(copy: &PartCopy, file: &FileName, range: Range<u64>, contents: &Bytes) {
    let found = copy.read(file, range.clone()).unwrap();
    assert!(found == contents[range.start as usize..range.end as usize], "{range:?} of {file}");
}

#[tokio::test]
async fn only_the_wanted_ranges_leave_the_hub() {
    let world = World::with_weights(WEIGHTS);
    let contents = model(WEIGHTS)[2].1.clone();
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    // A header, two layers close to each other, one far away, and the end: none at whole blocks.
    let end = WEIGHTS as u64;
    let ranges = [0..9000, 5_000_001..7_000_003, 7_020_000..9_000_000, 40_000_000..40_123_456, end - 10..end];
    let wanted: Vec<_> = ranges.iter().map(|range| (weights(), range.clone())).collect();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    let options = on_event(move |event| {
        if let Event::Progress(Progress { bytes_done, bytes_total, .. }) = event {
            hears.lock().unwrap().push((bytes_done, bytes_total));
        }
    });
    fetch_parts(&world.client(), &listing, &copy, &wanted, &options).await.unwrap();
    for range in &ranges {
        assert_there(&copy, &weights(), range.clone(), &contents);
    }
    let asked: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    println!("{} bytes sent for {asked}", world.hub.sent());
    assert!(world.hub.sent() * 100 <= asked * 105, "{} for {asked}", world.hub.sent());
    assert!(copy.bytes() <= world.hub.sent() && !copy.is_whole());
    let of_weights = |seen: &&Seen| seen.at_storage && seen.is_get_of("model.safetensors");
    assert_eq!(world.hub.seen().iter().filter(of_weights).count(), 4, "a short gap is fetched with what is around it");
    let told = told.lock().unwrap().clone();
    let total = told[0].1;
    assert!(told.is_sorted() && told[0].0 == 0 && told[told.len() - 1] == (total, total), "{:?}", told.last());
    assert!((asked..asked + 10 * BLOCK).contains(&total), "{total} of {asked}");

    // What is there is not asked for again.
    let sent = (world.hub.sent(), world.hub.seen().len());
    bring(&world, &listing, &copy, &wanted).await.unwrap();
    assert_eq!((world.hub.sent(), world.hub.seen().len()), sent);
    bring(&world, &listing, &copy, &[(weights(), 0..3 * BLOCK + 1)]).await.unwrap();
    assert_eq!(world.hub.sent(), sent.0 + BLOCK);
}

#[tokio::test]
async fn machines_with_disjoint_ranges_fetch_each_block_once() {
    let world = World::with_weights(WEIGHTS);
    let contents = model(WEIGHTS)[2].1.clone();
    let listing = world.find("owner/name").await.unwrap();
    let machines: Vec<Machine> = (0..4).map(|_| Machine::new()).collect();
    let shares: Vec<Range<u64>> = (0..4)
        .map(|index| {
            let at = |index: u64| (index * WEIGHTS as u64 / 4).next_multiple_of(BLOCK);
            at(index)..at(index + 1).min(WEIGHTS as u64)
        })
        .collect();
    let fetches = machines.iter().zip(&shares).map(async |(machine, share)| {
        let copy = machine.open(&listing);
        bring(&world, &listing, &copy, &[(weights(), share.clone())]).await.unwrap();
        assert_there(&copy, &weights(), share.clone(), &contents);
        assert_eq!(copy.bytes(), share.end - share.start);
    });
    futures_util::future::join_all(fetches).await;
    assert_eq!(world.hub.sent(), WEIGHTS as u64);
}

#[tokio::test]
async fn two_fetches_into_one_copy_share_the_work() {
    let world = World::with_weights(3 * MIB);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_millis(1))));
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    let waited = Arc::new(Mutex::new(false));
    let hears = Arc::clone(&waited);
    let options =
        on_event(move |event| *hears.lock().unwrap() |= matches!(event, Event::Waiting(Wait::OtherFetch { .. })));
    let mib = MIB as u64;
    let [one, other] = [[(weights(), 0..2 * mib)], [(weights(), mib..3 * mib)]];
    let client = world.client();
    let (one, other) = tokio::join!(
        fetch_parts(&client, &listing, &copy, &one, &options),
        fetch_parts(&client, &listing, &copy, &other, &options)
    );
    one.unwrap();
    other.unwrap();
    assert_there(&copy, &weights(), 0..3 * mib, &model(3 * MIB)[2].1);
    assert_eq!(world.hub.sent(), 3 * mib);
    assert!(*waited.lock().unwrap(), "whoever waits says so");
}

#[tokio::test]
async fn several_files_arrive_at_once_and_a_whole_one_is_checked() {
    let parts =
        [("m-Q4_0-00001-of-00002.gguf", noise(5 * MIB, 1)), ("m-Q4_0-00002-of-00002.gguf", noise(4 * MIB + 9, 2))];
    let world = World::new(&parts);
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    assert!(copy.path().ends_with(parts[0].0));
    let wanted = [(name(parts[1].0), 0..u64::MAX), (name(parts[0].0), 100..2_000_000)];
    bring(&world, &listing, &copy, &wanted).await.unwrap();
    assert_there(&copy, &name(parts[0].0), 100..2_000_000, &parts[0].1);
    assert_there(&copy, &name(parts[1].0), 0..parts[1].1.len() as u64, &parts[1].1);

    // The same with a byte that a proxy changes: the part says nothing, the whole is noticed and forgotten.
    world
        .hub
        .faults(|seen| (seen.at_storage && seen.is_get_of("m-Q4_0-00002-of-00002.gguf")).then_some(Fault::Corrupt));
    let machine = Machine::new();
    let copy = machine.open(&listing);
    let error = bring(&world, &listing, &copy, &wanted).await.unwrap_err();
    assert!(matches!(&error, FetchError::Checksum { file, .. } if file.as_str() == parts[1].0), "{error}");
    assert_eq!(copy.present(&name(parts[1].0), 0..u64::MAX), []);
    // If some of it was there before, that may be what is wrong: all of it comes once more.
    copy.write(&name(parts[1].0), 0, &[7; BLOCK as usize]).unwrap();
    world.hub.faults(|_| None);
    bring(&world, &listing, &copy, &wanted).await.unwrap();
    assert_there(&copy, &name(parts[1].0), 0..parts[1].1.len() as u64, &parts[1].1);
}

#[tokio::test]
async fn a_fetch_of_parts_that_is_dropped_at_any_byte_resumes_there() {
    let world = World::with_weights(WEIGHTS);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_micros(200))));
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    let wanted = [(weights(), 1_000_000..69_000_000)];
    let size = 69_000_000_u64.next_multiple_of(BLOCK) - 1_000_000 / BLOCK * BLOCK;
    let mut ends: Vec<u64> = (0..20).map(|_| getrandom::u64().unwrap() % size).collect();
    ends.sort_unstable();
    for end in ends {
        let reached = Arc::new(Notify::new());
        let tells = Arc::clone(&reached);
        let options = on_event(move |event| match event {
            Event::Progress(progress) if progress.bytes_done >= end => tells.notify_one(),
            _ => {}
        });
        let client = world.client();
        tokio::select! {
            biased;
            () = reached.notified() => {}
            fetched = fetch_parts(&client, &listing, &copy, &wanted, &options) => { fetched.unwrap(); }
        }
    }
    bring(&world, &listing, &copy, &wanted).await.unwrap();
    assert_there(&copy, &weights(), 1_000_000..69_000_000, &model(WEIGHTS)[2].1);
    let again = world.hub.sent() - size;
    println!("{again} bytes came twice in 20 interruptions");
    assert!(again <= 20 * AGAIN, "{again} bytes came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_fetches_parts_leaves_no_hole_that_counts_as_there() {
    let world = World::with_weights(WEIGHTS);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_micros(200))));
    let contents = model(WEIGHTS)[2].1.clone();
    let listing = world.find("owner/name").await.unwrap();
    let store = world.cache.path().join("parts");
    for kill in 1..=6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "parts::fetches_parts_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env("HIVE_STORE_TEST_HUB", world.hub.url())
            .env("HIVE_STORE_TEST_CACHE", world.cache.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let share = WEIGHTS as u64 * kill / 8 + getrandom::u64().unwrap() % (1 << 20);
        while world.hub.sent() < share {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let copy = PartStore::new(store.clone()).open(&Manifest::of(&listing)).unwrap();
        for range in copy.present(&weights(), 0..WEIGHTS as u64) {
            assert_there(&copy, &weights(), range, &contents);
        }
    }
    let copy = PartStore::new(store).open(&Manifest::of(&listing)).unwrap();
    bring(&world, &listing, &copy, &[(weights(), 0..WEIGHTS as u64)]).await.unwrap();
    assert_there(&copy, &weights(), 0..WEIGHTS as u64, &contents);
    let again = world.hub.sent() - WEIGHTS as u64;
    println!("{again} bytes came twice in 6 kills");
    assert!(again <= 6 * AGAIN, "{again} bytes came twice");
}

#[tokio::test]
#[ignore = "a_process_that_is_killed_while_it_fetches_parts_leaves_no_hole_that_counts_as_there starts it"]
async fn fetches_parts_in_a_process_of_its_own() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let settings =
        Settings { endpoint: variable("HIVE_STORE_TEST_HUB"), retry_policy: retry_policy(), ..Settings::default() };
    let cache = std::path::PathBuf::from(variable("HIVE_STORE_TEST_CACHE"));
    let hub = Hub::new(cache.clone(), &settings).unwrap();
    let listing = hub.find(&"owner/name".parse().unwrap()).await.unwrap();
    let copy = PartStore::new(cache.join("parts")).open(&Manifest::of(&listing)).unwrap();
    let wanted = [(weights(), 0..WEIGHTS as u64)];
    fetch_parts(&hub, &listing, &copy, &wanted, &FetchOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_server_without_ranges_gives_small_files_and_whole_ones() {
    let large = 40 * MIB;
    let world = World::with_weights(large);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::NoRange));
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    let contents = model(large);
    bring(&world, &listing, &copy, &[(name("tokenizer.json"), 10..20), (name("config.json"), 0..1)]).await.unwrap();
    assert_there(&copy, &name("tokenizer.json"), 0..3000, &contents[4].1);
    let error = bring(&world, &listing, &copy, &[(weights(), 0..100)]).await.unwrap_err();
    assert!(
        error.to_string().contains("sent the whole file model.safetensors although only a part was requested"),
        "{error}"
    );
    assert_eq!(copy.present(&weights(), 0..u64::MAX), []);
    bring(&world, &listing, &copy, &[(weights(), 0..u64::MAX)]).await.unwrap();
    assert_there(&copy, &weights(), 0..large as u64, &contents[2].1);

    let world = World::with_weights(3 * MIB);
    world.hub.faults(|seen| seen.at_storage.then_some(Fault::NoRange));
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    bring(&world, &listing, &copy, &[(weights(), 5000..6000)]).await.unwrap();
    assert_there(&copy, &weights(), 5000..6000, &model(3 * MIB)[2].1);
}

#[tokio::test]
async fn connections_of_parts_that_break_or_are_refused_cost_only_time() {
    let world = World::with_weights(3 * MIB);
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    // Not at whole blocks, and a little later each time; a pause is asked for in between.
    world.hub.faults(|seen| match seen.at_storage {
        true if seen.before == 2 => Some(Fault::Status(429, vec![("retry-after", "1")])),
        true => Some(Fault::Cut(((seen.before % 5) + 3) * 40_001)),
        false => None,
    });
    let wanted = [(weights(), 70_000..3_000_000)];
    bring(&world, &listing, &copy, &wanted).await.unwrap();
    assert_there(&copy, &weights(), 70_000..3_000_000, &model(3 * MIB)[2].1);
    assert!(world.hub.sent() <= 3_000_000 + 700_000, "{}", world.hub.sent());
}

#[tokio::test]
async fn another_machine_finds_the_same_model_by_its_origin() {
    let gguf = [
        ("m-Q4_0.gguf", noise(5000, 1)),
        ("sub/m-Q8_0-00001-of-00002.gguf", noise(4000, 2)),
        ("sub/m-Q8_0-00002-of-00002.gguf", noise(4000, 3)),
    ];
    for (files, asked) in [(model(5000), "owner/name"), (gguf.to_vec(), "owner/name:Q8_0")] {
        let world = World::new(&files);
        let manifest = Manifest::of(&world.find(asked).await.unwrap()).checked().unwrap();
        assert!(manifest.files.is_sorted_by_key(|file| &file.name));
        // The branch moves on; the origin does not.
        world.hub.change("owner/name", |repo| repo.commit("main", &"2".repeat(40), &[("m-Q4_0.gguf", noise(9, 1))]));
        let text = serde_json::to_vec(&manifest).unwrap();
        let sent: Manifest = serde_json::from_slice(&text).unwrap();
        let listing = world.client().listing_at(&sent.origin.unwrap(), sent.gguf.as_ref()).await.unwrap();
        assert_eq!(Manifest::of(&listing), manifest);
        let machine = Machine::new();
        let copy = machine.open(&listing);
        let all: Vec<_> = manifest.files.iter().map(|file| (file.name.clone(), 0..file.bytes)).collect();
        bring(&world, &listing, &copy, &all).await.unwrap();
        assert!(copy.is_whole());
    }
}

#[tokio::test]
async fn a_repository_that_was_renamed_has_one_manifest() {
    let world = World::with_weights(5000);
    let manifest = Manifest::of(&world.find("owner/name").await.unwrap());
    world.hub.change("old/name", |repo| repo.moved_to = Some("owner/name".to_owned()));
    let listing = world.find("old/name").await.unwrap();
    assert_eq!(Manifest::of(&listing), manifest);
    let (machine, ranges) = (Machine::new(), [(weights(), 0..100)]);
    bring(&world, &listing, &machine.open(&listing), &ranges).await.unwrap();
}

#[tokio::test]
async fn an_origin_or_a_file_that_cannot_be_is_not_asked_for() {
    let world = World::with_weights(5000);
    let (listing, machine) = (world.find("owner/name").await.unwrap(), Machine::new());
    let copy = machine.open(&listing);
    let asked = world.hub.seen().len();
    for (repository, commit) in [("../name", "c0ffee00".repeat(5)), ("owner/name", "main".to_owned())] {
        let origin = Origin { repository: repository.to_owned(), commit };
        let error = world.client().listing_at(&origin, None).await.unwrap_err();
        assert!(matches!(error, FindError::Hub(HubError::NotFound { .. })), "{error}");
    }
    let error = bring(&world, &listing, &copy, &[(name("other.json"), 0..9)]).await.unwrap_err();
    assert!(matches!(error, FetchError::Hub(HubError::NotFound { .. })), "{error}");
    let mut other = Manifest::of(&listing);
    other.files.iter_mut().for_each(|file| file.bytes += 1);
    let error = bring(&world, &listing, &machine.store.open(&other).unwrap(), &[(weights(), 0..9)]).await.unwrap_err();
    assert!(matches!(error, FetchError::Hub(HubError::NotFound { .. })), "{error}");
    assert_eq!(world.hub.seen().len(), asked);
}
