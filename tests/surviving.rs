//! Machines that leave in the middle of answers, in peace or not, and what is carried on without them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::lab::{Host, Lab, pair};
use common::timeout::patiently_or;
use common::{patiently, wait};

/// What a terminal has shown so far.
struct Shown(Arc<Mutex<String>>);

impl Shown {
    fn of(mut output: impl Read + Send + 'static) -> Self {
        let shown = Arc::new(Mutex::new(String::new()));
        let text = shown.clone();
        std::thread::spawn(move || {
            let (mut bytes, mut all) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                all.extend_from_slice(&bytes[..read]);
                *text.lock().unwrap() = String::from_utf8_lossy(&all).replace("\r\n", "\n");
            }
        });
        Self(shown)
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn has(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    #[track_caller]
    fn patiently(&self, words: &str) {
        patiently_or(|| format!("{words:?} is not in {:?}", self.text()), || self.has(words));
    }
}

/// Machines that have all approved each other, with logs.
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

fn three_in_one_swarm() -> (Lab, [Host; 3]) {
    in_one_swarm(["ann", "bob", "cat"])
}

/// Has machines give so much memory, and waits until the first of them knows.
fn give_300_mb(lab: &Lab, hosts: &[&Host]) {
    for host in hosts {
        host.run(lab, &["share", "--memory", "300MB"]);
    }
    for host in &hosts[1..] {
        patiently("it is known", || hosts[0].peer(lab, &host.machine).unwrap()["profile"]["cap_bytes"] == 300_000_000);
    }
}

/// Waits until an answer that was just asked for has some tokens; many more follow.
fn under_way(lab: &Lab, asker: &Host) {
    let answered = || asker.json(lab, &["status"])["answered_tokens"].as_u64().unwrap();
    let before = answered();
    patiently("an answer comes", || answered() >= before + 10);
}

/// Waits until each of two answers that were just asked for has some tokens; many more follow.
fn both_under_way(lab: &Lab, asker: &Host) {
    patiently("both are computed", || asker.json(lab, &["status"])["profile"]["sessions"].as_u64() >= Some(2));
    under_way(lab, asker);
}

/// Three alike that would take long to read again what another has read.
fn three_that_read_slowly() -> (Lab, [Host; 3]) {
    let (lab, mut hosts) = three_in_one_swarm();
    for host in &mut hosts {
        host.claim(&lab, |speed| {
            speed["bytes_per_s"] = 9e9.into();
            speed["decode_tokens_per_s"] = 100.0.into();
            speed["prefill_tokens_per_s"] = 5.0.into();
        });
    }
    for (host, others) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
        for other in others {
            let other = &hosts[other].machine;
            hosts[host].wait_for(&lab, other, "approved");
            // From then on plans stay as they are.
            patiently("the links are measured", || hosts[host].peer(&lab, other).unwrap()["bits_per_s"].is_number());
        }
    }
    (lab, hosts)
}

#[test]
fn an_answer_goes_on_when_a_machine_or_a_worker_dies_in_the_middle_of_it() {
    let (lab, [ann, bob, mut cat]) = three_in_one_swarm();
    let seeded = ["--temperature", "0.9", "--seed", "11"];
    let ask = |sampling: &[&str]| {
        let fixed = ["chat", "--prompt", common::LONG, "--max-tokens", "250", "--stages", "3", "--json"];
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
    // Two answers at a time: one of the most certain tokens and one of sampled ones.
    let samplings = [&[][..], &seeded];
    let undisturbed = samplings.map(|sampling| whole(ask(sampling).spawn().unwrap()));
    assert!(undisturbed.iter().all(|answer| answer["stages"].as_array().unwrap().len() == 3), "{undisturbed:?}");
    for what in ["a worker is killed", "a machine is stopped", "a machine revokes"] {
        // Loaded on all three, so that the answers begin at once.
        ann.ask(&lab, "Hello.", 1, 3);
        let asked = samplings.map(|sampling| ask(sampling).spawn().unwrap());
        both_under_way(&lab, &ann);
        match what {
            // With the copy of another's stage that it may keep.
            "a worker is killed" => bob.workers().into_iter().for_each(kill),
            "a machine is stopped" => cat.signal("-STOP"),
            _ => drop(bob.run(&lab, &["remove", "ann"])),
        }
        for (answer, undisturbed) in asked.map(whole).iter().zip(&undisturbed) {
            assert_eq!(answer["tokens"], undisturbed["tokens"], "{what}");
            println!("{what}: ended on {}", answer["stages"]);
            let went_on_elsewhere = answer["stages"] != undisturbed["stages"];
            assert!(went_on_elsewhere || what == "a worker is killed", "it was over before this: {what}");
        }
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
    // Nothing is left of what was lost: a worker for every stage and every copy of the model that is loaded.
    ann.ask(&lab, "Hello.", 1, 3);
    for (name, host) in [("ann", &ann), ("bob", &bob), ("cat", &cat)] {
        patiently("stages that nobody wants are gone", || {
            let model = &ann.json(&lab, &["status"])["model"];
            let held = [&model["stages"], &model["copies"]].map(|held| held.as_array().unwrap().iter());
            host.workers().len() == held.into_iter().flatten().filter(|stage| stage["node"] == name).count()
        });
    }
    // Two machines go at once: the last one continues alone.
    let child = ask(&[]).spawn().unwrap();
    under_way(&lab, &ann);
    kill(bob.process());
    let answer = {
        cat.kill();
        whole(child)
    };
    assert_eq!(answer["tokens"], undisturbed[0]["tokens"]);
    assert!(answer["stages"].as_array().unwrap().iter().all(|stage| stage["node"] == "ann"), "{}", answer["stages"]);
}

/// Each computes for the other when they lose each other, and a third is there for both.
#[test]
fn two_coordinators_that_think_each_other_dead_both_finish_their_answers() {
    let (lab, [ann, bob, cat]) = three_in_one_swarm();
    let undisturbed = ann.ask(&lab, common::LONG, 250, 1)["tokens"].clone();
    bob.run(&lab, &["share", "off"]);
    let knows = |host: &Host, sharing: bool| host.peer(&lab, "bob").unwrap()["profile"]["sharing"] == sharing;
    patiently("bob shares nothing", || knows(&ann, false) && knows(&cat, false));
    let ask = |host: &Host| {
        let asked = ["chat", "--prompt", common::LONG, "--max-tokens", "250", "--stages", "2", "--json"];
        host.command(&lab, &asked).spawn().unwrap()
    };
    let holders = |host: &Host| {
        let model = host.json(&lab, &["status"])["model"].clone();
        let held = ["stages", "copies"].map(|held| model[held].as_array().cloned().unwrap_or_default());
        held.concat().iter().map(|stage| stage["node"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Loaded, so that both answers begin at once.
    for host in [&ann, &cat] {
        host.ask(&lab, "Hello.", 1, 2);
        assert!(["ann", "cat"].iter().all(|name| holders(host).contains(&(*name).to_owned())), "{:?}", holders(host));
    }
    let answers = [ask(&ann), ask(&cat)];
    under_way(&lab, &ann);
    under_way(&lab, &cat);
    bob.run(&lab, &["share", "on"]);
    patiently("bob shares again", || knows(&ann, true) && knows(&cat, true));
    lab.cut("ann", "10.77.0.3", true);
    for answer in answers {
        let output = answer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["tokens"], undisturbed, "{}", answer["stages"]);
    }
    for (host, other) in [(&ann, "cat"), (&cat, "ann")] {
        host.wait_for(&lab, other, "unreachable");
        assert!(!holders(host).contains(&other.to_owned()), "{:?}", holders(host));
    }
    lab.cut("ann", "10.77.0.3", false);
    for (host, other) in [(&ann, "cat"), (&cat, "ann")] {
        host.wait_for(&lab, other, "approved");
        let plan = host.json(&lab, &["plan"]);
        assert!(!plan["reasons"].to_string().contains("quarantined for"), "nobody did anything wrong: {plan}");
    }
    // Nothing is left of what either had on the other.
    for host in [&ann, &bob, &cat] {
        patiently("stages that nobody wants are gone", || {
            let wanted = [&ann, &cat].into_iter().flat_map(holders);
            host.workers().len() == wanted.filter(|holder| *holder == host.machine).count()
        });
    }
}

#[test]
fn a_machine_that_stops_sharing_or_quits_hands_over_first() {
    let (lab, [ann, bob, cat]) = three_that_read_slowly();
    let ask = || {
        let fixed = ["chat", "--prompt", common::LONG, "--max-tokens", "250", "--stages", "3", "--json"];
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
    under_way(&lab, &ann);
    assert_eq!(bob.run(&lab, &["share", "off"]).trim(), "sharing is switched off");
    let answer = whole(child);
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(!holders(&answer).contains(&"bob".to_owned()), "{}", answer["stages"]);
    patiently("what was handed over is gone", || bob.workers().is_empty());
    assert!(bob.log().contains("a stage was handed over with its caches"), "{}{}", ann.log(), bob.log());
    let (code, _, refusal) = ann.try_run(&lab, &["chat", "--prompt", "Hello.", "--stages", "3"]);
    assert!(code == 1 && refusal.contains("can take a part: bob does not share"), "{refusal}");

    // Remembered; and a pause is a pause.
    assert!(bob.run(&lab, &["share", "on"]).starts_with("sharing up to"));
    assert!(bob.run(&lab, &["pause", "30"]).starts_with("paused for another 30 min"));
    assert!(bob.run(&lab, &["pause", "0"]).starts_with("sharing up to"));
    patiently("bob shares again", || {
        ann.try_run(&lab, &["chat", "--prompt", "Hi.", "--max-tokens", "1", "--stages", "3"]).0 == 0
    });

    // It gives less memory than its layers take: they move, and it keeps sharing the rest.
    let child = ask();
    under_way(&lab, &ann);
    assert_eq!(bob.run(&lab, &["share", "--memory", "20MiB"]).trim(), "sharing up to 21.0 MB");
    let answer = whole(child);
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(!holders(&answer).contains(&"bob".to_owned()), "{}", answer["stages"]);
    patiently("its layers have moved", || bob.workers().is_empty());
    assert!(bob.run(&lab, &["share", "--memory", "100GB"]).starts_with("sharing up to"));
    patiently("bob has room again", || {
        ann.try_run(&lab, &["chat", "--prompt", "Hi.", "--max-tokens", "1", "--stages", "3"]).0 == 0
    });

    let child = ask();
    under_way(&lab, &ann);
    // The one that asks is not in the way; cat is told to quit as systemd would.
    cat.signal("-TERM");
    let answer = whole(child);
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert!(!holders(&answer).contains(&"cat".to_owned()), "{}", answer["stages"]);
}

#[test]
fn a_copy_of_a_stage_takes_over_without_loading() {
    let (lab, [ann, bob, cat]) = three_in_one_swarm();
    let undisturbed = ann.ask(&lab, common::LONG, 250, 2);
    let holder = undisturbed["stages"][1]["node"].as_str().unwrap();
    let (mut holder, keeper) = if holder == "bob" { (bob, cat) } else { (cat, bob) };
    patiently("another machine keeps a copy", || {
        let model = &ann.json(&lab, &["status"])["model"];
        model["copies"].as_array().unwrap().len() == 1 && keeper.workers().len() == 1
    });
    let copy = keeper.workers();

    let fixed = ["chat", "--prompt", common::LONG, "--max-tokens", "250", "--stages", "2", "--json"];
    let child = ann.command(&lab, &fixed).spawn().unwrap();
    under_way(&lab, &ann);
    holder.kill();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["tokens"], undisturbed["tokens"]);
    assert_ne!(answer["stages"], undisturbed["stages"], "the answer was over before its machine was");
    assert_eq!(keeper.workers(), copy, "what was loaded before computes now");

    // Now this machine keeps one, but no longer than its owner has memory for it.
    patiently("there is a copy again", || ann.workers().len() == 2);
    // Its own model's copy stays, whether it shares or not.
    let kept = ann.workers();
    for (switch, shares) in [("off", false), ("on", true)] {
        ann.run(&lab, &["share", switch]);
        patiently("it has looked", || ann.json(&lab, &["status"])["profile"]["sharing"] == shares);
    }
    // One that had been freed and loaded again would be another process.
    assert_eq!(ann.workers(), kept);
    let held = ann.json(&lab, &["status"])["profile"]["held_bytes"].as_u64().unwrap();
    ann.run(&lab, &["share", "--memory", &(held + 1).to_string()]);
    patiently("the copy yields, and the stage stays", || ann.workers().len() == 1);
}

/// Two answers in one process, so that the second reuses the first one's cache.
fn two_turns(lab: &Lab, host: &Host, between: impl Fn(&serde_json::Value)) -> [serde_json::Value; 2] {
    let turns = ["Tell me of bees in a few words.", "And of wasps?"];
    let fixed = ["chat", "--lines", "--temperature", "0", "--max-tokens", "40", "--json"];
    let mut child = host.command(lab, &fixed).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines();
    let answers = [0, 1].map(|turn| {
        writeln!(input, "{}", turns[turn]).unwrap();
        let answer = lines.next().unwrap_or_else(|| panic!("no answer came: {}", host.log())).unwrap();
        let answer = serde_json::from_str(&answer).unwrap();
        if turn == 0 {
            between(&answer);
        }
        answer
    });
    drop(input);
    assert!(child.wait().unwrap().success());
    answers
}

#[test]
fn a_conversation_that_waits_for_its_next_turn_is_carried_as_well() {
    let (lab, [ann, bob, cat]) = three_that_read_slowly();
    // Two of them are needed.
    give_300_mb(&lab, &[&ann, &bob, &cat]);
    let [_, undisturbed] = two_turns(&lab, &ann, |_| ());
    let read = undisturbed["prompt_tokens"].as_u64().unwrap();
    let cached = undisturbed["cached_tokens"].as_u64().unwrap();
    assert!(cached > 40 && cached < read, "{undisturbed}");
    let [first, second] = two_turns(&lab, &ann, |first| {
        let holds =
            |host: &&&Host| first["stages"].as_array().unwrap().iter().any(|stage| stage["node"] == host.machine);
        let leaves = [&bob, &cat].into_iter().find(|host| holds(&host)).expect("one machine alone has no room");
        leaves.run(&lab, &["share", "off"]);
        patiently("it has left", || leaves.workers().is_empty());
    });
    assert_ne!(first["stages"], second["stages"]);
    assert_eq!(second["cached_tokens"], cached, "{first} {second} {}", ann.log());
    assert_eq!(second["tokens"], undisturbed["tokens"]);
    assert!(ann.log().contains("has carried its sessions"), "it was read again: {}", ann.log());
}

#[test]
fn a_next_turn_computes_only_what_is_new_also_where_a_machine_has_died_meanwhile() {
    let (lab, [ann, mut bob, cat]) = three_that_read_slowly();
    give_300_mb(&lab, &[&ann, &bob, &cat]);
    let plan = ann.folder.with_extension("json");
    let stages = r#"{"stages":[{"node":"ann","layers":[0,14]},{"node":"bob","layers":[14,30]}]}"#;
    std::fs::write(&plan, stages).unwrap();
    ann.run(&lab, &["models", "load", "SmolLM2-135M-Instruct.Q4_1", "--plan", plan.to_str().unwrap()]);
    let [_, undisturbed] = two_turns(&lab, &ann, |_| ());
    let bob = std::cell::RefCell::new(&mut bob);
    let [first, second] = two_turns(&lab, &ann, |_| {
        bob.borrow_mut().kill();
        // It fails over without a question: the conversation may continue.
        patiently("another machine has its layers", || {
            ann.json(&lab, &["status"])["model"]["stages"][1]["node"] == "cat"
        });
    });
    let second_holder = |answer: &serde_json::Value| answer["stages"][1]["node"].as_str().unwrap().to_owned();
    assert_eq!((second_holder(&first).as_str(), second_holder(&second).as_str()), ("bob", "cat"));
    // The first machine has read nothing twice; the new one has been given what the first sent to the one that died.
    assert!(second["cached_tokens"].as_u64().unwrap() > 40, "{second} {}", ann.log());
    assert_eq!(second["cached_tokens"], undisturbed["cached_tokens"], "{second} {}", ann.log());
    assert_eq!(second["tokens"], undisturbed["tokens"]);
    let failovers = ann.log().matches("a model is failing over").count();
    assert_eq!(failovers, 1, "the second turn had to be helped: {}", ann.log());
}

#[test]
fn what_is_loaded_for_a_model_that_goes_elsewhere_meanwhile_is_in_nobodys_way() {
    let (lab, [ann, bob]) = in_one_swarm(["ann", "bob"]);
    let whole = ann.ask(&lab, common::LONG, 20, 2);
    // Bob is to have both stages, which takes for ever; then it gives too little for both, and a question has the model
    // placed again.
    let first = bob.workers();
    // Less than either of the two stages takes.
    ann.run(&lab, &["share", "--memory", "165MB"]);
    let loads = || bob.workers().into_iter().find(|worker| !first.contains(worker));
    patiently("the layers move", || loads().is_some());
    let in_vain = loads().unwrap();
    let stop = ["-STOP".to_owned(), in_vain.to_string()];
    assert!(Command::new("kill").args(stop).status().unwrap().success());
    // Too little for all of it, and enough for all but what the other can still take.
    bob.run(&lab, &["share", "--memory", "330MB"]);
    patiently("it is known", || ann.peer(&lab, "bob").unwrap()["profile"]["cap_bytes"] == 330_000_000);
    let split = ann.json(&lab, &["chat", "--prompt", common::LONG, "--max-tokens", "20", "--temperature", "0"]);
    assert_eq!(split["tokens"], whole["tokens"]);
    assert_eq!(split["stages"].as_array().unwrap().len(), 2, "{split}");
    assert!(!bob.workers().contains(&in_vain), "what nobody waits for is still there");
    let plan = ann.json(&lab, &["plan"]);
    assert!(!plan["reasons"].to_string().contains("quarantined"), "bob did nothing wrong: {plan} {}", ann.log());
}

#[test]
fn an_answer_that_broke_off_is_gone_on_with_when_the_machine_is_back() {
    let (lab, [ann, mut bob]) = in_one_swarm(["ann", "bob"]);
    let whole = ann.ask(&lab, common::LONG, 250, 2);
    // Neither has room for all of it.
    give_300_mb(&lab, &[&ann, &bob]);
    // A terminal of its own: what a person does.
    let exe = env!("CARGO_BIN_EXE_hivemind");
    let chat = format!("{exe} --data-dir {} chat --temperature 0 --max-tokens 250", ann.folder.display());
    let mut terminal = lab.command("ann", "script -qefc");
    let mut terminal = terminal.args([&chat, "/dev/null"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = terminal.stdin.take().unwrap();
    let shown = Shown::of(terminal.stdout.take().unwrap());
    shown.patiently("Ctrl-D ends");
    writeln!(input, "{}", common::LONG).unwrap();
    let words = whole["text"].as_str().unwrap();
    shown.patiently(&words[..120]);
    bob.kill();
    // It waits a minute for machines to come back.
    let patience = Instant::now();
    while !shown.has("/continue picks up where it stopped") {
        assert!(patience.elapsed() < Duration::from_mins(3), "{}", shown.text());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!shown.has(words), "the answer was over before its machine was");
    bob.start(&lab);
    ann.wait_for(&lab, "bob", "approved");
    let before = shown.text().len();
    writeln!(input, "/continue").unwrap();
    patiently("it is complete", || shown.text()[before..].contains("tok/s"));
    drop(input);
    wait(&mut terminal);
    // Both parts, without what the terminal says between them.
    let text = shown.text();
    let (first, second) = (&text[..before], &text[before..]);
    let second = second.split_once("/continue").map_or(second, |(_, after)| after).trim_start();
    let end = second.find("tok/s").unwrap();
    let (second, _) = second[..end].rsplit_once('\n').unwrap();
    let head = words.strip_suffix(second).unwrap_or_else(|| panic!("{second:?} does not end {words:?}"));
    assert!(first.contains(head.trim_end()), "{head:?} was not shown in {first:?}");
}
