//! Machines that hang, and machines that compute other numbers than they should.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::lab::{Host, Lab, pair};
use common::patiently;

const LONG: &str = "Write a very long story about bees.";

fn in_one_swarm<const N: usize>(names: [&str; N]) -> (Lab, [Host; N]) {
    let mut lab = Lab::new();
    lab.network("switch", &names, "10.77.0");
    let hosts = names.map(|name| {
        let mut host = lab.host(name, "");
        host.log = Some(host.folder.with_extension("log"));
        host.start(&lab);
        host
    });
    for (index, a) in hosts.iter().enumerate() {
        for b in &hosts[index + 1..] {
            pair(&lab, a, b);
        }
    }
    (lab, hosts)
}

/// An answer by as many machines as there are, long enough to disturb it.
fn ask(lab: &Lab, asker: &Host, stages: &str) -> Child {
    let command = ["chat", "--prompt", LONG, "--max-tokens", "250", "--stages", stages, "--json"];
    asker.command(lab, &command).spawn().unwrap()
}

fn whole(child: Child) -> serde_json::Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn answered(lab: &Lab, asker: &Host) -> u64 {
    asker.json(lab, &["status"])["answered_tokens"].as_u64().unwrap()
}

/// Waits until an answer that was just asked for has some tokens; it goes on for many more.
fn under_way(lab: &Lab, asker: &Host) {
    let before = answered(lab, asker);
    patiently("an answer comes", || answered(lab, asker) >= before + 10);
}

fn signal(name: &str, processes: &[u32]) {
    for process in processes {
        // A worker that was replaced has ended.
        let _ = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    }
}

#[test]
fn a_worker_that_hangs_is_noticed_and_replaced_within_seconds() {
    let (lab, [ann, bob]) = in_one_swarm(["ann", "bob"]);
    let undisturbed = whole(ask(&lab, &ann, "2"));
    assert_eq!(undisturbed["stages"].as_array().unwrap().len(), 2);
    for host in [&bob, &ann] {
        ann.ask(&lab, "Hello.", 1, 2);
        let child = ask(&lab, &ann, "2");
        under_way(&lab, &ann);
        // With the copy of another's stage that it may keep.
        let workers = host.workers();
        signal("-STOP", &workers);
        let stopped = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        let before = answered(&lab, &ann);
        patiently("the answer goes on", || answered(&lab, &ann) > before);
        let noticed = stopped.elapsed();
        let answer = whole(child);
        println!("{}: gone on after {noticed:.1?}, ended on {}", host.machine, answer["stages"]);
        assert_eq!(answer["tokens"], undisturbed["tokens"], "{}", host.machine);
        // Patience of three seconds, half of that for the check, and a load; twice as much where the machine is busy.
        assert!(noticed < Duration::from_secs(15), "noticed after {noticed:.1?}");
        let log = ann.log();
        let blamed = format!("{} has computed nothing for", host.machine);
        assert!(log.contains(&blamed), "{log}");
        signal("-CONT", &workers);
        patiently("both are candidates", || {
            ann.try_run(&lab, &["chat", "--prompt", "x", "--max-tokens", "1", "--stages", "2"]).0 == 0
        });
    }
}

#[test]
fn an_honest_machine_under_load_is_not_blamed() {
    let (lab, [ann, _bob]) = in_one_swarm(["ann", "bob"]);
    let undisturbed = whole(ask(&lab, &ann, "2"));
    let loads: Vec<Child> = (0..4 * Lab::cores().len())
        .map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
        .collect();
    let answers: Vec<_> = (0..2).map(|_| whole(ask(&lab, &ann, "2"))).collect();
    for mut load in loads {
        load.kill().unwrap();
        load.wait().unwrap();
    }
    for answer in answers {
        assert_eq!(answer["tokens"], undisturbed["tokens"]);
    }
    let log = ann.log();
    assert!(!log.contains("is being mended") && !log.contains("is given up"), "{log}");
}
