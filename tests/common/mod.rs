//! Runs the real executable, and makes sure that nothing of it is left.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod gguf;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod loopback;
pub(crate) mod timeout;

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use timeout::TEST_TIMEOUT;
pub(crate) use timeout::patiently;

/// Answered at length by the starter model, if it takes its most certain words: words that are sampled may be few.
pub(crate) const LONG: &str = "Write a very long story about bees.";

/// What a developer's environment may hold and a test must not see.
const SETTINGS: [&str; 19] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "HIVEMIND_ALLOW_HOST",
    "HIVEMIND_ALLOW_ORIGIN",
    "HIVEMIND_API",
    "HIVEMIND_BIND",
    "HIVEMIND_COMPUTE",
    "HIVEMIND_DATA_DIR",
    "HIVEMIND_KEEP_PROMPTS_HERE",
    "HIVEMIND_LAN_ONLY",
    "HIVEMIND_MEMORY",
    "HIVEMIND_NAME",
    "HIVEMIND_NO_HISTORY",
    "HIVEMIND_NO_SHARE",
    "HIVEMIND_RELAY",
    "HIVEMIND_THREADS",
    "NO_COLOR",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// Takes this machine's settings from a command, and its downloaded models, unless it has a model cache of its own.
pub(crate) fn of_nobody(command: &mut Command) {
    for setting in SETTINGS {
        command.env_remove(setting);
    }
    if command.get_envs().all(|(name, _)| name != "HF_HUB_CACHE") {
        command.env("HF_HUB_CACHE", "/nonexistent/models");
    }
    // Nothing that a test runs asks the real hub.
    if command.get_envs().all(|(name, _)| name != "HF_ENDPOINT") {
        command.env("HF_HUB_OFFLINE", "1");
    }
}

/// The command with the arguments given, without anything of this machine's settings, and without its node.
pub(crate) fn hivemind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hivemind"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    of_nobody(&mut command);
    command.env("HIVEMIND_DATA_DIR", "/nonexistent/hivemind");
    command
}

/// The shard workers that a node has started. Any of its threads may have.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    workers(parent, "hivemind-shard")
}

/// The text workers that a node has started.
pub(crate) fn text_workers(parent: u32) -> Vec<u32> {
    workers(parent, "hivemind-text")
}

fn workers(parent: u32, name: &str) -> Vec<u32> {
    let output = Command::new("pgrep").args(["-f", name, "-P", &parent.to_string()]).output().expect("pgrep runs");
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.parse().ok()).collect()
}

/// Runs to the end, with `input` as standard input where there is one.
#[track_caller]
pub(crate) fn finish(mut command: Command, input: Option<&[u8]>) -> Output {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().expect("the executable starts");
    if let Some(input) = input {
        // A command that refuses its arguments may have ended before it reads.
        let _ = child.stdin.take().expect("standard input is a pipe").write_all(input);
    }
    // Read meanwhile: a pipe holds 64 KiB, and whoever writes more waits.
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    wait(&mut child);
    let status = child.wait().expect("its state is known");
    let all = |reading: JoinHandle<Vec<u8>>| reading.join().expect("its output can be read");
    Output { status, stdout: all(stdout), stderr: all(stderr) }
}

/// Reads to the end what there is to read.
fn read(output: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        output.map_or(Ok(0), |mut output| output.read_to_end(&mut all)).expect("its output can be read");
        all
    })
}

#[track_caller]
pub(crate) fn wait(child: &mut Child) {
    let started = Instant::now();
    while child.try_wait().expect("its state is known").is_none() {
        if started.elapsed() > TEST_TIMEOUT {
            let _ = child.kill();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs to the end and gives (exit code, standard output, standard error).
#[track_caller]
pub(crate) fn run(arguments: &[&str], input: Option<&[u8]>) -> (i32, String, String) {
    let output = finish(hivemind(arguments), input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
