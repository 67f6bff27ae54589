//! The examples in the crates' documentation do what they say.

#![allow(clippy::unwrap_used)]

use std::process::Command;

/// What an example prints. Cargo builds examples with the tests, into a folder beside theirs.
fn output(name: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().with_file_name("examples").join(name);
    assert!(example.exists(), "{} is not built: test the whole workspace", example.display());
    let output = Command::new(example).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn two_endpoints_pair_and_send_a_frame() {
    let said = output("pair_and_send");
    assert!(said.contains("a frame of 1 × 3 numbers arrived"), "{said}");
}

#[test]
fn a_plan_gives_its_reasons() {
    let said = output("choose");
    assert!(said.contains("Too big for any one machine."), "{said}");
}

#[test]
fn a_model_cut_in_two_computes_a_token() {
    let said = output("split");
    assert!(said.contains("shard 0 passes 5 hidden states"), "{said}");
    assert!(said.contains("The capital of France is Paris"), "{said}");
}

#[test]
fn a_local_swarm_answers() {
    let said = output("local_swarm");
    assert!(said.contains("stage 3: layers") && said.contains("Paris"), "{said}");
}
