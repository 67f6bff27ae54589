//! Whatever happens to machines and cables, no answer changes: random trouble, at random times, beside random questions.
//!
//! Every answer is compared with that of an undisturbed machine, token by token. `HIVEMIND_CHAOS_RUNS` and
//! `HIVEMIND_CHAOS_SEED` (`./dev chaos --runs N --seed S`) make it longer and other; the same seed is the same sequence of
//! trouble. `HIVEMIND_CHAOS_ONLY` (`--only CablePulled`) makes one kind. The table of outcomes is printed at the end.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

use common::children;
use common::lab::{Host, Lab, pair};
use serde_json::Value;

/// Runs of the quick form: each kind of trouble once.
const RUNS: usize = 10;
/// The most answers at a time, in the quick form and in the long one.
const AT_ONCE: [usize; 2] = [3, 6];
/// An answer takes seconds, a failover some more.
const TEST_TIMEOUT: Duration = Duration::from_secs(150);

/// A sequence that its seed determines: `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    NodeKilled,
    WorkerKilled,
    NodeStopped,
    CablePulled,
    Loss,
    Jitter,
    Revoked,
    SharingEnds,
    MemoryTaken,
    Quit,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::NodeKilled,
    Trouble::WorkerKilled,
    Trouble::NodeStopped,
    Trouble::CablePulled,
    Trouble::Loss,
    Trouble::Jitter,
    Trouble::Revoked,
    Trouble::SharingEnds,
    Trouble::MemoryTaken,
    Trouble::Quit,
];

#[derive(Debug, Default)]
struct Outcome {
    runs: usize,
    sessions: usize,
    same: usize,
    wrong: Vec<String>,
}

/// A question, by its number.
fn question(number: usize, stages: usize) -> Vec<String> {
    const PROMPTS: [&str; 3] = [
        "Write a very long story about bees.",
        "Explain how bread is made.",
        "Count from one to one hundred in words.",
    ];
    let mut arguments: Vec<String> =
        ["chat", "--json", "--max-tokens", "160", "--prompt", PROMPTS[number / 2]].map(str::to_owned).to_vec();
    if number % 2 == 1 {
        arguments.extend(["--temperature", "0.9", "--seed", "7"].map(str::to_owned));
    }
    arguments.extend(["--stages".to_owned(), stages.to_string()]);
    arguments
}

const QUESTIONS: usize = 6;

fn ask(lab: &Lab, host: &Host, number: usize, stages: usize) -> Child {
    let arguments = question(number, stages);
    host.command(lab, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap()
}

/// Has the model loaded on so many machines, by a question with an answer of one token.
fn load(lab: &Lab, host: &Host, stages: usize) -> Result<Value, String> {
    let stages = stages.to_string();
    let arguments = ["chat", "--json", "--max-tokens", "1", "--prompt", "Hello.", "--stages", &stages];
    tokens(host.command(lab, &arguments).spawn().unwrap())
}

/// The answer's tokens, or what went wrong.
fn tokens(mut child: Child) -> Result<Value, String> {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > TEST_TIMEOUT {
            let _ = child.kill();
            return Err("it hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(answer["tokens"].clone())
}

fn workers(host: &Host) -> Vec<u32> {
    children(host.process())
}

/// Makes trouble for a machine, and ends it after a while.
fn trouble(lab: &Lab, what: Trouble, ann: &Host, host: &mut Host, lasts: Duration) {
    let name = host.machine.clone();
    match what {
        Trouble::NodeKilled => {
            host.kill();
            std::thread::sleep(lasts);
            host.start(lab);
        }
        Trouble::WorkerKilled => {
            // Now and then the coordinator's own as well, or both.
            let whose = [workers(host), workers(ann), [workers(host), workers(ann)].concat()];
            assert!(whose.iter().all(|workers| !workers.is_empty()), "the stages are there");
            for worker in &whose[lasts.as_millis() as usize % 3] {
                let _ = std::process::Command::new("kill").args(["-KILL", &worker.to_string()]).status();
            }
        }
        Trouble::NodeStopped => {
            host.signal("-STOP");
            std::thread::sleep(lasts);
            host.signal("-CONT");
        }
        Trouble::CablePulled => {
            lab.unplug(&name, "lan");
            std::thread::sleep(lasts);
            lab.plug(&name, "lan");
        }
        Trouble::Loss => {
            lab.lossy(&name, true);
            std::thread::sleep(lasts);
            lab.lossy(&name, false);
        }
        Trouble::Jitter => {
            lab.rough("eve", true);
            std::thread::sleep(lasts);
            lab.rough("eve", false);
        }
        Trouble::Revoked => {
            host.run(lab, &["remove", "ann"]);
            std::thread::sleep(lasts);
            ann.run(lab, &["remove", &name]);
            host.wait_for(lab, "ann", "found");
            pair(lab, ann, host);
        }
        Trouble::SharingEnds => {
            host.run(lab, &["share", "off"]);
            std::thread::sleep(lasts);
            host.run(lab, &["share", "on"]);
        }
        Trouble::MemoryTaken => {
            host.run(lab, &["share", "--memory", "1MiB"]);
            std::thread::sleep(lasts);
            host.run(lab, &["share", "--memory", "100GB"]);
        }
        Trouble::Quit => {
            host.signal("-TERM");
            host.wait();
            std::thread::sleep(lasts);
            host.start(lab);
        }
    }
}

/// A machine that is in the way of an answer; jitter has a cable of its own.
fn victim(lab: &Lab, what: Trouble, ann: &Host, others: &[Host], chance: &mut Chance) -> usize {
    if what == Trouble::Jitter {
        return others.iter().position(|host| host.machine == "eve").unwrap();
    }
    let status = ann.json(lab, &["status"]);
    let stages = status["model"]["stages"].as_array().unwrap();
    let holds = |host: &Host| stages.iter().any(|stage| stage["node"] == host.machine.as_str());
    let holders: Vec<usize> = (0..others.len()).filter(|index| holds(&others[*index])).collect();
    holders[chance.below(holders.len())]
}

/// Nothing is left of answers that have ended: no session, and no worker but those of the model that is loaded.
fn settle(lab: &Lab, ann: &Host, others: &[Host]) {
    for other in others {
        ann.wait_for(lab, &other.machine, "approved");
    }
    let started = Instant::now();
    loop {
        let left = left_over(lab, ann, others);
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < TEST_TIMEOUT, "left over: {left:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Where there are sessions, or more workers than stages that ann wants.
fn left_over(lab: &Lab, ann: &Host, others: &[Host]) -> Vec<String> {
    let model = ann.json(lab, &["status"])["model"].take();
    let mut left = Vec::new();
    for host in std::iter::once(ann).chain(others) {
        let holders = ["stages", "copies"].into_iter().filter_map(|held| model[held].as_array()).flatten();
        let held = holders.filter(|stage| stage["node"] == host.machine.as_str()).count();
        let sessions = host.json(lab, &["status"])["profile"]["sessions"].take();
        let workers = workers(host).len();
        if sessions != 0 || workers > held {
            left.push(format!("{}: {sessions} sessions, {workers} workers, {held} wanted", host.machine));
        }
    }
    left
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_trouble_changes_an_answer() {
    let (runs, seed) = (setting("HIVEMIND_CHAOS_RUNS", RUNS), setting("HIVEMIND_CHAOS_SEED", 1));
    let most = AT_ONCE[usize::from(std::env::var_os("HIVEMIND_CHAOS_RUNS").is_some())];
    let only = std::env::var("HIVEMIND_CHAOS_ONLY").ok();
    let known = |name: &String| TROUBLES.iter().any(|what| format!("{what:?}") == *name);
    assert!(only.as_ref().is_none_or(known), "no such trouble: {only:?}; there are {TROUBLES:?}");
    let mut chance = Chance(seed as u64);
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob", "cat", "dan"], "10.77.0");
    lab.host_on_a_rough_cable("switch", "eve", "10.77.0.5");
    let ann = lab.node("ann", "");
    let mut others = ["bob", "cat", "dan", "eve"].map(|name| lab.node(name, ""));
    for other in &others {
        pair(&lab, &ann, other);
    }
    for (index, a) in others.iter().enumerate() {
        for b in &others[index + 1..] {
            pair(&lab, a, b);
        }
    }
    let undisturbed: Vec<Value> = (0..QUESTIONS).map(|number| tokens(ask(&lab, &ann, number, 1)).unwrap()).collect();
    let mut outcomes: BTreeMap<Trouble, Outcome> = BTreeMap::new();
    let mut order = Vec::new();
    for run in 0..runs {
        if order.is_empty() {
            // Each kind comes once before any comes again.
            let wanted = |what: &Trouble| only.as_ref().is_none_or(|only| *only == format!("{what:?}"));
            order = TROUBLES.into_iter().filter(wanted).collect();
            for place in (1..order.len()).rev() {
                order.swap(place, chance.below(place + 1));
            }
        }
        let what = order.pop().unwrap();
        let stages = chance.between(2, 5);
        let asked: Vec<usize> = (0..chance.between(1, most)).map(|_| chance.below(QUESTIONS)).collect();
        let (begins_ms, lasts_ms) = (chance.between(0, 3000), chance.between(100, 4000));
        // Loaded before, so that trouble comes in the middle of answers as well as at their beginning.
        load(&lab, &ann, stages).unwrap_or_else(|why| {
            let (plan, peers) = (ann.run(&lab, &["plan"]), ann.run(&lab, &["peers"]));
            panic!("run {run}, before any trouble: {why}\n{plan}\n{peers}")
        });
        let victim = victim(&lab, what, &ann, &others, &mut chance);
        let answers: Vec<_> = asked.iter().map(|number| (*number, ask(&lab, &ann, *number, stages))).collect();
        std::thread::sleep(Duration::from_millis(begins_ms as u64));
        trouble(&lab, what, &ann, &mut others[victim], Duration::from_millis(lasts_ms as u64));
        let outcome = outcomes.entry(what).or_default();
        outcome.runs += 1;
        for (number, answer) in answers {
            outcome.sessions += 1;
            match tokens(answer) {
                Ok(tokens) if tokens == undisturbed[number] => outcome.same += 1,
                Ok(_) => outcome.wrong.push(format!("run {run}: other tokens to question {number}")),
                Err(why) => outcome.wrong.push(format!("run {run}: {why}")),
            }
        }
        println!("run {run}: {what:?} at {}, {stages} stages, {} answers", others[victim].machine, asked.len());
        settle(&lab, &ann, &others);
    }
    println!("| trouble | runs | answers | same tokens |\n|---|---|---|---|");
    for (what, outcome) in &outcomes {
        println!("| {what:?} | {} | {} | {} |", outcome.runs, outcome.sessions, outcome.same);
    }
    let wrong: Vec<_> = outcomes.values().flat_map(|outcome| &outcome.wrong).collect();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}
