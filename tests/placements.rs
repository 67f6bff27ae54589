//! Where a model is placed: made by hand, remembered on disk, and put back after the node was killed.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::lab::{Host, Lab, pair};
use common::patiently;
use serde_json::{Value, json};

const STARTER: &str = "SmolLM2-135M-Instruct.Q4_1";
const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

fn two_in_one_swarm() -> (Lab, Host, Host) {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let mut ann = lab.host("ann", "");
    ann.log = Some(ann.folder.with_extension("log"));
    ann.start(&lab);
    let bob = lab.node("bob", "");
    pair(&lab, &ann, &bob);
    (lab, ann, bob)
}

/// The stages of the model in memory, as `(machine, layers)`; empty where there is none.
fn in_memory(host: &Host, lab: &Lab) -> Vec<(String, [u64; 2])> {
    stages(&host.json(lab, &["status"])["model"]["stages"])
}

fn stages(stages: &Value) -> Vec<(String, [u64; 2])> {
    let layers = |stage: &Value, bound: usize| stage["layers"][bound].as_u64().unwrap();
    let stage = |stage: &Value| (stage["node"].as_str().unwrap().to_owned(), [layers(stage, 0), layers(stage, 1)]);
    stages.as_array().into_iter().flatten().map(stage).collect()
}

fn placed(wanted: &[(&str, [u64; 2])]) -> Vec<(String, [u64; 2])> {
    wanted.iter().map(|(node, layers)| ((*node).to_owned(), *layers)).collect()
}

fn plan_file(folder: &Path, stages: &[(&str, [i64; 2])]) -> PathBuf {
    let file = folder.join("plan.json");
    let stages: Vec<_> = stages.iter().map(|(node, layers)| json!({ "node": node, "layers": layers })).collect();
    std::fs::write(&file, json!({ "stages": stages }).to_string()).unwrap();
    file
}

fn load(host: &Host, lab: &Lab, plan: &Path) -> (i32, String, String) {
    host.try_run(lab, &["models", "load", STARTER, "--plan", plan.to_str().unwrap()])
}

fn ask(host: &Host, lab: &Lab) -> Value {
    host.json(lab, &["chat", "--prompt", QUESTION, "--max-tokens", "20"])
}

fn on_disk(host: &Host) -> Value {
    let text = std::fs::read(host.folder.join("placements.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Until the file lists this many models in memory.
#[track_caller]
fn wait_for_file(host: &Host, models: usize) {
    patiently("it is on disk", || on_disk(host)["in_memory"].as_array().is_some_and(|list| list.len() == models));
}

/// How many models a file of placements has said to be in memory, from one change to the next.
struct History {
    over: Arc<AtomicBool>,
    watch: JoinHandle<Vec<usize>>,
}

impl History {
    fn of(file: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let watch = std::thread::spawn(move || {
            let mut counts = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let said: Value =
                    serde_json::from_slice(&std::fs::read(&file).unwrap()).expect("it is whole at all times");
                let count = said["in_memory"].as_array().unwrap().len();
                if counts.last() != Some(&count) {
                    counts.push(count);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            counts
        });
        Self { over, watch }
    }

    fn end(self) -> Vec<usize> {
        self.over.store(true, Ordering::Relaxed);
        self.watch.join().unwrap()
    }
}

#[test]
fn a_killed_machine_puts_back_what_it_had_in_memory_where_it_was() {
    let (lab, mut ann, bob) = two_in_one_swarm();
    // Nobody would place it like this: what comes back is what was, not what the plan says.
    let before = stages(&ann.ask(&lab, QUESTION, 20, 2)["stages"]);
    assert_eq!(before.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["ann", "bob"]);
    wait_for_file(&ann, 1);
    ann.kill();
    let history = History::of(ann.folder.join("placements.json"));
    ann.start(&lab);
    patiently("the model is back without anybody asking", || in_memory(&ann, &lab) == before);
    wait_for_file(&ann, 1);
    // While it is being loaded it is not in the file: should that end the process, it is not tried for ever.
    assert_eq!(history.end(), [1, 0, 1]);
    // What is forgotten with the process frees its memory on the other machine.
    patiently("the old stage is gone", || bob.workers().len() == 1);
    let answer = ann.ask(&lab, QUESTION, 20, 2);
    assert_eq!((answer["text"].as_str(), stages(&answer["stages"])), (Some(ANSWER), before));
    assert!(ann.log().contains(&format!("{STARTER} is in memory again")), "{}", ann.log());
}

#[test]
fn a_machine_that_was_stopped_has_freed_its_memory() {
    let (lab, mut ann, _bob) = two_in_one_swarm();
    ask(&ann, &lab);
    wait_for_file(&ann, 1);
    ann.signal("-TERM");
    ann.wait();
    assert_eq!(on_disk(&ann)["in_memory"], json!([]));
    ann.start(&lab);
    ann.wait_for(&lab, "bob", "approved");
    assert_eq!(in_memory(&ann, &lab), []);
}

#[test]
fn a_model_whose_machine_does_not_come_back_is_placed_with_those_that_are_here() {
    let (lab, mut ann, mut bob) = two_in_one_swarm();
    let plan = plan_file(&lab.scratch(), &[("bob", [0, 30])]);
    assert_eq!(load(&ann, &lab, &plan).0, 0);
    wait_for_file(&ann, 1);
    ann.kill();
    bob.kill();
    ann.start(&lab);
    // A question does not wait for machines that may never come.
    let answer = ask(&ann, &lab);
    assert_eq!((answer["text"].as_str(), stages(&answer["stages"])), (Some(ANSWER), placed(&[("ann", [0, 30])])));
    let reasons = ann.json(&lab, &["plan"])["reasons"].to_string();
    assert!(reasons.contains("The manual plan cannot be followed now: bob is not here"), "{reasons}");
    // And what was wanted is done when it can be again.
    bob.start(&lab);
    ann.wait_for(&lab, "bob", "approved");
    patiently("the plan is followed again", || stages(&ask(&ann, &lab)["stages"]) == placed(&[("bob", [0, 30])]));
}

#[test]
fn a_model_is_placed_by_hand_until_it_is_unloaded() {
    let (lab, mut ann, bob) = two_in_one_swarm();
    let file = lab.scratch().join("plan.json");
    std::fs::write(&file, ann.run(&lab, &["plan", "--stages", "2", "--json"])).unwrap();
    // As a person does it: take the plan that there is, and change its numbers.
    let mut plan: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    plan["stages"][0]["layers"] = json!([0, 4]);
    plan["stages"][1]["layers"] = json!([4, 30]);
    std::fs::write(&file, plan.to_string()).unwrap();
    let wanted = placed(&[("ann", [0, 4]), ("bob", [4, 30])]);
    assert_eq!(load(&ann, &lab, &file).0, 0);
    assert_eq!(in_memory(&ann, &lab), wanted);
    let answer = ask(&ann, &lab);
    assert_eq!((answer["text"].as_str(), stages(&answer["stages"])), (Some(ANSWER), wanted.clone()));
    assert!(ann.run(&lab, &["plan"]).contains("Placed manually"));
    // Another plan, while it is loaded; the machine may be renamed.
    ann.run(&lab, &["rename", "bob", "Attic"]);
    let turned = plan_file(&lab.scratch(), &[("Attic", [0, 12]), ("ann", [12, 30])]);
    assert_eq!(load(&ann, &lab, &turned).0, 0);
    assert_eq!(stages(&ask(&ann, &lab)["stages"]), placed(&[("Attic", [0, 12]), ("ann", [12, 30])]));
    // It is remembered when the machine is stopped, and ends with unloading.
    ann.signal("-TERM");
    ann.wait();
    ann.start(&lab);
    ann.wait_for(&lab, "Attic", "approved");
    patiently("it shares", || ann.peer(&lab, "Attic").unwrap()["profile"]["sharing"] == true);
    assert_eq!(stages(&ask(&ann, &lab)["stages"]), placed(&[("Attic", [0, 12]), ("ann", [12, 30])]));
    ann.run(&lab, &["models", "unload", STARTER]);
    assert!(!ann.run(&lab, &["plan"]).contains("manual"));
    assert_eq!(stages(&ask(&ann, &lab)["stages"]).len(), 1);
    drop(bob);
}

#[test]
fn a_model_that_nobody_uses_leaves_the_memory_of_every_machine_if_its_owner_wants_that() {
    let (lab, ann, bob) = two_in_one_swarm();
    let plan = plan_file(&lab.scratch(), &[("ann", [0, 4]), ("bob", [4, 30])]);
    let by_hand = placed(&[("ann", [0, 4]), ("bob", [4, 30])]);
    assert_eq!(load(&ann, &lab, &plan).0, 0);
    // The standby replicas of both stages run beside them.
    let answer = ask(&ann, &lab);
    assert_eq!((answer["text"].as_str(), stages(&answer["stages"])), (Some(ANSWER), by_hand.clone()));
    assert!(!bob.workers().is_empty());
    std::fs::write(ann.folder.join("config.toml"), "unload_after_idle_minutes = 0\n").unwrap();
    patiently("the model is unloaded", || in_memory(&ann, &lab).is_empty());
    patiently("its memory is free", || ann.workers().is_empty() && bob.workers().is_empty());
    wait_for_file(&ann, 0);
    // The next question loads it where its owner wants it.
    let answer = ask(&ann, &lab);
    assert_eq!((answer["text"].as_str(), stages(&answer["stages"])), (Some(ANSWER), by_hand));
    assert!(ann.log().contains("nobody used it"), "{}", ann.log());
}

/// Whether each of these models is in memory.
fn are_in_memory(host: &Host, lab: &Lab, names: &[&str]) -> Vec<bool> {
    let models = host.json(lab, &["models", "list"])["models"].clone();
    let is_in_memory =
        |name: &&str| models.as_array().unwrap().iter().any(|m| m["name"] == **name && m["loaded"] == true);
    names.iter().map(is_in_memory).collect()
}

#[test]
fn a_pinned_model_stays_in_memory_until_it_is_unpinned() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann"], "10.77.0");
    let mut ann = lab.node("ann", "");
    let copy = lab.scratch().join("copy.gguf");
    std::fs::copy(std::env::var_os("HIVEMIND_STARTER").unwrap(), &copy).unwrap();
    let copy = copy.to_str().unwrap();
    let both = [STARTER, copy];
    ann.run(&lab, &["models", "pin", STARTER]);
    ann.run(&lab, &["models", "load", STARTER]);
    // Another model takes the place of an unused one, and not of this.
    ann.run(&lab, &["models", "load", copy]);
    assert_eq!(are_in_memory(&ann, &lab, &both), [true, true]);
    // Nobody has used it for longer than the other, which goes.
    std::fs::write(ann.folder.join("config.toml"), "unload_after_idle_minutes = 0\n").unwrap();
    patiently("the other is unloaded", || !are_in_memory(&ann, &lab, &both)[1]);
    assert_eq!(are_in_memory(&ann, &lab, &both), [true, false]);
    // Also after a restart.
    ann.signal("-TERM");
    ann.wait();
    ann.start(&lab);
    ann.run(&lab, &["models", "load", STARTER]);
    ann.run(&lab, &["models", "load", copy]);
    patiently("the other is unloaded", || !are_in_memory(&ann, &lab, &both)[1]);
    assert_eq!(are_in_memory(&ann, &lab, &both), [true, false]);
    assert!(ann.run(&lab, &["models", "list"]).contains("pinned"));
    ann.run(&lab, &["models", "unpin", STARTER]);
    patiently("it is unloaded, too", || !are_in_memory(&ann, &lab, &both)[0]);
    let (code, _, why) = ann.try_run(&lab, &["models", "unpin", STARTER]);
    assert!(code == 1 && why.contains("is not pinned"), "{why}");
    let scratch = lab.scratch();
    for no_model in ["/nothing/is.gguf", scratch.join("empty").to_str().unwrap()] {
        std::fs::create_dir_all(scratch.join("empty")).unwrap();
        let (code, _, why) = ann.try_run(&lab, &["models", "pin", no_model]);
        assert!(code == 1 && why.contains(no_model), "{why}");
        let (code, _, why) = ann.try_run(&lab, &["models", "alias", "none", no_model]);
        assert!(code == 1 && why.contains(no_model), "{why}");
    }
}

#[test]
fn an_alias_is_a_name_of_its_model_wherever_models_are_named() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann"], "10.77.0");
    let mut ann = lab.node("ann", "");
    ann.run(&lab, &["models", "alias", "fast", STARTER]);
    ann.run(&lab, &["models", "alias", "also-fast", "fast"]);
    ann.signal("-TERM");
    ann.wait();
    ann.start(&lab);
    ann.run(&lab, &["models", "load", "fast"]);
    assert_eq!(are_in_memory(&ann, &lab, &[STARTER]), [true]);
    let answer = ann.json(&lab, &["chat", "also-fast", "--prompt", QUESTION, "--max-tokens", "20"]);
    assert_eq!(answer["text"], ANSWER);
    assert_eq!(are_in_memory(&ann, &lab, &[STARTER]), [true]);
    assert!(ann.run(&lab, &["plan", "fast"]).contains(STARTER));
    assert!(ann.run(&lab, &["models", "list"]).contains("also called also-fast, fast"));
    ann.run(&lab, &["models", "unload", "fast"]);
    assert_eq!(are_in_memory(&ann, &lab, &[STARTER]), [false]);
    let aliases = ann.json(&lab, &["models", "alias"])["aliases"].clone();
    let alias = |alias: &str| json!({ "alias": alias, "model": STARTER });
    assert_eq!(aliases, json!([alias("also-fast"), alias("fast")]));
    ann.run(&lab, &["models", "alias", "fast", "--remove"]);
    for (arguments, words) in [
        (&["alias", "fast", "--remove"][..], "there is no alias \"fast\""),
        (&["load", "fast"], "fast"),
        (&["alias", "two words", STARTER], "cannot be an alias"),
        (&["alias", STARTER, STARTER], "is the name of a model"),
        (&["alias", "fast", "nobody/nothing"], "nobody/nothing"),
    ] {
        let (code, _, why) = ann.try_run(&lab, &[&["models"], arguments].concat());
        assert!(code == 1 && why.contains(words), "{arguments:?}: {code} {why}");
    }
}

#[test]
fn a_plan_that_cannot_be_is_refused_before_anything_is_loaded() {
    let (lab, ann, _bob) = two_in_one_swarm();
    let scratch = lab.scratch();
    let text = scratch.join("text.json");
    let refused = |plan: &Path, words: &str| {
        let (code, _, message) = load(&ann, &lab, plan);
        assert!(code == 1 && message.contains(words), "{code} {message}");
    };
    for (stages, words) in [
        (vec![], "it has no stages"),
        (vec![("ann", [0, 10]), ("bob", [12, 30])], "layers [10, 12] are in no stage before it"),
        (vec![("ann", [0, 16]), ("bob", [12, 30])], "the stages before it hold all layers up to 16"),
        (vec![("ann", [0, 10]), ("bob", [10, 40])], "ends at layer 40, but the model has 30 layers"),
        (vec![("ann", [0, 10]), ("bob", [10, 29])], "ends at layer 29, but the model has 30 layers"),
        (vec![("ann", [0, 30]), ("bob", [30, 30])], "stage 2 has no layers: [30, 30]"),
        (vec![("ann", [0, 10]), ("zoe", [10, 30])], "no machine \"zoe\""),
        (vec![("ann", [-1, 30])], "invalid value: integer `-1`"),
    ] {
        refused(&plan_file(&scratch, &stages), words);
    }
    ann.run(&lab, &["share", "off"]);
    std::fs::write(&text, "layers 1 to 10 on ann").unwrap();
    refused(&text, "text.json is not a plan");
    std::fs::write(&text, r#"{ "stages": [{ "layers": [0, 30] }] }"#).unwrap();
    refused(&text, "missing field `node`");
    refused(&scratch.join("nowhere.json"), "cannot read");
    assert_eq!(in_memory(&ann, &lab), []);
    assert!(!ann.run(&lab, &["plan"]).contains("manual"), "a refused plan is not kept");
}

#[test]
fn a_file_of_placements_edited_by_hand_is_not_trusted() {
    let (lab, mut ann, _bob) = two_in_one_swarm();
    ann.ask(&lab, QUESTION, 20, 2);
    wait_for_file(&ann, 1);
    ann.kill();
    let file = ann.folder.join("placements.json");
    let before = std::fs::read_to_string(&file).unwrap();
    // Layers that are in no stage: it says so, and places the model by the plan.
    let mut edited: Value = serde_json::from_str(&before).unwrap();
    let first = &mut edited["in_memory"][0]["stages"][0]["layers"];
    *first = json!([0, first[1].as_u64().unwrap() - 3]);
    std::fs::write(&file, edited.to_string()).unwrap();
    ann.start(&lab);
    patiently("the model is in memory", || !in_memory(&ann, &lab).is_empty());
    assert!(ann.log().contains("are in no stage before it"), "{}", ann.log());
    let whole = in_memory(&ann, &lab);
    assert_eq!((whole[0].1[0], whole[whole.len() - 1].1[1]), (0, 30), "every layer is somewhere");
    assert_eq!(ann.ask(&lab, QUESTION, 20, 2)["text"], ANSWER);
    // No JSON any more: it names the file and what to do, changes nothing, and does not start.
    ann.kill();
    std::fs::write(&file, &before[..before.len() / 2]).unwrap();
    let (code, _, message) = ann.try_run(&lab, &["node"]);
    assert!(code == 1 && message.contains("placements.json is damaged"), "{code} {message}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before[..before.len() / 2]);
}
