//! Machines on networks: finding each other, joining, links, strangers. Each test has a lab of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};

use common::lab::{Host, Lab, frames, pair, timed};
use common::patiently;

const QUESTION: &str = "What is the capital of France?";

fn paris(host: &Host, lab: &Lab, stages: u32) {
    assert_eq!(host.ask(lab, QUESTION, 20, stages)["text"], "The capital of France is Paris.");
}

#[test]
fn machines_find_each_other_pair_by_code_and_answer_as_one() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob", "eve"], "10.77.0");
    let hosts = ["ann", "bob", "eve"].map(|name| lab.node(name, ""));
    for host in &hosts {
        for other in &hosts {
            if other.machine != host.machine {
                host.wait_for(&lab, &other.machine, "found");
            }
        }
    }
    let [ann, bob, eve] = &hosts;

    // A code that is not the one shown approves nothing.
    let asked = ann.json(&lab, &["approve", "bob"]);
    let code = asked["code"].as_str().unwrap();
    let wrong = if code == "000 000" { "111111" } else { "000000" };
    let (exit, _, stderr) = ann.try_run(&lab, &["approve", "bob", "--code", wrong]);
    assert!(exit == 1 && stderr.contains("nothing was approved"), "{stderr}");
    let (exit, _, stderr) = bob.try_run(&lab, &["deny", "ann"]);
    assert_eq!(exit, 0, "{stderr}");
    ann.wait_for(&lab, "bob", "found");
    let (exit, _, stderr) = ann.try_run(&lab, &["chat", "--prompt", "x", "--stages", "2"]);
    assert!(exit == 1 && stderr.contains("2 machines were asked for, but only ann can take a part"), "{stderr}");

    pair(&lab, ann, bob);
    let answer = ann.ask(&lab, QUESTION, 20, 2);
    assert_eq!(answer["text"], "The capital of France is Paris.");
    let nodes: Vec<_> = answer["stages"].as_array().unwrap().iter().map(|s| s["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["ann", "bob"]);
    // Each knows how fast the other computes.
    patiently("the speeds are known", || {
        let profile = ann.peer(&lab, "bob").unwrap()["profile"].clone();
        let known = |key: &str| profile[key].as_f64().is_some_and(|speed| speed > 0.0);
        known("decode_tokens_per_s") && known("prefill_tokens_per_s") && profile["offered_bytes"].as_u64() > Some(0)
    });
    // One machine gives the same tokens.
    assert_eq!(ann.ask(&lab, common::LONG, 60, 1)["tokens"], bob.ask(&lab, common::LONG, 60, 2)["tokens"]);
    assert_eq!(eve.peer(&lab, "ann").unwrap()["state"], "found");

    // What was approved is known after a restart; and a machine at another address is found again.
    drop(hosts);
    let mut hosts = ["ann", "bob"].map(|name| lab.node(name, ""));
    let [ann, _] = &mut hosts;
    ann.wait_for(&lab, "bob", "approved");
    lab.no_address("bob", "lan");
    lab.address("bob", "lan", "10.77.0.99/24");
    patiently("bob is reached at his new address", || {
        ann.peer(&lab, "bob").is_some_and(|bob| {
            bob["state"] == "approved" && bob["link"]["remote"].as_str().is_some_and(|r| r.starts_with("10.77.0.99"))
        })
    });
    paris(ann, &lab, 2);
}

#[test]
fn two_machines_of_one_name_are_told_apart() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "one", "two"], "10.77.0");
    let ann = lab.node("ann", "");
    let _twins = ["one", "two"].map(|name| lab.node(name, "")).map(|mut host| {
        host.kill();
        let folder = host.folder.display().to_string();
        let exe = env!("CARGO_BIN_EXE_hivemind");
        lab.command(&host.machine, &format!("{exe} node --name twin --data-dir {folder}")).spawn().unwrap()
    });
    let twins = || {
        let peers = ann.json(&lab, &["peers"]);
        let twins = peers["peers"].as_array().unwrap().iter().filter(|peer| peer["name"] == "twin").cloned();
        twins.collect::<Vec<_>>()
    };
    patiently("both are found", || twins().len() == 2);
    let (exit, _, stderr) = ann.try_run(&lab, &["approve", "twin"]);
    let words = twins()[0]["fingerprint"].as_str().unwrap().to_owned();
    assert!(exit == 1 && stderr.contains("could be any of") && stderr.contains(&words), "{stderr}");
    assert!(ann.json(&lab, &["approve", &words])["code"].is_string());
}

#[test]
fn a_removed_machine_is_cut_off_in_the_middle_of_an_answer_and_stays_out() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let (mut ann, mut bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    paris(&ann, &lab, 2);
    let mut chat = ann
        .command(&lab, &["chat", "--prompt", common::LONG, "--max-tokens", "4000", "--stages", "2"])
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    chat.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    bob.run(&lab, &["remove", "ann"]);
    // The machine that is out has nothing of the answer any more; the answer continues without it.
    patiently("bob's part is gone", || bob.workers().is_empty());
    patiently("the answer continues", || {
        let status = ann.json(&lab, &["status"]);
        let stages = status["model"]["stages"].as_array();
        stages.is_some_and(|stages| stages.iter().all(|stage| stage["node"] == "ann"))
    });
    chat.kill().unwrap();
    let output = chat.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("continuing without it"), "{stderr}");
    let why = || ann.peer(&lab, "bob").unwrap()["why"].as_str().unwrap_or_default().to_owned();
    ann.wait_for(&lab, "bob", "unreachable");
    patiently("ann learns why", || why().contains("has not approved"));
    assert_eq!(bob.peer(&lab, "ann").unwrap()["state"], "found");

    // The same after both have started again.
    ann.kill();
    bob.kill();
    ann.start(&lab);
    bob.start(&lab);
    patiently("ann is refused again", || {
        let bob = ann.peer(&lab, "bob").unwrap();
        bob["state"] == "unreachable" && bob["why"].as_str().unwrap().contains("has not approved")
    });
    let (exit, _, stderr) = ann.try_run(&lab, &["chat", "--prompt", "x", "--stages", "2"]);
    assert!(
        exit == 1 && stderr.contains("bob is not here") && stderr.contains("has not approved this machine"),
        "{stderr}"
    );
    // And a blocked machine cannot even ask.
    bob.wait_for(&lab, "ann", "found");
    bob.run(&lab, &["block", "ann"]);
    let (exit, _, _) = ann.try_run(&lab, &["approve", "bob"]);
    assert_eq!(exit, 1);
    assert_eq!(bob.peer(&lab, "ann").unwrap()["state"], "blocked");
    // Until its owner takes that back.
    bob.run(&lab, &["remove", "ann"]);
    assert!(ann.json(&lab, &["approve", "bob"])["code"].is_string());
}

#[test]
fn a_stopped_and_a_killed_machine_are_noticed_and_come_back() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let (ann, mut bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    bob.signal("-STOP");
    println!("stopped: noticed after {:?}", timed(|| ann.wait_for(&lab, "bob", "unreachable")));
    bob.signal("-CONT");
    ann.wait_for(&lab, "bob", "approved");
    bob.kill();
    println!("killed: noticed after {:?}", timed(|| ann.wait_for(&lab, "bob", "unreachable")));
    bob.start(&lab);
    ann.wait_for(&lab, "bob", "approved");
    paris(&ann, &lab, 2);
}

/// Where the link that carries ann's traffic to bob ends.
fn link(ann: &Host, lab: &Lab) -> String {
    ann.peer(lab, "bob").unwrap()["link"]["remote"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn traffic_moves_to_a_faster_cable_and_outlives_its_loss() {
    let mut lab = Lab::new();
    for name in ["ann", "bob"] {
        lab.machine(name);
    }
    lab.slow_cable("ann", "bob", "slow", 2);
    lab.cable(("ann", "fast"), ("bob", "fast"));
    for (name, host) in [("ann", 1), ("bob", 2)] {
        lab.address(name, "slow", &format!("10.78.0.{host}/24"));
        lab.address(name, "fast", &format!("10.79.0.{host}/24"));
        lab.plug(name, "slow");
    }
    let (ann, bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    assert!(link(&ann, &lab).starts_with("10.78.0.2"), "{}", link(&ann, &lab));
    let plug = || ["ann", "bob"].map(|name| lab.plug(name, "fast"));
    plug();
    let moved = timed(|| patiently("the fast cable is used", || link(&ann, &lab).starts_with("10.79.0.2")));
    println!("on the faster cable after {moved:?}");

    let undisturbed = ann.ask(&lab, common::LONG, 300, 2);
    let mut chat = ann
        .command(&lab, &["chat", "--prompt", common::LONG, "--max-tokens", "300", "--stages", "2", "--json"])
        .spawn()
        .unwrap();
    let answered = || ann.json(&lab, &["status"])["answered_tokens"].as_u64().unwrap();
    let before = answered();
    patiently("the answer is under way", || answered() >= before + 10);
    assert!(chat.try_wait().unwrap().is_none(), "the answer must still be under way");
    lab.unplug("ann", "fast");
    let output = chat.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["tokens"], undisturbed["tokens"], "no token is lost or doubled");
    patiently("the slow cable is used", || link(&ann, &lab).starts_with("10.78.0.2"));
    plug();
    patiently("the fast cable is used again", || link(&ann, &lab).starts_with("10.79.0.2"));
    // Both are measured, each by itself; using the one does not keep the other from it.
    patiently("both cables are measured", || {
        let bob = ann.peer(&lab, "bob").unwrap();
        let other = &bob["other_paths"][0];
        let is_slow = other["remote"].as_str().is_some_and(|remote| remote.starts_with("10.78.0.2"));
        is_slow
            && bob["bits_per_s"].as_u64() > other["bits_per_s"].as_u64()
            && other["round_trip_us"].as_u64() >= Some(4000)
    });
    assert!(link(&ann, &lab).starts_with("10.79.0.2"), "what was measured to be worse is not used");
}

#[test]
fn a_network_of_ipv6_alone_is_enough() {
    let mut lab = Lab::new();
    for name in ["ann", "bob"] {
        lab.machine(name);
    }
    lab.cable(("ann", "lan"), ("bob", "lan"));
    for (name, host) in [("ann", 1), ("bob", 2)] {
        lab.address(name, "lan", &format!("fd77::{host}/64"));
        lab.plug(name, "lan");
    }
    let (ann, bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    assert!(link(&ann, &lab).starts_with("[fd77::2]"), "{}", link(&ann, &lab));
    paris(&ann, &lab, 2);
    patiently("the cable is measured", || ann.peer(&lab, "bob").unwrap()["bits_per_s"].as_u64() > Some(0));
}

#[test]
fn no_packet_leaves_the_network_and_none_can_be_read() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("frames");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/capture.py");
    lab.help("switch", &format!("python3 {script} br0 {}", file.display()));
    lab.help("switch", &format!("python3 {script} to-ann {}", folder.path().join("port").display()));
    patiently("the capture runs", || file.exists() && folder.path().join("port").exists());
    let (ann, bob) = (lab.node("ann", "--lan-only"), lab.node("bob", "--lan-only"));
    pair(&lab, &ann, &bob);
    let prompt = "The pomegranate password is zanzibar. Which city is the capital of France?";
    let answer = ann.ask(&lab, prompt, 40, 2);
    let port = frames(&folder.path().join("port"));
    assert!(port.len() > 100, "the traffic passed the switch: {} frames", port.len());
    for frame in frames(&file).iter().chain(&port) {
        // IPv4: only the subnet and the multicast group of mDNS, and the group's own bookkeeping (IGMP).
        if frame.get(12..14) == Some(&[8, 0]) {
            let to = Ipv4Addr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
            let local = to.octets()[..3] == [10, 77, 0] || to.octets()[..3] == [224, 0, 0];
            assert!(local, "a packet to {to}");
        }
        // IPv6: link-local and its multicast.
        if frame.get(12..14) == Some(&[0x86, 0xdd]) {
            assert!(frame[38] == 0xfe || frame[38] == 0xff, "a packet to {:x?}", &frame[38..54]);
        }
    }
    let words = ["pomegranate", "zanzibar", "capital of", answer["text"].as_str().unwrap()];
    for word in words.iter().filter(|word| !word.is_empty()) {
        let seen = |frame: &Vec<u8>| frame.windows(word.len()).any(|part| part == word.as_bytes());
        assert!(!port.iter().any(seen), "\"{word}\" can be read on the wire");
    }
}

/// Helper: a relay server in a machine of its own.
#[test]
#[ignore = "started by another test"]
fn be_a_relay() {
    use iroh_relay::server::{RelayConfig, Server, ServerConfig};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address: SocketAddr = std::env::var("RELAY").unwrap().parse().unwrap();
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(address));
        let _server = Server::spawn(config).await.unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn machines_behind_two_routers_join_by_invitation_through_a_relay() {
    let mut lab = Lab::new();
    // The internet: a switch with the relay and two routers.
    lab.network("internet", &["relay", "router-a", "router-b"], "10.50.0");
    for (router, host, subnet) in [("router-a", "ann", "192.168.1"), ("router-b", "bob", "192.168.2")] {
        lab.machine(host);
        lab.cable((host, "lan"), (router, "inside"));
        lab.address(router, "inside", &format!("{subnet}.1/24"));
        lab.plug(router, "inside");
        lab.address(host, "lan", &format!("{subnet}.2/24"));
        lab.plug(host, "lan");
        lab.route(host, &format!("{subnet}.1"));
        lab.masquerade(router, "lan");
    }
    let relay = lab.helper("relay", "be_a_relay", &[("RELAY", "10.50.0.1:3340")]).spawn().unwrap();
    lab.keep(relay);
    let options = "--relay http://10.50.0.1:3340";
    let (ann, bob) = (lab.node("ann", options), lab.node("bob", options));
    let ticket = ann.json(&lab, &["invite"])["ticket"].as_str().unwrap().to_owned();
    let mut asked = serde_json::Value::Null;
    patiently("the relay is reached", || {
        let (code, stdout, stderr) = bob.try_run(&lab, &["join", &ticket, "--json"]);
        asked = serde_json::from_str(&stdout).unwrap_or_default();
        assert!(!stderr.contains("used before"), "{stderr}");
        code == 0
    });
    let code = asked["code"].as_str().unwrap().to_owned();
    let approve = ann.command(&lab, &["approve", "bob", "--code", &code]).spawn().unwrap();
    bob.run(&lab, &["approve", asked["id"].as_str().unwrap(), "--code", &code]);
    assert!(approve.wait_with_output().unwrap().status.success());
    ann.wait_for(&lab, "bob", "approved");
    bob.wait_for(&lab, "ann", "approved");
    paris(&ann, &lab, 2);
    let peer = ann.peer(&lab, "bob").unwrap();
    assert_eq!(peer["link"]["kind"], "relay", "{peer}");
    assert!(peer["link"]["remote"].as_str().unwrap().contains("10.50.0.1"), "{peer}");
}
