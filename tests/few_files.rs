//! A node that may open few files says so where it must stop, and continues when it may open more.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::loopback::Node;

const ASK: [&str; 3] = ["chat", "--prompt", "What is the capital of France?"];

/// A node in a process with these limits on open files: now, and at most.
fn node(home: &std::path::Path, now: u32, most: u32) -> Node {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={now}:{most}")).arg(env!("CARGO_BIN_EXE_hivemind"));
    Node::start_by(command, home, "ann", &[])
}

#[test]
fn a_low_limit_that_may_be_raised_is() {
    let home = tempfile::tempdir().unwrap();
    let ann = node(home.path(), 24, 4096);
    assert_eq!(ann.json(&ASK, None)["text"], "The capital of France is Paris.");
}

#[test]
fn a_node_with_few_files_says_what_it_lacks_and_answers_when_it_has_them() {
    let home = tempfile::tempdir().unwrap();
    let ann = node(home.path(), 4096, 4096);
    let allow = |files: u32| {
        let process = ann.process.id().to_string();
        let limit = Command::new("prlimit").arg(format!("--nofile={files}:4096")).args(["--pid", &process]).status();
        assert!(limit.unwrap().success());
    };
    let measured = || ann.folder.join("speed.json").exists() && common::children(ann.process.id()).is_empty();
    common::patiently("its speed is measured", measured);
    // Four are free: a command can connect, and a worker has too few for its pipes.
    let open = std::fs::read_dir(format!("/proc/{}/fd", ann.process.id())).unwrap().flatten();
    let open: Vec<u32> = open.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    let free = (0..4096).filter(|number| !open.contains(number));
    allow(free.take(4).last().unwrap() + 1);
    ann.refused(&ASK, None, "Too many open files (os error 24); close other programs");
    // Work that needs no more files continues.
    assert_eq!(ann.run(&["status"], None).0, 0);
    allow(4096);
    assert_eq!(ann.json(&ASK, None)["text"], "The capital of France is Paris.");
}
