//! Machines on networks: finding each other, joining, links, strangers. Each test has a lab of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use common::lab::{Host, Lab, pair, timed};
use common::{children, patiently};

const QUESTION: &str = "What is the capital of France?";
const LONG: &str = "Write a very long story about bees.";

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
    assert!(exit == 1 && stderr.contains("2 machines were asked for, but only 1"), "{stderr}");

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
    assert_eq!(ann.ask(&lab, LONG, 60, 1)["tokens"], bob.ask(&lab, LONG, 60, 2)["tokens"]);
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
    let mut chat =
        ann.command(&lab, &["chat", "--prompt", LONG, "--max-tokens", "4000", "--stages", "2"]).spawn().unwrap();
    let mut first = [0; 1];
    chat.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    bob.run(&lab, &["remove", "ann"]);
    // The machine that is out has nothing of the answer any more; the answer goes on without it.
    patiently("bob's part is gone", || workers(&bob).is_empty());
    patiently("the answer goes on", || {
        let status = ann.json(&lab, &["status"]);
        let stages = status["model"]["stages"].as_array();
        stages.is_some_and(|stages| stages.iter().all(|stage| stage["node"] == "ann"))
    });
    chat.kill().unwrap();
    let output = chat.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("going on without it"), "{stderr}");
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
    assert!(exit == 1 && stderr.contains("only 1"), "{stderr}");
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

/// The kind and the network of the link that carries ann's traffic to bob.
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

    let undisturbed = ann.ask(&lab, LONG, 300, 2);
    let mut chat = ann
        .command(&lab, &["chat", "--prompt", LONG, "--max-tokens", "300", "--stages", "2", "--json"])
        .spawn()
        .unwrap();
    // The answer takes seconds; it is under way when the cable goes.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(chat.try_wait().unwrap().is_none(), "the answer must still be under way");
    lab.unplug("ann", "fast");
    let output = chat.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["tokens"], undisturbed["tokens"], "no token is lost or doubled");
    patiently("the slow cable is used", || link(&ann, &lab).starts_with("10.78.0.2"));
    plug();
    patiently("the fast cable is used again", || link(&ann, &lab).starts_with("10.79.0.2"));
}

/// A machine's workers.
/// Three machines on one network that know each other.
fn three_in_one_swarm() -> (Lab, [Host; 3]) {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob", "cat"], "10.77.0");
    let hosts = ["ann", "bob", "cat"].map(|name| lab.node(name, ""));
    let [ann, bob, cat] = &hosts;
    pair(&lab, ann, bob);
    pair(&lab, ann, cat);
    pair(&lab, bob, cat);
    (lab, hosts)
}

fn workers(host: &Host) -> Vec<u32> {
    children(host.process())
}

#[test]
fn an_answer_goes_on_when_a_machine_or_a_worker_dies_in_the_middle_of_it() {
    let (lab, [ann, bob, mut cat]) = three_in_one_swarm();
    let seeded = ["--temperature", "0.9", "--seed", "11"];
    let ask = |sampling: &[&str]| {
        let fixed = ["chat", "--prompt", LONG, "--max-tokens", "250", "--stages", "3", "--json"];
        ann.command(&lab, &[&fixed, sampling].concat())
    };
    let whole = |child: std::process::Child| -> serde_json::Value {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let kill = |process: u32| {
        assert!(std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
    };
    for sampling in [&[][..], &seeded] {
        let undisturbed = whole(ask(sampling).spawn().unwrap());
        assert_eq!(undisturbed["stages"].as_array().unwrap().len(), 3);
        for what in ["a worker is killed", "a machine is stopped", "a machine revokes"] {
            // Loaded on all three, so that the answer begins at once.
            ann.ask(&lab, "Hello.", 1, 3);
            let child = ask(sampling).spawn().unwrap();
            // The answer takes seconds; it is under way now.
            std::thread::sleep(Duration::from_millis(1200));
            match what {
                // With the copy of another's stage that it may keep.
                "a worker is killed" => workers(&bob).into_iter().for_each(kill),
                "a machine is stopped" => cat.signal("-STOP"),
                _ => drop(bob.run(&lab, &["remove", "ann"])),
            }
            let answer = whole(child);
            assert_eq!(answer["tokens"], undisturbed["tokens"], "{what} {sampling:?}");
            println!("{what}: ended on {}", answer["stages"]);
            match what {
                "a worker is killed" => {}
                "a machine is stopped" => {
                    cat.signal("-CONT");
                    ann.wait_for(&lab, "cat", "approved");
                }
                _ => {
                    ann.run(&lab, &["remove", "bob"]);
                    bob.wait_for(&lab, "ann", "found");
                    pair(&lab, &ann, &bob);
                }
            }
        }
    }
    // Nothing is left of what was lost: a worker for every stage and every copy of the model that is loaded.
    let undisturbed = whole(ask(&[]).spawn().unwrap());
    for (name, host) in [("ann", &ann), ("bob", &bob), ("cat", &cat)] {
        patiently("stages that nobody wants are gone", || {
            let model = &ann.json(&lab, &["status"])["model"];
            let held = [&model["stages"], &model["copies"]].map(|held| held.as_array().unwrap().iter());
            workers(host).len() == held.into_iter().flatten().filter(|stage| stage["node"] == name).count()
        });
    }
    // Two machines go at once: the last one goes on alone.
    let child = ask(&[]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    kill(bob.process());
    let answer = {
        cat.kill();
        whole(child)
    };
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(answer["stages"].as_array().unwrap().iter().all(|stage| stage["node"] == "ann"), "{}", answer["stages"]);
}

#[test]
fn a_machine_that_stops_sharing_or_quits_hands_over_first() {
    let (lab, [ann, bob, cat]) = three_in_one_swarm();
    let ask = || {
        let fixed = ["chat", "--prompt", LONG, "--max-tokens", "250", "--stages", "3", "--json"];
        ann.command(&lab, &fixed).spawn().unwrap()
    };
    let whole = |child: std::process::Child| -> serde_json::Value {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let holders = |answer: &serde_json::Value| -> Vec<String> {
        let stages = answer["stages"].as_array().unwrap().iter();
        stages.map(|stage| stage["node"].as_str().unwrap().to_owned()).collect()
    };
    let undisturbed = whole(ask());
    assert!(holders(&undisturbed).contains(&"bob".to_owned()));

    let child = ask();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(bob.run(&lab, &["share", "off"]).trim(), "sharing is switched off");
    let answer = whole(child);
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(!holders(&answer).contains(&"bob".to_owned()), "{}", answer["stages"]);
    patiently("what was handed over is gone", || workers(&bob).is_empty());
    let (code, _, refusal) = ann.try_run(&lab, &["chat", "--prompt", "Hello.", "--stages", "3"]);
    assert!(code == 1 && refusal.contains("only 2 are here and share"), "{refusal}");

    // Remembered; and a pause is a pause.
    assert!(bob.run(&lab, &["share", "on"]).starts_with("sharing up to"));
    assert!(bob.run(&lab, &["pause", "30"]).starts_with("paused for another 30 min"));
    assert!(bob.run(&lab, &["pause", "0"]).starts_with("sharing up to"));
    patiently("bob shares again", || {
        ann.try_run(&lab, &["chat", "--prompt", "Hi.", "--max-tokens", "1", "--stages", "3"]).0 == 0
    });

    // It gives less memory than its layers take: they move, and it goes on sharing what it does give.
    let child = ask();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(bob.run(&lab, &["share", "--memory", "20MiB"]).trim(), "sharing up to 20.0 MB");
    let answer = whole(child);
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(!holders(&answer).contains(&"bob".to_owned()), "{}", answer["stages"]);
    patiently("its layers have moved", || workers(&bob).is_empty());
    assert!(bob.run(&lab, &["share", "--memory", "100GB"]).starts_with("sharing up to"));
    patiently("bob has room again", || {
        ann.try_run(&lab, &["chat", "--prompt", "Hi.", "--max-tokens", "1", "--stages", "3"]).0 == 0
    });

    let child = ask();
    std::thread::sleep(Duration::from_millis(1200));
    // The one that asks is not in the way; cat is told to quit as systemd would.
    cat.signal("-TERM");
    let answer = whole(child);
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(!holders(&answer).contains(&"cat".to_owned()), "{}", answer["stages"]);
}

#[test]
fn a_copy_of_a_stage_takes_over_without_loading() {
    let (lab, [ann, bob, cat]) = three_in_one_swarm();
    let undisturbed = ann.ask(&lab, LONG, 250, 2);
    let holder = undisturbed["stages"][1]["node"].as_str().unwrap();
    let (mut holder, keeper) = if holder == "bob" { (bob, cat) } else { (cat, bob) };
    patiently("another machine keeps a copy", || {
        let model = &ann.json(&lab, &["status"])["model"];
        model["copies"].as_array().unwrap().len() == 1 && workers(&keeper).len() == 1
    });
    let copy = workers(&keeper);

    let fixed = ["chat", "--prompt", LONG, "--max-tokens", "250", "--stages", "2", "--json"];
    let child = ann.command(&lab, &fixed).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    holder.kill();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert_ne!(answer["stages"], undisturbed["stages"], "the answer was over before its machine was");
    assert_eq!(workers(&keeper), copy, "what was loaded before computes now");

    // Now this machine keeps one, but no longer than its owner has memory for it.
    patiently("there is a copy again", || workers(&ann).len() == 2);
    // Its own model's copy stays, whether it shares or not.
    let kept = workers(&ann);
    ann.run(&lab, &["share", "off"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(workers(&ann), kept);
    ann.run(&lab, &["share", "on"]);
    let held = ann.json(&lab, &["status"])["profile"]["held_bytes"].as_u64().unwrap();
    ann.run(&lab, &["share", "--memory", &(held + 1).to_string()]);
    patiently("the copy yields, and the stage stays", || workers(&ann).len() == 1);
}

/// The frames that `capture.py` wrote.
fn frames(file: &std::path::Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).unwrap();
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        let Some(frame) = bytes.get(at + 4..at + 4 + length) else { break };
        frames.push(frame.to_vec());
        at += 4 + length;
    }
    frames
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

/// Helper, run in a machine of its own: does to ann what strangers do.
#[test]
#[ignore = "started by another test"]
fn be_a_stranger() {
    let target: SocketAddr = std::env::var("TARGET").unwrap().parse().unwrap();
    let id = std::env::var("TARGET_ID").unwrap();
    let recorded = frames(std::path::Path::new(&std::env::var("RECORDED").unwrap()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(stranger::attack(target, &id, &recorded));
    println!("served: {served:?}");
    assert_eq!(served, Vec::<String>::new());
}

mod stranger {
    use super::*;
    use hive_net::{Endpoint, EndpointOptions, Identity, PeerAddr, Protocol};

    /// Everything that must not work; what did is returned by name.
    pub(super) async fn attack(target: SocketAddr, id: &str, recorded: &[Vec<u8>]) -> Vec<String> {
        let mut served = Vec::new();
        let raw = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Handshakes that others made, and bytes that are nothing.
        for frame in recorded {
            if let Some(datagram) = frame.get(42..) {
                let _ = raw.send_to(datagram, target);
            }
        }
        let mut noise = vec![0u8; 1200];
        for round in 0..2000u32 {
            for (at, byte) in noise.iter_mut().enumerate() {
                *byte = (at as u32).wrapping_mul(round.wrapping_mul(2_654_435_761)).to_le_bytes()[1];
            }
            let _ = raw.send_to(&noise, target);
        }
        // Every protocol but pairing, with a key of his own.
        for protocol in [Protocol::Control, Protocol::Stage] {
            if reaches(target, id, protocol, b"\x08\x00\x00\x00aaaaaaaa").await {
                served.push(format!("{protocol:?}"));
            }
        }
        // Pairing: giants, garbage, and a thousand requests.
        let giant = u32::MAX.to_le_bytes();
        if reaches(target, id, Protocol::Pair, &giant).await {
            served.push("a giant".to_owned());
        }
        let endpoint = bound().await;
        let ann = PeerAddr::new(id.parse().unwrap(), [target]);
        endpoint.admission().approve(ann.id());
        if let Ok(mut channel) = endpoint.open(&ann, Protocol::Pair).await {
            // As much of a gigabyte as the other side lets in.
            let megabyte = vec![0u8; 1 << 20];
            let flood = async {
                for _ in 0..1024 {
                    if channel.write_message(&megabyte).await.is_err() {
                        return false;
                    }
                }
                true
            };
            if tokio::time::timeout(Duration::from_secs(3), flood).await.unwrap_or(false) {
                served.push("a gigabyte".to_owned());
            }
        }
        let mut codes = 0;
        for _ in 0..10 {
            let mut requests = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let (endpoint, ann) = (bound().await, ann.clone());
                requests.spawn(async move {
                    let ask = hive_net::pairing::ask(&endpoint, &ann, "flood", None);
                    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(_)))
                });
            }
            while let Some(shown) = requests.join_next().await {
                codes += u32::from(shown.unwrap_or(false));
            }
        }
        println!("codes shown for 1000 requests: {codes}");
        if codes > 40 {
            served.push(format!("{codes} codes"));
        }
        served
    }

    async fn bound() -> Endpoint {
        let options = EndpointOptions::new(Identity::generate(), "0.0.0.0:0".parse().unwrap());
        Endpoint::bind(options).await.unwrap().0
    }

    /// Whether a stream of this protocol brings any answer.
    async fn reaches(target: SocketAddr, id: &str, protocol: Protocol, bytes: &[u8]) -> bool {
        let endpoint = bound().await;
        let ann = PeerAddr::new(id.parse().unwrap(), [target]);
        endpoint.admission().approve(ann.id());
        let exchange = async {
            let mut channel = endpoint.open(&ann, protocol).await.ok()?;
            channel.write_raw(bytes).await.ok()?;
            channel.read_message::<Vec<u8>>().await.ok().flatten()
        };
        matches!(tokio::time::timeout(Duration::from_secs(3), exchange).await, Ok(Some(_)))
    }
}

#[test]
fn a_stranger_gets_pairing_and_nothing_else_and_the_swarm_goes_on() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob", "eve"], "10.77.0");
    let folder = tempfile::tempdir().unwrap();
    let recorded = folder.path().join("frames");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/capture.py");
    lab.help("switch", &format!("python3 {script} to-bob {}", recorded.display()));
    patiently("the capture runs", || recorded.exists());
    let (ann, bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    let undisturbed = ann.ask(&lab, LONG, 100, 2);
    let status = ann.json(&lab, &["status"]);
    let addresses = status["addresses"].as_array().unwrap();
    let target = addresses.iter().map(|a| a.as_str().unwrap()).find(|a| a.starts_with("10.77.0.1:")).unwrap();
    let before = ann.resident_bytes();
    // What is recorded until here holds bob's handshakes.
    let copy = folder.path().join("recorded");
    std::fs::copy(&recorded, &copy).unwrap();
    let environment =
        [("TARGET", target), ("TARGET_ID", status["id"].as_str().unwrap()), ("RECORDED", copy.to_str().unwrap())];
    // The same attack on nobody first: what it takes from this machine's cores is no doing of ann's.
    let nobody = [("TARGET", "10.77.0.200:9"), environment[1], environment[2]];
    let floor = under_attack(&lab, &ann, &undisturbed, &nobody);
    let speeds = under_attack(&lab, &ann, &undisturbed, &environment);
    let grown = ann.resident_bytes().saturating_sub(before);
    println!("{} answers during the attack; memory grew by {} MB", speeds.len(), grown >> 20);
    println!("tok/s under attack / while somebody else is attacked: {:.2}", median(speeds) / median(floor));
    assert!(grown < 100 << 20, "the attack must not fill memory: {grown} bytes");
    assert_eq!(ann.peer(&lab, "bob").unwrap()["state"], "approved");
    let peers = ann.json(&lab, &["peers"]);
    let approved = peers["peers"].as_array().unwrap().iter().filter(|peer| peer["state"] == "approved").count();
    assert_eq!(approved, 1, "{peers}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The speeds of the answers that ann gives while eve does her worst.
fn under_attack(lab: &Lab, ann: &Host, undisturbed: &serde_json::Value, environment: &[(&str, &str)]) -> Vec<f64> {
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let output = common::finish(lab.helper("eve", "be_a_stranger", environment), None);
            let words = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&words).into_owned())
        });
        let mut speeds = Vec::new();
        while !attack.is_finished() || speeds.is_empty() {
            let answer = ann.ask(lab, LONG, 100, 2);
            assert_eq!(answer["tokens"], undisturbed["tokens"]);
            speeds.push(answer["decode_tokens_per_s"].as_f64().unwrap());
        }
        let (served_nothing, words) = attack.join().unwrap();
        println!("{words}");
        assert!(served_nothing, "{words}");
        speeds
    })
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
