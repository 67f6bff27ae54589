//! Plans and what is seen: machines that are not what they say, and machines that come while an answer is under way.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::lab::{Host, Lab, pair};
use common::patiently;

const QUESTION: &str = "What is the capital of France?";

/// A copy of the starter model with other bytes at a place.
fn altered(folder: &Path, at: SeekFrom, bytes: &[u8]) -> PathBuf {
    let starter = PathBuf::from(std::env::var_os("HIVEMIND_STARTER").expect("`./dev test` says where the starter is"));
    let copy = folder.join("altered.gguf");
    std::fs::copy(starter, &copy).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
    file.seek(at).unwrap();
    file.write_all(bytes).unwrap();
    copy
}

/// Within a matrix of the starter's layer 25, where nothing belongs to what machines know a model by.
const LATE_WEIGHTS_AT: u64 = 71_765_056 + 100_000;
/// Where the norm of its first layer begins, which belongs to that.
const FIRST_NORM_AT: u64 = 31_866_688;

/// Has a host claim to be this many times as fast as it was measured.
fn claim(lab: &Lab, host: &mut Host, times: f64) {
    host.claim(lab, |speed| {
        for key in ["bytes_per_s", "decode_tokens_per_s", "prefill_tokens_per_s"] {
            speed[key] = (speed[key].as_f64().unwrap() * times).into();
        }
    });
}

fn holders(answer: &serde_json::Value) -> Vec<String> {
    answer["stages"].as_array().unwrap().iter().map(|stage| stage["node"].as_str().unwrap().to_owned()).collect()
}

/// An answer by whatever the plan says.
fn ask(host: &Host, lab: &Lab, prompt: &str, tokens: &str) -> serde_json::Value {
    host.json(lab, &["chat", "--prompt", prompt, "--max-tokens", tokens])
}

#[test]
fn a_machine_that_computes_nonsense_is_named_replaced_and_left_out() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let place = tempfile::tempdir().unwrap();
    // Scales and offsets of some rows that are no numbers.
    let nan = [0xff; 4000];
    let ann = lab.node("ann", "");
    let mut bob = lab.host("bob", "");
    bob.environment = vec![("HIVEMIND_STARTER", altered(place.path(), SeekFrom::Start(LATE_WEIGHTS_AT), &nan))];
    bob.start(&lab);
    pair(&lab, &ann, &bob);
    // The words are those of a machine that computes right, and none of the other's.
    let answer = ann.ask(&lab, QUESTION, 20, 2);
    assert_eq!(answer["text"], "The capital of France is Paris.");
    assert_eq!(holders(&answer), ["ann", "ann"]);
    let (_, plan, _) = ann.try_run(&lab, &["plan"]);
    assert!(plan.contains("bob is quarantined for 1 min: its stages failed"), "{plan}");
    let (code, _, refusal) = ann.try_run(&lab, &["chat", "--prompt", "x", "--stages", "2"]);
    let words = "only ann can take a part: bob is quarantined for 1 min: its stages failed";
    assert!(code == 1 && refusal.contains(words), "{refusal}");
}

#[test]
fn a_machine_with_another_model_of_the_same_name_is_named_and_passed_over() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let place = tempfile::tempdir().unwrap();
    let mut bob = lab.node("bob", "");
    claim(&lab, &mut bob, 100.0);
    std::fs::write(bob.folder.join("config.toml"), "fetch_models = false\n").unwrap();
    // Its file is not the model that it says it has.
    bob.kill();
    let other = altered(place.path(), SeekFrom::Start(FIRST_NORM_AT), &7f32.to_le_bytes());
    bob.environment = vec![("HIVEMIND_STARTER", other)];
    bob.start(&lab);
    let ann = lab.node("ann", "");
    pair(&lab, &ann, &bob);
    patiently("it is known", || ann.run(&lab, &["plan"]).contains("bob's copy of SmolLM2"));
    let answer = ask(&ann, &lab, QUESTION, "20");
    assert_eq!(
        (answer["text"].as_str(), holders(&answer)),
        (Some("The capital of France is Paris."), vec!["ann".to_owned()])
    );
    let plan = ann.run(&lab, &["plan"]);
    assert!(!plan.contains("quarantined"), "it did nothing wrong: {plan}");
}

#[test]
fn a_machine_that_is_slower_than_it_says_is_planned_with_as_it_was_seen() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let mut bob = lab.node("bob", "");
    claim(&lab, &mut bob, 100.0);
    // Twice what this machine says counts of that, and that is four times what bob does.
    let mut ann = lab.node("ann", "");
    claim(&lab, &mut ann, 2.0);
    pair(&lab, &ann, &bob);
    patiently("the plan believes it", || ann.run(&lab, &["plan"]).contains("bob (layers"));
    let believed = ann.json(&lab, &["plan"])["decode_tokens_per_s"].as_f64().unwrap();
    let answer = ask(&ann, &lab, common::LONG, "60");
    assert_eq!(holders(&answer), ["bob"]);
    patiently("what was seen counts", || {
        let plan = ann.json(&lab, &["plan"]);
        let reasons = plan["reasons"].to_string();
        plan["decode_tokens_per_s"].as_f64().unwrap() < believed * 0.8 && reasons.contains("bob is planned at")
    });
}

#[test]
fn an_answer_moves_to_a_better_machine_that_comes_while_it_is_under_way() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let mut ann = lab.node("ann", "");
    claim(&lab, &mut ann, 0.1);
    let mut bob = lab.node("bob", "");
    claim(&lab, &mut bob, 3.0);
    pair(&lab, &ann, &bob);
    let shares = |shares: bool| {
        bob.run(&lab, &["share", if shares { "on" } else { "off" }]);
        patiently("it is known", || ann.peer(&lab, "bob").unwrap()["profile"]["sharing"] == shares);
    };
    shares(false);
    let answered = || ann.json(&lab, &["status"])["answered_tokens"].as_u64().unwrap();
    let before = answered();
    // Long enough for the better plan to be noticed, believed and loaded, also where tokens come fast.
    let command = ["chat", "--prompt", common::LONG, "--max-tokens", "3000", "--temperature", "0"];
    let mut child = ann.command(&lab, &command).spawn().unwrap();
    let computes = |host: &Host| host.json(&lab, &["status"])["profile"]["sessions"] == 1;
    patiently("the answer is under way", || computes(&ann) && answered() > before);
    shares(true);
    patiently("bob computes it", || computes(&bob));
    // What is left here is a copy of what bob holds now, if anything.
    patiently("the old place is free", || {
        let copies = ann.json(&lab, &["status"])["model"]["copies"].as_array().unwrap().len();
        common::children(ann.process()).len() == copies
    });
    let moved = answered();
    patiently("it goes on", || answered() > moved + 40);
    let placed = ann.json(&lab, &["status"])["model"].clone();
    assert_eq!((holders(&placed), computes(&bob)), (vec!["bob".to_owned()], true));
    // No more of it is needed: a stopped answer leaves its words.
    assert!(child.try_wait().unwrap().is_none(), "the answer was over before it could move");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let words = String::from_utf8(output.stdout).unwrap();
    let tokens = answered() - before;
    shares(false);
    // The same by ann alone, and a little more, so that all of the stopped one is in it.
    let undisturbed = ask(&ann, &lab, common::LONG, &(tokens + 10).to_string());
    assert_eq!(holders(&undisturbed), ["ann"]);
    let expected = undisturbed["text"].as_str().unwrap();
    assert!(words.trim_end().len() > 100 && expected.starts_with(words.trim_end()), "{words:?} and {expected:?}");
}
