//! A data folder on a disk that is full: the node starts, serves, stops sharing and ends, and says what it could not write.
//!
//! The disk is a small one in memory, in a mount namespace of the test's own, which ends with it. It takes root.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::loopback::{Node, pair};
use common::{finish, patiently};
use serde_json::Value;

/// Takes all the room there is.
fn fill(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("filler")).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    assert!(std::fs::write(folder.join("more"), vec![7; 5000]).is_err(), "the disk is full");
    let _ = std::fs::remove_file(folder.join("more"));
    while file.write_all(&[7; 4096]).is_ok() {}
    // What the log has beyond its last line, up to the end of the page.
    for entry in std::fs::read_dir(folder.join("log")).unwrap() {
        let mut log = std::fs::File::options().append(true).open(entry.unwrap().path()).unwrap();
        let rest = 4096 - log.metadata().unwrap().len() % 4096;
        log.write_all(&vec![b'\n'; rest as usize % 4096]).unwrap();
    }
}

#[test]
fn a_node_on_a_full_disk_starts_serves_stops_sharing_and_ends() {
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    inside.args(["--exact", "on_a_full_disk", "--ignored", "--nocapture"]);
    inside.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = finish(inside, None);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn on_a_full_disk() {
    let home = tempfile::tempdir().unwrap();
    let disk = home.path().join("host");
    std::fs::create_dir(&disk).unwrap();
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs"]).arg(&disk).status();
    assert!(mount.unwrap().success());
    let (mut host, guest) = (Node::start(home.path(), "host"), Node::start(home.path(), "guest"));
    pair(&host, &guest);
    host.signal("-TERM");
    assert_eq!(host.wait(), Some(0));
    assert_eq!(std::fs::metadata(&disk).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(disk.join("peers.json.4711.new"), vec![7; 4096]).unwrap();
    fill(&disk);

    // It starts, at another address than before.
    let mut host = Node::start(home.path(), "host");
    assert!(!disk.join("peers.json.4711.new").exists());
    // What that has freed is taken, too.
    fill(&disk);
    let answer = host.json(&["chat", "--prompt", "What is the capital of France?"], None);
    assert_eq!(answer["text"], "The capital of France is Paris.");

    let (code, stdout, stderr) = host.run(&["share", "off"], None);
    assert_eq!((code, stdout.trim()), (0, "sharing is switched off"), "{stderr}");
    assert!(stderr.contains("will not survive a restart") && stderr.contains("free some space"), "{stderr}");
    let (code, _, stderr) = host.run(&["remove", "guest"], None);
    assert!(code == 1 && stderr.contains("this counts now") && stderr.contains("hint: free some space"), "{stderr}");
    let peers = host.json(&["peers"], None);
    assert!(peers["peers"].as_array().unwrap().iter().all(|peer| peer["state"] == "found"), "{peers}");
    patiently("the guest is cut off", || guest.state("host").as_deref() == Some("unreachable"));
    assert!(host.json(&["log"], None)["lost"].as_u64().unwrap() > 0);
    let names: Vec<_> = std::fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| Path::new(name).extension().is_none_or(|end| end != "new")), "{names:?}");
    host.signal("-TERM");
    assert_eq!(host.wait(), Some(0));

    // With room again, it is as it was written last, and the log says what it lacks.
    std::fs::remove_file(disk.join("filler")).unwrap();
    let host = Node::start(home.path(), "host");
    assert_eq!(host.json(&["status"], None)["share"], true);
    let (code, _, stderr) = host.run(&["share", "off"], None);
    assert!(code == 0 && stderr.is_empty(), "{stderr}");
    let kept: Value = serde_json::from_slice(&std::fs::read(disk.join("sharing.json")).unwrap()).unwrap();
    assert_eq!(kept["share"], false);
    let log = host.json(&["log"], None);
    let events: Vec<_> = log["entries"].as_array().unwrap().iter().map(|entry| &entry["event"]).collect();
    assert!(log["lost"] == 0 && log["unreadable"] == 0, "{log}");
    assert_eq!(events.iter().filter(|event| **event == "approved").count(), 1, "what was there is there");
    assert!(events.iter().filter(|event| **event == "started").count() >= 2, "{events:?}");
}
