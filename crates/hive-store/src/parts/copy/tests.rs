use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::parts::{ManifestFile, NoRoom, PartStore, Space};

const SIZE: u64 = 10 * BLOCK + 7;

fn name(name: &str) -> FileName {
    FileName::new(name).unwrap()
}

/// A model of two files.
fn manifest() -> Manifest {
    let file = |file: &str, bytes| ManifestFile { name: name(file), bytes };
    let files = vec![file("config.json", 5), file("deep/er/m.gguf", SIZE)];
    Manifest { origin: None, digest: None, files, gguf: Some(name("deep/er/m.gguf")) }
}

fn gguf() -> FileName {
    name("deep/er/m.gguf")
}

/// A store in a folder that ends with it.
fn store() -> (tempfile::TempDir, PartStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = PartStore::new(folder.path().join("new/parts"));
    (folder, store)
}

/// What this process would find after a start: nothing is shared with what is open.
fn reopened(store: &PartStore) -> PartCopy {
    OPEN.lock().unwrap().clear();
    store.open(&manifest()).unwrap()
}

fn blocks(range: Range<u64>) -> Vec<u8> {
    (range.start * BLOCK..(range.end * BLOCK).min(SIZE)).map(|at| (at / 100 % 251) as u8).collect()
}

#[test]
fn what_was_written_is_there_and_the_rest_is_missing() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    assert_eq!(copy.missing(&gguf(), 1..2), [0..BLOCK]);
    assert_eq!(copy.missing(&gguf(), 0..u64::MAX), [0..SIZE]);
    copy.write(&gguf(), 2 * BLOCK, &blocks(2..4)).unwrap();
    copy.write(&gguf(), 10 * BLOCK, &blocks(10..11)).unwrap();
    copy.write(&gguf(), 4 * BLOCK, &blocks(4..5)).unwrap();
    let check = |copy: &PartCopy| {
        assert_eq!(copy.missing(&gguf(), 0..SIZE), [0..2 * BLOCK, 5 * BLOCK..10 * BLOCK]);
        assert_eq!(copy.present(&gguf(), 0..SIZE), [2 * BLOCK..5 * BLOCK, 10 * BLOCK..SIZE]);
        assert_eq!(copy.present(&gguf(), 3 * BLOCK + 1..9 * BLOCK), [3 * BLOCK..5 * BLOCK]);
        assert_eq!(copy.missing(&gguf(), 4 * BLOCK..5 * BLOCK), []);
        assert_eq!(copy.read(&gguf(), 2 * BLOCK + 9..5 * BLOCK).unwrap(), blocks(2..5)[9..]);
        assert_eq!((copy.bytes(), copy.is_whole()), (3 * BLOCK + 7, false));
    };
    check(&copy);
    check(&copy.clone());
    check(&reopened(&store));
    copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
    copy.write(&name("config.json"), 0, b"{   }").unwrap();
    assert!(copy.is_whole());
    assert_eq!(fs::read(copy.path()).unwrap(), blocks(0..11), "readers see the whole file");
}

#[test]
fn what_is_in_use_stays_and_what_is_coming_counts_until_it_is_there() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    copy.write(&gguf(), 0, &blocks(0..2)).unwrap();
    let space = Space { free: 1 << 40, cap: Some(4 * BLOCK) };
    let leaving = |needed| store.leaving(needed, space).map(|copies| copies.len());
    assert_eq!((leaving(2 * BLOCK), leaving(2 * BLOCK + 1)), (Ok(0), Ok(1)));
    let in_use = store.open(&manifest()).unwrap().in_use();
    let refused = |available| Err(NoRoom::Cap { cap: 4 * BLOCK, available });
    assert_eq!(leaving(2 * BLOCK + 1), refused(2 * BLOCK));
    let [mut one, other] = [copy.expect(BLOCK / 2), copy.expect(BLOCK / 2)];
    assert_eq!(leaving(2 * BLOCK), refused(BLOCK));
    one.left(0);
    assert_eq!(leaving(2 * BLOCK), refused(BLOCK + BLOCK / 2));
    drop((one, other));
    assert_eq!(leaving(2 * BLOCK), Ok(0));
    assert!(!store.remove_unused(&copy).unwrap() && copy.bytes() == 2 * BLOCK);
    let long_ago = SystemTime::now() - Duration::from_hours(24);
    File::open(copy.folder().join(MANIFEST)).unwrap().set_modified(long_ago).unwrap();
    drop(in_use);
    assert!(copy.kept().used > long_ago, "it was used until now");
    assert_eq!(leaving(2 * BLOCK + 1), Ok(1));
    assert!(store.remove_unused(&copy).unwrap() && copy.bytes() == 0);
}

#[test]
fn a_copy_without_a_name_is_left_over_once_nothing_of_it_has_come_for_a_week() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    copy.write(&gguf(), 0, &blocks(0..2)).unwrap();
    let days = |days: u64| SystemTime::now() - Duration::from_hours(24 * days);
    let set = |path: PathBuf, to| fs::File::open(path).unwrap().set_modified(to).unwrap();
    let stays = |used, came| {
        set(copy.folder().join(MANIFEST), days(used));
        for file in &manifest().files {
            set(file.name.below(&copy.folder().join("map")), days(came));
        }
        store.remove_orphans();
        store.copies().len() == 1
    };
    // A fetch that began long ago, and was stopped by a power cut just now.
    assert!(stays(30, 1) && stays(6, 6));
    copy.settle(&Known { digest: "ab".to_owned(), revision: None, is_public: false }).unwrap();
    assert!(stays(30, 30));
    copy.unsettle().unwrap();
    let in_use = copy.in_use();
    assert!(stays(30, 30));
    drop(in_use);
    assert!(!stays(8, 8));
}

#[test]
fn holes_are_never_read_as_bytes() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    copy.write(&gguf(), 2 * BLOCK, &blocks(2..4)).unwrap();
    for hole in [0..1, 2 * BLOCK - 1..2 * BLOCK + 1, 3 * BLOCK..4 * BLOCK + 1, 0..SIZE, SIZE - 1..SIZE] {
        assert_eq!(copy.read(&gguf(), hole.clone()).unwrap_err().kind(), io::ErrorKind::NotFound, "{hole:?}");
    }
    assert_eq!(copy.read(&gguf(), 0..SIZE + 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(fs::metadata(copy.path()).unwrap().len(), SIZE);
    copy.forget(&gguf(), 2 * BLOCK + 5..2 * BLOCK + 6).unwrap();
    assert_eq!(copy.present(&gguf(), 0..SIZE), [3 * BLOCK..4 * BLOCK]);
    copy.read(&gguf(), 2 * BLOCK..2 * BLOCK + 1).unwrap_err();
}

#[test]
fn only_whole_blocks_of_the_models_files_are_written() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    for (at, length) in [(1, 4096), (0, 4095), (0, 1), (10 * BLOCK, 6), (10 * BLOCK, 8), (u64::MAX - 9, 20)] {
        let error = copy.write(&gguf(), at, &vec![1; length]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{at} {length}");
    }
    assert_eq!(copy.bytes(), 0);
    let other = name("other.json");
    copy.write(&other, 0, &[]).unwrap_err();
    copy.read(&other, 0..0).unwrap_err();
    assert_eq!((copy.missing(&other, 3..9), copy.present(&other, 3..9)), (vec![3..9], vec![]));
}

#[test]
fn a_file_or_a_map_of_the_wrong_length_counts_as_empty() {
    for (folder, length) in [("model", 0), ("model", SIZE - 1), ("model", SIZE + 1), ("map", 0), ("map", 3)] {
        let (_folder, store) = store();
        let copy = store.open(&manifest()).unwrap();
        copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
        copy.write(&name("config.json"), 0, b"{   }").unwrap();
        let damaged = copy.folder().join(folder).join("deep/er/m.gguf");
        File::options().write(true).open(damaged).unwrap().set_len(length).unwrap();
        assert_eq!(copy.missing(&gguf(), 0..SIZE), [0..SIZE], "{folder} {length}");
        assert_eq!(copy.bytes(), 5, "{folder} {length}");
        copy.read(&gguf(), 0..1).unwrap_err();
        assert_eq!(reopened(&store).bytes(), 5, "{folder} {length}");
        copy.write(&gguf(), BLOCK, &blocks(1..2)).unwrap();
        assert_eq!(copy.present(&gguf(), 0..SIZE), [BLOCK..2 * BLOCK], "{folder} {length}");
        assert_eq!(fs::metadata(copy.path()).unwrap().len(), SIZE);
    }
}

#[test]
fn what_a_power_cut_may_have_lost_is_forgotten_and_nothing_else() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    let journal = copy.folder().join("unsynced");
    let power_cut = || {
        let noted = fs::read_to_string(&journal).unwrap();
        let (_, regions) = noted.split_once('\n').unwrap();
        fs::write(&journal, format!("another start\n{regions}")).unwrap();
        OPEN.lock().unwrap().clear();
        store.at(&copy.path()).unwrap()
    };
    copy.write(&name("config.json"), 0, b"{   }").unwrap();
    copy.sync().unwrap();
    copy.write(&gguf(), 0, &blocks(0..4)).unwrap();
    assert_eq!(reopened(&store).bytes(), 5 + 4 * BLOCK, "the process died, and the system did not");
    assert_eq!(power_cut().bytes(), 5);
    copy.write(&gguf(), 0, &blocks(0..4)).unwrap();
    copy.sync().unwrap();
    assert_eq!(power_cut().bytes(), 5 + 4 * BLOCK);
}

#[test]
fn who_confirmed_a_model_is_known_after_a_power_cut_too() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    let known = Known { digest: "d1".to_owned(), revision: Some("main".to_owned()), is_public: true };
    copy.write(&gguf(), 0, &blocks(0..4)).unwrap();
    copy.settle(&known).unwrap();
    assert_eq!((copy.known(), copy.was_known()), (Some(known.clone()), Some(known.clone())));
    let journal = copy.folder().join("unsynced");
    let noted = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("another start\n{}", noted.split_once('\n').unwrap().1)).unwrap();
    let copy = store.at(&copy.path()).unwrap();
    assert_eq!((copy.bytes(), copy.known(), copy.was_known()), (0, None, Some(known.clone())));
    copy.settle(&known).unwrap();
    copy.unsettle().unwrap();
    assert_eq!((copy.known(), copy.was_known()), (None, None));
}

#[test]
fn other_machines_write_nothing_while_the_hub_confirms() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    let confirming = copy.confirming();
    let same = store.open(&manifest()).unwrap();
    let refused = same.write_unconfirmed(&gguf(), 0, &blocks(0..1)).unwrap_err();
    assert_eq!((refused.kind(), same.bytes()), (io::ErrorKind::ResourceBusy, 0));
    same.write(&gguf(), 0, &blocks(0..1)).unwrap();
    let busy = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    busy(same.forget_unknown(&gguf(), 0..BLOCK));
    drop(confirming);
    same.write_unconfirmed(&gguf(), BLOCK, &blocks(1..2)).unwrap();
    same.write_unknown(&gguf(), 2 * BLOCK, &blocks(2..3)).unwrap();
    same.forget_unknown(&gguf(), 2 * BLOCK..3 * BLOCK).unwrap();
    assert_eq!(same.bytes(), 2 * BLOCK);
    // Nor do they begin to send another model once it is known which one this is.
    copy.settle(&Known { digest: "d1".to_owned(), revision: None, is_public: false }).unwrap();
    busy(same.write_unknown(&gguf(), 2 * BLOCK, &blocks(2..3)));
    busy(same.forget_unknown(&gguf(), 0..BLOCK));
    same.write_unconfirmed(&gguf(), 2 * BLOCK, &blocks(2..3)).unwrap();
    assert_eq!(same.bytes(), 3 * BLOCK);
}

#[test]
fn no_link_is_followed_and_everything_is_private() {
    let (folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    for private in [copy.folder(), &copy.path(), copy.path().parent().unwrap()] {
        assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o077, 0, "{private:?}");
    }
    let mine = folder.path().join("mine");
    for linked in ["model/deep/er/m.gguf", "map/deep/er/m.gguf", "model/deep", "model"] {
        fs::create_dir_all(mine.join("er")).unwrap();
        fs::write(mine.join("er/m.gguf"), "keep me").unwrap();
        let path = copy.folder().join(linked);
        let target = if linked.ends_with("gguf") { mine.join("er/m.gguf") } else { mine.clone() };
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).unwrap();
        std::os::unix::fs::symlink(target, &path).unwrap();
        copy.write(&gguf(), 0, &blocks(0..11)).unwrap_err();
        store.open(&manifest()).unwrap_err();
        assert_eq!(copy.present(&gguf(), 0..SIZE), [], "{linked}");
        assert_eq!(fs::read_to_string(mine.join("er/m.gguf")).unwrap(), "keep me");
        fs::remove_file(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
    }
    let kept = folder.path().join("kept");
    fs::rename(copy.folder(), &kept).unwrap();
    std::os::unix::fs::symlink(&mine, copy.folder()).unwrap();
    store.open(&manifest()).unwrap_err();
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
}

#[test]
fn copies_are_found_by_what_they_hold_and_by_their_paths() {
    let (folder, store) = store();
    assert_eq!(store.copies().len(), 0);
    let copy = store.open(&manifest()).unwrap();
    let other = store.open(&Manifest { gguf: None, ..manifest() }).unwrap();
    assert_ne!(copy.folder(), other.folder());
    assert!(other.path().ends_with("model") && copy.path().ends_with("model/deep/er/m.gguf"));
    let damaged = folder.path().join("new/parts").join("0".repeat(32));
    fs::create_dir(&damaged).unwrap();
    fs::copy(copy.folder().join(MANIFEST), damaged.join(MANIFEST)).unwrap();
    assert_eq!(store.copies().len(), 2, "a copy under another's key is none");
    for path in [copy.path(), copy.folder().to_owned(), copy.folder().join("model")] {
        assert!(Arc::ptr_eq(&store.at(&path).unwrap().0, &copy.0));
    }
    let out = copy.folder().join("../..");
    for path in [Path::new("/"), folder.path(), &damaged, &out, Path::new("relative")] {
        assert!(store.at(path).is_none(), "{path:?}");
    }
    fs::write(other.folder().join(MANIFEST), "{").unwrap();
    assert_eq!(store.copies().len(), 1);
}

#[test]
fn a_removed_copy_is_empty_for_all_who_have_it() {
    let (folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
    let elsewhere = PartStore::new(folder.path().join("else"));
    elsewhere.open(&manifest()).unwrap();
    elsewhere.remove_unused(&copy).unwrap_err();
    assert!(store.remove_unused(&store.copies()[0]).unwrap());
    assert_eq!((copy.bytes(), store.copies().len()), (0, 0));
    copy.write(&gguf(), 0, &blocks(0..11)).unwrap_err();
    assert!(store.remove_unused(&copy).unwrap());
    store.open(&manifest()).unwrap();
    assert_eq!(copy.missing(&gguf(), 0..SIZE), [0..SIZE]);
    copy.write(&gguf(), 0, &blocks(0..11)).unwrap();
}

#[test]
fn two_names_of_one_file_are_refused() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    // As a disk that takes "a" and "A" for one name shows it.
    fs::remove_file(copy.folder().join("model/config.json")).unwrap();
    fs::hard_link(copy.path(), copy.folder().join("model/config.json")).unwrap();
    let error = store.open(&manifest()).unwrap_err();
    assert!(error.to_string().contains("one file"), "{error}");
}

/// Whether somebody waits for the lock of a copy, as Linux lists it. Elsewhere, whether somebody is about to take it.
fn is_waited_for(copy: &PartCopy) -> bool {
    if !cfg!(target_os = "linux") {
        return copy.0.writing.try_lock().is_err();
    }
    let inode = fs::metadata(copy.folder().with_extension("lock")).unwrap().ino();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|lock| lock.contains("-> FLOCK") && lock.contains(&format!(":{inode} ")))
}

#[test]
fn whoever_writes_waits_for_another_process_and_readers_do_not() {
    let (_folder, store) = store();
    let copy = store.open(&manifest()).unwrap();
    copy.write(&gguf(), 0, &blocks(0..1)).unwrap();
    let other = Lock::wait(&copy.folder().with_extension("lock")).unwrap();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| copy.write(&gguf(), BLOCK, &blocks(1..2)).unwrap());
        let began = std::time::Instant::now();
        while !is_waited_for(&copy) {
            assert!(!write.is_finished(), "it did not wait");
            assert!(began.elapsed() < Duration::from_mins(1), "this system does not list who waits for a lock");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(copy.read(&gguf(), 0..BLOCK).unwrap(), blocks(0..1));
        assert_eq!(copy.present(&gguf(), 0..SIZE), [0..BLOCK], "it writes nothing before it has the lock");
        drop(other);
    });
    assert_eq!(copy.present(&gguf(), 0..SIZE), [0..2 * BLOCK]);
}

#[test]
fn threads_that_write_at_once_lose_no_bit() {
    let (_folder, store) = store();
    let copies = [store.open(&manifest()).unwrap(), reopened(&store)];
    assert!(!Arc::ptr_eq(&copies[0].0, &copies[1].0), "as two processes");
    std::thread::scope(|scope| {
        for block in 0..11 {
            let copy = &copies[block as usize % 2];
            scope.spawn(move || copy.write(&gguf(), block * BLOCK, &blocks(block..block + 1)).unwrap());
        }
    });
    assert_eq!(copies[0].read(&gguf(), 0..SIZE).unwrap(), blocks(0..11));
}
