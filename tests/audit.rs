//! What an owner can read later of what other machines did.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::loopback::{Node, pair};
use common::{finish, hivemind, patiently};
use serde_json::Value;

fn entries(log: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    log["entries"].as_array().unwrap().iter().map(|entry| (text(&entry["event"]), text(&entry["text"]))).collect()
}

/// The log of a folder that no node runs with.
fn without_a_node(folder: &Path, arguments: &[&str]) -> String {
    let mut command = hivemind(&[&["log"], arguments].concat());
    command.env("HIVEMIND_DATA_DIR", folder);
    let output = finish(command, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_owner_reads_who_was_approved_by_which_code_and_what_each_machine_loaded_and_used() {
    let home = tempfile::tempdir().unwrap();
    let (mut host, guest) = (Node::start(home.path(), "host"), Node::start(home.path(), "guest"));
    pair(&host, &guest);
    let prompt = "What is the capital of France?";
    let answer = guest.json(&["chat", "--prompt", prompt, "--stages", "2"], None);
    assert_eq!(answer["text"], "The capital of France is Paris.");

    let peer = host.json(&["peers"], None)["peers"][0].clone();
    let (code, words) = (peer["paired"]["code"].as_str().unwrap(), peer["fingerprint"].as_str().unwrap());
    assert!(peer["paired"]["at_s"].as_u64().unwrap() > 1_700_000_000);
    let read = || entries(&host.json(&["log", "--machine", "guest"], None));
    patiently("its use is counted", || read().iter().any(|(event, _)| event == "used"));
    let log = read();
    let [asked, approved, loaded, used] = ["pairing_asked", "approved", "loaded", "used"].map(|wanted| {
        let found = log.iter().find(|(event, _)| event == wanted);
        found.unwrap_or_else(|| panic!("{wanted} is missing in {log:?}")).1.clone()
    });
    assert_eq!(asked, format!("guest ({words}) asked to join with an invitation, code {code}"));
    assert_eq!(approved, format!("guest ({words}) was approved, code {code}"));
    assert!(loaded.starts_with("guest loaded layers ") && loaded.contains("SmolLM2"), "{loaded}");
    assert!(used.starts_with("guest used this machine: 1 conversation, "), "{used}");
    let invited = entries(&host.json(&["log"], None));
    assert!(invited.iter().any(|(_, text)| text == "an invitation was made, valid for 24 h"), "{invited:?}");
    assert!(entries(&host.json(&["log", "--machine", "nobody"], None)).is_empty());

    let (exit, _, stderr) = host.run(&["remove", "guest"], None);
    assert_eq!(exit, 0, "{stderr}");
    host.signal("-TERM");
    assert_eq!(host.wait(), Some(0));

    // Without a node the files are read, and they hold nothing of what was said, and no path.
    let lines = without_a_node(&host.folder, &[]);
    for wanted in
        [format!("guest ({words}) was removed"), "for guest were freed".to_owned(), "HiveMind stopped".to_owned()]
    {
        assert!(lines.contains(&wanted), "\"{wanted}\" is missing in {lines}");
    }
    assert!(lines.lines().skip(1).all(|line| line.as_bytes()[2] == b':'), "{lines}");
    assert_eq!(without_a_node(&host.folder, &["--machine", "nobody"]), "");
    let folder = host.folder.join("log");
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(file.path()).unwrap();
        for secret in ["capital", "Paris", home.path().to_str().unwrap(), "/"] {
            assert!(!text.contains(secret), "\"{secret}\" is in {text}");
        }
        assert!(
            text.lines()
                .all(|line| serde_json::from_str::<Value>(line).unwrap()["at"].as_str().unwrap().ends_with('Z'))
        );
    }
}

#[test]
fn a_time_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = hivemind(&["log", "--since", "yesterday"]);
    command.env("HIVEMIND_DATA_DIR", folder.path());
    let output = finish(command, None);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("try 30m, 12h, 2d"), "{stderr}");
    assert_eq!(without_a_node(folder.path(), &["--since", "2026-11-27"]), "");
}

#[test]
fn a_machine_with_the_name_of_an_approved_one_and_another_key_is_a_notice() {
    let home = tempfile::tempdir().unwrap();
    let (host, guest) = (Node::start(home.path(), "host"), Node::start(home.path(), "guest"));
    pair(&host, &guest);
    let words = host.json(&["peers"], None)["peers"][0]["fingerprint"].as_str().unwrap().to_owned();
    // Another data folder is another key.
    let liar = Node::start(&home.path().join("elsewhere"), "guest");
    let ticket = host.json(&["invite"], None)["ticket"].as_str().unwrap().to_owned();
    liar.json(&["join"], Some(&ticket));
    let log = entries(&host.json(&["log"], None));
    let (_, text) = log.iter().find(|(event, _)| event == "name_taken").unwrap_or_else(|| panic!("{log:?}"));
    assert!(
        text.contains("calls itself guest") && text.ends_with(&format!("like the approved one ({words})")),
        "{text}"
    );
}
