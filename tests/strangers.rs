//! Strangers: what those who were not approved get, whatever they try, and what the swarm notices of it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

#[path = "strangers/announcements.rs"]
mod announcements;
#[path = "strangers/crowds.rs"]
mod crowds;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use common::lab::{Host, Lab, frames, pair};
use common::patiently;

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
    // A stranger has a computer of her own. What ann does for her, ann does on the core that computes.
    if let [swarms, strangers, ..] = Lab::cores()[..] {
        for (machine, core) in [("ann", swarms), ("bob", swarms), ("eve", strangers)] {
            lab.one_core(machine, core);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let recorded = folder.path().join("frames");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/lab/capture.py");
    lab.help("switch", &format!("python3 {script} to-bob {}", recorded.display()));
    patiently("the capture runs", || recorded.exists());
    let (ann, bob) = (lab.node("ann", ""), lab.node("bob", ""));
    pair(&lab, &ann, &bob);
    let undisturbed = ann.ask(&lab, common::LONG, 100, 2);
    let status = ann.json(&lab, &["status"]);
    let addresses = status["addresses"].as_array().unwrap();
    let target = addresses.iter().map(|a| a.as_str().unwrap()).find(|a| a.starts_with("10.77.0.1:")).unwrap();
    let before = ann.resident_bytes();
    // What is recorded until here holds bob's handshakes.
    let copy = folder.path().join("recorded");
    std::fs::copy(&recorded, &copy).unwrap();
    let environment =
        [("TARGET", target), ("TARGET_ID", status["id"].as_str().unwrap()), ("RECORDED", copy.to_str().unwrap())];
    // Their speed is printed and not judged; `HIVEMIND_TEST_LONG=1` measures it well.
    let count = if std::env::var_os("HIVEMIND_TEST_LONG").is_some() { 10 } else { 1 };
    let answers = || (0..count).map(|_| decode_speed(&ann.ask(&lab, common::LONG, 100, 2))).collect::<Vec<f64>>();
    let in_peace = answers();
    let attacked = under_attack(&lab, &ann, &undisturbed, &environment);
    let in_peace = together(&[in_peace, answers()].concat());
    let slowest = attacked.iter().copied().fold(f64::MAX, f64::min);
    let grown = ann.resident_bytes().saturating_sub(before);
    println!("{} answers during the attack; memory grew by {} MB", attacked.len(), grown >> 20);
    println!(
        "tok/s under attack / in peace: {:.2} for all answers together, {:.2} for the slowest",
        together(&attacked) / in_peace,
        slowest / in_peace
    );
    assert!(grown < 100 << 20, "the attack must not fill memory: {grown} bytes");
    assert_eq!(ann.peer(&lab, "bob").unwrap()["state"], "approved");
    let peers = ann.json(&lab, &["peers"]);
    let approved = peers["peers"].as_array().unwrap().iter().filter(|peer| peer["state"] == "approved").count();
    assert_eq!(approved, 1, "{peers}");
}

fn decode_speed(answer: &serde_json::Value) -> f64 {
    answer["decode_tokens_per_s"].as_f64().unwrap()
}

/// The speed of all answers together; they are of one length.
fn together(speeds: &[f64]) -> f64 {
    speeds.len() as f64 / speeds.iter().map(|speed| 1.0 / speed).sum::<f64>()
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
            let answer = ann.ask(lab, common::LONG, 100, 2);
            assert_eq!(answer["tokens"], undisturbed["tokens"]);
            speeds.push(decode_speed(&answer));
        }
        let (served_nothing, words) = attack.join().unwrap();
        println!("{words}");
        assert!(served_nothing, "{words}");
        speeds
    })
}
