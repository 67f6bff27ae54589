//! Joining by invitation, on loopback, and what goes wrong with invitations, folders and files.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::loopback::{Node, join, pair};
use common::{finish, hivemind, patiently};
use serde_json::Value;

#[test]
fn an_invitation_brings_two_machines_to_a_code_once() {
    let home = tempfile::tempdir().unwrap();
    let (host, guest) = (Node::start(home.path(), "host"), Node::start(home.path(), "guest"));
    let ticket = host.json(&["invite"], None)["ticket"].as_str().unwrap().to_owned();

    join(&host, &guest, &ticket);
    let answer = guest.json(&["chat", "--prompt", "What is the capital of France?", "--stages", "2"], None);
    assert_eq!(answer["text"], "The capital of France is Paris.");
    assert_eq!(answer["stages"].as_array().unwrap().len(), 2);

    // What the owner calls it stays; the invitation is spent.
    host.run(&["rename", "guest", "Attic"], None);
    assert_eq!(host.state("Attic").as_deref(), Some("approved"));
    let late = Node::start(home.path(), "late");
    late.refused(&["join"], Some(&ticket), "used before");

    // One that has run out, read from a file.
    let short = host.json(&["invite", "--hours", "0.0001"], None)["ticket"].as_str().unwrap().to_owned();
    let file = home.path().join("invitation.txt");
    std::fs::write(&file, format!("\n  {short}\n")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    late.refused(&["join", file.to_str().unwrap()], None, "expired");

    let fresh = host.json(&["invite"], None)["ticket"].as_str().unwrap().to_owned();
    late.refused(&["join", &fresh[..fresh.len() / 2]], None, "incomplete");
    late.refused(&["join", "endpointaaaa"], None, "not a HiveMind invitation");
    late.refused(&["join"], Some(""), "not a HiveMind invitation");
    late.refused(&["approve", "nobody"], None, "no machine \"nobody\"");
    // A refused guest may still use a good one.
    assert!(late.json(&["join", &fresh], None)["code"].is_string());
}

#[test]
fn clocks_an_hour_off_keep_nobody_out() {
    for off in [3600, -3600] {
        let home = tempfile::tempdir().unwrap();
        let (host, guest) = (Node::start(home.path(), "host"), Node::start_off(home.path(), "guest", off));
        // Its clock is off indeed: a pause of an hour ends an hour later than that by ours, or now.
        guest.run(&["pause", "60"], None);
        let kept: Value = serde_json::from_slice(&std::fs::read(guest.folder.join("sharing.json")).unwrap()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let ends_in = kept["paused_until_s"].as_i64().unwrap() - now;
        assert!((ends_in - 3600 - i64::from(off)).abs() < 300, "{ends_in}");
        guest.run(&["pause", "0"], None);
        // Good for six minutes, by the clock of the machine that invites.
        let ticket = host.json(&["invite", "--hours", "0.1"], None)["ticket"].as_str().unwrap().to_owned();
        join(&host, &guest, &ticket);
        let answer = guest.json(&["chat", "--prompt", "What is the capital of France?", "--stages", "2"], None);
        assert_eq!(answer["text"], "The capital of France is Paris.");
        let late = Node::start(home.path(), "late");
        let ticket = guest.json(&["invite", "--hours", "0.1"], None)["ticket"].as_str().unwrap().to_owned();
        assert!(late.json(&["join"], Some(&ticket))["code"].is_string());
    }
}

#[test]
fn a_node_whose_terminal_is_closed_ends_in_peace() {
    let home = tempfile::tempdir().unwrap();
    let mut node = Node::start(home.path(), "ann");
    node.signal("-HUP");
    assert_eq!(node.wait(), Some(0));
    let log = hivemind(&["log"]).env("HIVEMIND_DATA_DIR", &node.folder).output().unwrap();
    assert!(String::from_utf8_lossy(&log.stdout).contains("HiveMind stopped"), "{log:?}");

    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_hivemind"));
    let node = Node::start_by(command, home.path(), "bob", &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let hang_up = u64::from_str_radix(ignored, 16).unwrap() & 1;
    assert_eq!(hang_up, 1, "SIGHUP is not ignored");
    node.signal("-HUP");
    assert_eq!(node.run(&["status"], None).0, 0, "it was to outlive its terminal");
}

#[test]
fn an_owner_decides_what_an_approved_machine_may_use_and_see() {
    let home = tempfile::tempdir().unwrap();
    let (host, guest) = (Node::start(home.path(), "host"), Node::start(home.path(), "guest"));
    pair(&host, &guest);
    let rights = || host.json(&["peers"], None)["peers"][0]["rights"].clone();
    assert_eq!(rights(), serde_json::json!({ "memory": true, "prompts": true }), "both, from the approval on");
    let asked = ["chat", "--prompt", "What is the capital of France?", "--stages", "2"];

    let said = host.json(&["allow", "guest", "--prompts", "off", "--memory-limit", "4GiB"], None);
    assert_eq!(said, serde_json::json!({ "memory": true, "prompts": false, "memory_limit_bytes": 4u64 << 30 }));
    assert_eq!(rights(), said);
    host.refused(&asked, None, "only host can take a part: guest is not used: it may not see this machine's prompts");
    assert!(host.run(&["peers"], None).1.contains("may not see prompts, at most"));
    // Its own questions may come here as before.
    assert_eq!(guest.json(&asked, None)["text"], "The capital of France is Paris.");

    let said = host.json(&["allow", "guest", "--prompts", "on", "--memory", "off", "--memory-limit", "0"], None);
    assert_eq!(said, serde_json::json!({ "memory": false, "prompts": true }));
    patiently("it uses this machine no more", || {
        guest.run(&asked, None).2.contains("host does not share: its owner does not share it with this machine")
    });
    assert_eq!(host.json(&asked, None)["text"], "The capital of France is Paris.");

    host.json(&["allow", "guest", "--memory", "on"], None);
    patiently("it may again", || guest.run(&asked, None).0 == 0);
    host.refused(&["allow", "nobody", "--memory", "off"], None, "no machine \"nobody\"");
}

#[test]
fn openais_own_client_talks_with_the_swarm() {
    let home = tempfile::tempdir().unwrap();
    let (host, guest) = (Node::start(home.path(), "host"), Node::start(home.path(), "guest"));
    pair(&host, &guest);
    host.satisfies("openai_chat.py");
}

#[test]
fn answers_are_bounded_by_time_and_memory_and_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    Node::start_with(home.path(), "host", &["--memory", "500MB"]).satisfies("openai_limits.py");
}

#[test]
fn a_node_says_why_it_cannot_start_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::start(home.path(), "node");
    let start = |folder: &str, more: &[&str]| {
        let arguments =
            [&["node", "--bind", "127.0.0.1:0", "--api", "127.0.0.1:0", "--data-dir", folder], more].concat();
        let output = finish(hivemind(&arguments), None);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let folder = node.folder.to_str().unwrap();
    let (code, stderr) = start(folder, &[]);
    assert!(code == 1 && stderr.contains(&format!("process {}", node.process.id())), "{stderr}");
    let (code, stderr) = start("/proc/nowhere", &[]);
    assert!(code == 1 && stderr.contains("/proc/nowhere"), "{stderr}");

    let other = home.path().join("other");
    let other = other.to_str().unwrap();
    let (code, stderr) = start(other, &["--memory", "lots"]);
    assert!(code == 2 && stderr.contains("\"lots\" is not an amount of memory"), "{stderr}");
    let (code, stderr) = start(other, &["--relay", "ftp://x"]);
    assert!(code == 2 && stderr.contains("not a relay"), "{stderr}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let output = finish(hivemind(&["node", "--bind", "127.0.0.1:0", "--api", &taken, "--data-dir", other]), None);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains(&taken) && stderr.contains("--api"), "{stderr}");
    assert!(stderr.starts_with("error: "), "nothing comes before it: {stderr}");
    let output = finish(hivemind(&["node", "--bind", "127.0.0.1:0", "--api", "0.0.0.0:0", "--data-dir", other]), None);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("this machine only") && !stderr.contains("another HiveMind"), "{stderr}");
    assert!(stderr.contains("hint: leave --api out"), "{stderr}");

    // A hint fits its error.
    let identity = Path::new(other).join("identity.key");
    let kept = std::fs::read(&identity).unwrap();
    std::fs::write(&identity, "").unwrap();
    let (code, stderr) = start(other, &[]);
    assert!(code == 1 && stderr.contains("identity is damaged") && !stderr.contains("--bind"), "{stderr}");
    std::fs::write(&identity, kept).unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let output = finish(hivemind(&["node", "--bind", &taken, "--api", "127.0.0.1:0", "--data-dir", other]), None);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("hint: choose another --bind"), "{stderr}");

    // What can be measured again is no reason not to start.
    let measured = Node::start(home.path(), "measured");
    let speed = measured.folder.join("speed.json");
    drop(measured);
    std::fs::write(&speed, "[]").unwrap();
    let measured = Node::start(home.path(), "measured");

    // Nor is what a newer version has written beside it.
    for command in [&["share", "off"][..], &["invite"], &["tokens", "add", "editor", "--may", "chat"]] {
        assert_eq!(measured.run(command, None).0, 0, "{command:?}");
    }
    let folder = measured.folder.clone();
    drop(measured);
    let mut written = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let kept = std::fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(mut kept) = kept else { continue };
        match &mut kept {
            Value::Object(_) => kept["of_tomorrow"] = serde_json::json!([1]),
            Value::Array(items) => items.iter_mut().for_each(|item| item["of_tomorrow"] = serde_json::json!([1])),
            _ => continue,
        }
        std::fs::write(entry.path(), kept.to_string()).unwrap();
        written.push(entry.file_name().into_string().unwrap());
    }
    for file in ["api.json", "invites.json", "sharing.json", "tokens.json"] {
        assert!(written.iter().any(|known| known == file), "{file}: {written:?}");
    }
    let measured = Node::start(home.path(), "measured");
    assert_eq!(measured.json(&["status"], None)["share"], false);
    assert_eq!(measured.json(&["tokens"], None)["tokens"][0]["name"], "editor");
    drop(measured);

    // Who was approved is never replaced by nobody.
    std::fs::write(Path::new(other).join("peers.json"), "{\"peers\": {").unwrap();
    let (code, stderr) = start(other, &[]);
    assert!(code == 1 && stderr.contains("peers.json is damaged") && !stderr.contains("hint"), "{stderr}");
    assert_eq!(std::fs::read_to_string(Path::new(other).join("peers.json")).unwrap(), "{\"peers\": {");

    let output = finish(hivemind(&["peers"]), None);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && stderr.contains("HiveMind is not running") && stderr.contains("hint"),
        "{stderr}"
    );
}
