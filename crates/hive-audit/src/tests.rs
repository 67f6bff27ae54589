use super::*;

fn machine(name: &str) -> Machine {
    Machine::new(hive_net::Identity::generate().id(), name)
}

fn events(log: &Log) -> Vec<AuditEvent> {
    log.entries.iter().map(|line| line.entry.event.clone()).collect()
}

fn started(version: &str) -> AuditEvent {
    AuditEvent::Started { version: version.to_owned() }
}

#[tokio::test]
async fn what_is_noted_is_read_at_once_and_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let (bob, mallory) = (machine("bob"), machine("mal\u{7}lory"));
    let audit = Audit::open(data.path());
    audit.note(None, started("1"));
    audit.note(Some(bob.clone()), AuditEvent::Removed);
    let usage = Arc::new(Usage::default());
    let visit = audit.visit(mallory.clone(), "SmolLM2", [0, 16], usage.clone());
    usage.sessions.fetch_add(1, Ordering::Relaxed);
    usage.tokens.fetch_add(40, Ordering::Relaxed);
    usage.busy_ms.fetch_add(2500, Ordering::Relaxed);
    let log = audit.read(&Query::default()).unwrap();
    let used = AuditEvent::Used { sessions: 1, tokens: 40, seconds: 2 };
    assert_eq!(events(&log), [started("1"), AuditEvent::Removed, used]);
    assert_eq!(log.entries[2].text, "mallory used this machine: 1 conversation, 40 tokens, 2 s");

    usage.tokens.fetch_add(2, Ordering::Relaxed);
    drop(visit);
    audit.close().await;
    audit.note(None, AuditEvent::Stopped);
    let about = |who: &str| read(data.path(), &Query { machine: Some(who.to_owned()), ..Query::default() }).unwrap();
    let freed = AuditEvent::Freed { model: "SmolLM2".to_owned(), layers: [0, 16] };
    let mut seen = events(&about("Mallory"));
    seen.sort_by_key(|event| matches!(event, AuditEvent::Used { .. }));
    assert_eq!(seen, [freed, AuditEvent::Used { sessions: 1, tokens: 42, seconds: 2 }]);
    assert_eq!(events(&about(&bob.fingerprint)), [AuditEvent::Removed]);
    assert_eq!(events(&about(&bob.id[..8])), [AuditEvent::Removed]);
    assert_eq!(events(&about("nobody")), []);
    assert_eq!(Audit::open(data.path()).read(&Query::default()).unwrap().entries.len(), 4, "nothing after the end");
}

#[test]
fn a_disk_that_cannot_be_written_stops_nobody_and_the_log_says_what_it_lacks() {
    let data = tempfile::tempdir().unwrap();
    // A file in the folder's place: nothing can be written, not even by root.
    std::fs::write(data.path().join(files::FOLDER), "").unwrap();
    let audit = Audit::open(data.path());
    audit.note(None, started("1"));
    audit.note(None, started("2"));
    let shared = audit.shared.clone().unwrap();
    shared.catch_up();
    assert_eq!(shared.lost.load(Ordering::Relaxed), 2);
    std::fs::remove_file(data.path().join(files::FOLDER)).unwrap();
    audit.note(None, started("3"));
    let log = audit.read(&Query::default()).unwrap();
    assert_eq!(events(&log), [started("3"), AuditEvent::Lost { entries: 2 }]);
    assert_eq!(log.lost, 0);
}

#[test]
fn a_queue_that_is_full_makes_nobody_wait() {
    let data = tempfile::tempdir().unwrap();
    let audit = Audit::open(data.path());
    // Nothing reads from this queue.
    let (orders, _queue) = sync_channel(2);
    let shared = audit.shared.clone().unwrap();
    *lock(&shared.orders) = Some(orders);
    for _ in 0..10 {
        audit.note(None, AuditEvent::Stopped);
    }
    assert_eq!(shared.lost.load(Ordering::Relaxed), 8);
}

#[test]
fn a_hostile_machine_can_make_the_log_only_so_long() {
    let data = tempfile::tempdir().unwrap();
    let audit = Audit::open(data.path());
    let mallory = machine(&"\u{202e}m".repeat(5000));
    for index in 0..20_000u32 {
        let model = "x".repeat(64);
        let (layers, bytes) = ([0, index as usize], u64::MAX);
        audit.note(Some(mallory.clone()), AuditEvent::Loaded { model, layers, bytes, standby: false });
        audit.note(Some(mallory.clone()), AuditEvent::Refused { asked: Asked::Load, why: Refusal::NoRoom });
        if index % 50 == 0 {
            audit.shared.as_ref().unwrap().catch_up();
        }
    }
    audit.note(None, AuditEvent::Invited { valid_for_s: 60 });
    let log = audit.read(&Query::default()).unwrap();
    assert!(events(&log).contains(&AuditEvent::Invited { valid_for_s: 60 }));
    let refused = log.entries.iter().filter(|line| matches!(line.entry.event, AuditEvent::Refused { .. }));
    assert_eq!(refused.map(|line| line.entry.count).sum::<u64>(), 20_000);
    let bytes: u64 = std::fs::read_dir(data.path().join(files::FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 150_000, "{bytes} bytes after 40,000 events");
}
