//! What the owner of a machine can do from the terminal beside asking: settings while it runs, models, conversations.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::lab::{Host, Lab, pair};
use common::patiently;
use hive_mind::{Conversation, Message, Role, Store};

const STARTER: &str = "SmolLM2-135M-Instruct.Q4_1";

fn two() -> (Lab, [Host; 2]) {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let hosts = ["ann", "bob"].map(|name| {
        let mut host = lab.host(name, "");
        host.log = Some(host.folder.with_extension("log"));
        host.start(&lab);
        host
    });
    pair(&lab, &hosts[0], &hosts[1]);
    (lab, hosts)
}

#[test]
fn a_limit_on_what_is_sent_counts_as_soon_as_it_is_written() {
    let (lab, [ann, bob]) = two();
    // 300 words travel from ann to bob as their hidden states: some 350 kB.
    let words = "bees make honey and ".repeat(75);
    let read = |prompt: String| {
        let started = Instant::now();
        ann.ask(&lab, &prompt, 1, 2);
        started.elapsed()
    };
    read("Hello.".to_owned());
    let free = read(format!("1 {words}"));
    std::fs::write(ann.folder.join("config.toml"), "bandwidth_mbit_per_s = 1\n").unwrap();
    patiently("the others hear of it", || bob.peer(&lab, "ann").unwrap()["profile"]["sends_bits_per_s"] == 1_000_000);
    let limited = read(format!("2 {words}"));
    // At one megabit a second they take 2.8 s, whatever else the machine does.
    assert!(limited.as_secs_f64() > free.as_secs_f64() + 1.5, "{limited:?} with the limit, {free:?} without");
    // A typo is not taken for a setting, and the previous settings still count.
    std::fs::write(ann.folder.join("config.toml"), "bandwith = 2\n").unwrap();
    patiently("the typo is noticed", || ann.log().contains("the settings stay as they were"));
    assert_eq!(ann.json(&lab, &["status"])["profile"]["sends_bits_per_s"], 1_000_000);
    std::fs::remove_file(ann.folder.join("config.toml")).unwrap();
    patiently("the limit is lifted", || bob.peer(&lab, "ann").unwrap()["profile"]["sends_bits_per_s"].is_null());
}

#[test]
fn models_are_listed_loaded_let_go_and_removed() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann"], "10.77.0");
    let cache = tempfile::tempdir().unwrap();
    let downloaded = cache.path().join("models--someone--tiny");
    let snapshot = downloaded.join("snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(downloaded.join("refs")).unwrap();
    std::fs::write(downloaded.join("refs/main"), "abc").unwrap();
    std::fs::write(snapshot.join("config.json"), "{}").unwrap();
    let mut ann = lab.host("ann", "");
    ann.environment = vec![("HF_HUB_CACHE", cache.path().to_owned())];
    ann.start(&lab);

    let listed = ann.run(&lab, &["models", "list"]);
    assert!(listed.contains(STARTER) && listed.contains("98.4 MB") && listed.contains("someone/tiny"), "{listed}");
    assert!(!listed.contains(" · loaded"));
    let loaded = ann.run(&lab, &["models", "load", STARTER]);
    assert!(loaded.starts_with("Loaded "), "{loaded}");
    assert!(ann.run(&lab, &["models", "list"]).contains(" · loaded"));
    // Beside it, the machine may be finding out how fast it is.
    patiently("only its worker is there", || common::children(ann.process()).len() == 1);

    // One that answers is not let go.
    let mut child = ann.command(&lab, &["chat", "--prompt", common::LONG, "--max-tokens", "800"]).spawn().unwrap();
    patiently("it answers", || ann.json(&lab, &["status"])["profile"]["sessions"] == 1);
    let (code, _, refusal) = ann.try_run(&lab, &["models", "unload", STARTER]);
    assert!(code == 1 && refusal.contains("is answering"), "{refusal}");
    child.kill().unwrap();
    child.wait().unwrap();
    patiently("it can be let go", || ann.try_run(&lab, &["models", "unload", STARTER]).0 == 0);
    patiently("its memory is free", || common::children(ann.process()).is_empty());
    patiently("nothing reads its texts", || common::text_workers(ann.process()).is_empty());

    let (code, _, refusal) = ann.try_run(&lab, &["models", "load", "someone/tiny"]);
    assert!(code == 1 && refusal.contains("error: "), "{refusal}");
    let (code, _, refusal) = ann.try_run(&lab, &["models", "remove", STARTER]);
    assert!(code == 1 && refusal.contains("built in"), "{refusal}");
    ann.run(&lab, &["models", "remove", "someone/tiny"]);
    assert!(!downloaded.exists() && cache.path().exists());
    let (code, _, refusal) = ann.try_run(&lab, &["models", "remove", "someone/tiny"]);
    assert!(code == 1 && refusal.contains("no model \"someone/tiny\""), "{refusal}");

    // One that was opened where it lies is only taken off the list.
    let own = ann.folder.join("own.gguf");
    std::fs::copy(std::env::var_os("HIVEMIND_STARTER").unwrap(), &own).unwrap();
    let own = own.to_str().unwrap();
    ann.run(&lab, &["models", "load", own]);
    assert!(ann.run(&lab, &["models", "list"]).contains(own));
    let removed = ann.run(&lab, &["models", "remove", own]);
    assert!(removed.contains("from the list. Its files stay"), "{removed}");
    assert!(!ann.run(&lab, &["models", "list"]).contains(own) && Path::new(own).exists());
    patiently("it is not in memory", || common::children(ann.process()).is_empty());
    let (code, _, refusal) = ann.try_run(&lab, &["models", "remove", own]);
    assert!(code == 1 && refusal.contains("not downloaded by HiveMind"), "{refusal}");
}

#[test]
fn a_model_in_memory_answers_while_another_is_loaded_and_a_node_that_ends_waits_for_neither() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann"], "10.77.0");
    let mut ann = lab.host("ann", "");
    ann.start(&lab);
    ann.run(&lab, &["models", "load", STARTER]);
    patiently("only its worker is there", || ann.workers().len() == 1);
    let first = ann.workers();
    // What answers is not freed for another.
    let mut long = ann.command(&lab, &["chat", "--prompt", common::LONG, "--max-tokens", "4000"]).spawn().unwrap();
    patiently("it answers", || ann.json(&lab, &["status"])["profile"]["sessions"] == 1);
    let another = ann.folder.join("another.gguf");
    std::fs::copy(std::env::var_os("HIVEMIND_STARTER").unwrap(), &another).unwrap();
    let mut load = ann.command(&lab, &["models", "load", another.to_str().unwrap()]).spawn().unwrap();
    let second = || ann.workers().into_iter().find(|worker| !first.contains(worker));
    patiently("another is loaded", || second().is_some());
    let second = second().unwrap().to_string();
    assert!(Command::new("kill").args(["-STOP", &second]).status().unwrap().success());
    patiently("it is said", || ann.json(&lab, &["status"])["loading"]["name"] == "another");

    let short = ann.json(&lab, &["chat", "--prompt", "What is the capital of France?", "--temperature", "0"]);
    assert_eq!(short["text"], "The capital of France is Paris.");
    let status = ann.json(&lab, &["status"]);
    assert_eq!(status["loading"]["name"], "another", "the question has waited for it");
    assert!(ann.run(&lab, &["models", "list"]).contains(" · loaded"));

    // Nobody waits for it any more: it is no longer on its way.
    load.kill().unwrap();
    load.wait().unwrap();
    patiently("it is cancelled", || ann.json(&lab, &["status"])["loading"].is_null());
    patiently("its worker is gone", || ann.workers() == first);

    let mut load = ann.command(&lab, &["models", "load", another.to_str().unwrap()]).spawn().unwrap();
    let second = || ann.workers().into_iter().find(|worker| !first.contains(worker));
    patiently("it is loaded once more", || second().is_some());
    assert!(Command::new("kill").args(["-STOP", &second().unwrap().to_string()]).status().unwrap().success());
    ann.signal("-TERM");
    ann.wait();
    load.wait().unwrap();
    long.wait().unwrap();
}

#[test]
fn conversations_are_listed_shown_exported_renamed_and_deleted() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann"], "10.77.0");
    let ann = lab.host("ann", "");
    std::fs::create_dir_all(&ann.folder).unwrap();
    let kept = Store::open(&ann.folder).unwrap();
    for (id, title, text) in [("3f2a-1", "Lisbon", "Plan a week"), ("3f2b-2", "Dates", "A regex for dates")] {
        let said = Message { role: Role::User, text: text.to_owned(), complete: true, ..Message::default() };
        let (id, title) = (id.to_owned(), title.to_owned());
        kept.import(&Conversation { id, title, messages: vec![said], ..Conversation::default() }).unwrap();
    }
    drop(kept);
    let mut ann = ann;
    ann.start(&lab);

    let run = |arguments: &[&str]| ann.run(&lab, &[&["conversations"], arguments].concat());
    assert_eq!(run(&["list"]).lines().count(), 2);
    assert_eq!(run(&["list", "REGEX"]), "3f2b-2  Dates\n");
    assert_eq!(run(&["show", "3f2a"]), "# Lisbon\n\n## You\n\nPlan a week\n");
    let file = ann.folder.join("out.md");
    let to = file.to_str().unwrap();
    assert_eq!(run(&["export", "3f2a", "--to", to]).trim(), to);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# Lisbon\n\n## You\n\nPlan a week\n");
    // Nothing is written over, and nothing is guessed.
    let refused = |arguments: &[&str], why: &str| {
        let (code, _, refusal) = ann.try_run(&lab, &[&["conversations"], arguments].concat());
        assert!(code == 1 && refusal.contains(why), "{refusal}");
    };
    refused(&["export", "3f2a", "--to", to], "cannot write");
    refused(&["show", "3f2"], "matches 2 conversations");
    refused(&["show", "9"], "no conversation matches");
    run(&["rename", "3f2a", "Porto"]);
    assert!(run(&["list"]).contains("Porto"));
    run(&["delete", "3f2a"]);
    assert_eq!(run(&["list"]), "3f2b-2  Dates\n");
}
