//! `hivemind models get` against a stand-in hub: a model by name, stopped and resumed, and then chatted with.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    dead_code,
    reason = "the stand-in hub has more faults than are used here"
)]

mod common;
#[path = "../crates/hive-store/tests/hub/stand_in.rs"]
mod stand_in;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use common::{finish, hivemind};
use serde_json::Value;
use stand_in::{Fault, Repo, StandIn};

fn starter() -> Bytes {
    std::fs::read(std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model")).unwrap().into()
}

/// A command that finds its models on this hub and keeps them in this folder.
fn with_hub(hub: &StandIn, home: &Path, arguments: &[&str]) -> Command {
    let mut command = hivemind(arguments);
    command.env("HF_ENDPOINT", hub.url()).env("HF_HUB_CACHE", home.join("cache"));
    for setting in ["HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(setting);
    }
    command.env("HF_TOKEN_PATH", home.join("no token")).env("HIVEMIND_DATA_DIR", home.join("data"));
    command
}

fn run(command: Command) -> (i32, String, String) {
    let output = finish(command, None);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_by_name_goes_on_after_it_was_killed_and_answers() {
    let home = tempfile::tempdir().unwrap();
    let weights = starter();
    let size = weights.len() as u64;
    let hub = StandIn::start(Repo::new(&[("starter-Q4_1.gguf", weights), ("README.md", Bytes::from("# Hello"))]));
    hub.faults(|seen| seen.at_storage.then_some(Fault::Slow(Duration::from_millis(2))));
    let get = ["models", "get", "owner/name", "--json"];
    let mut child = with_hub(&hub, home.path(), &get).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let done = |line: &str| serde_json::from_str::<Value>(line).unwrap()["bytes_done"].as_u64().unwrap_or(0);
    assert!(lines.any(|line| done(&line.unwrap()) > 3_000_000), "it never got that far");
    child.kill().unwrap();
    child.wait().unwrap();

    hub.faults(|_| None);
    let (code, stdout, stderr) = run(with_hub(&hub, home.path(), &get));
    assert_eq!(code, 0, "{stderr}");
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((last["model"].as_str(), last["bytes"].as_u64()), (Some("owner/name"), Some(size)));
    assert!(hub.sent() <= size + (1 << 20), "{} bytes were sent of {size}", hub.sent());
    let answer =
        run(with_hub(&hub, home.path(), &["chat", "owner/name", "--prompt", "What is the capital of France?"]));
    assert_eq!((answer.0, answer.1.as_str()), (0, "The capital of France is Paris.\n"), "{}", answer.2);

    // What is there is not fetched again.
    let sent = hub.sent();
    let (code, stdout, stderr) = run(with_hub(&hub, home.path(), &["models", "get", "owner/name"]));
    assert!(code == 0 && stdout.contains("hivemind chat owner/name"), "{stdout}{stderr}");
    assert_eq!(hub.sent(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_says_why_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let hub = StandIn::start(Repo::new(&[("a-Q4_K_M.gguf", Bytes::from("x")), ("a-Q8_0.gguf", Bytes::from("y"))]));
    for (model, code, words) in [
        ("owner/none", 1, &["owner/none", "spelling"][..]),
        ("owner/name", 1, &["owner/name:Q4_K_M", "owner/name:Q8_0"]),
        ("owner/name:Q5_0", 1, &["Q5_0", "owner/name:Q8_0"]),
        ("not a name", 2, &["not a name"]),
    ] {
        let (found, _, stderr) = run(with_hub(&hub, home.path(), &["models", "get", model]));
        assert_eq!(found, code, "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{model}: {stderr}");
    }
    let mut offline = with_hub(&hub, home.path(), &["models", "get", "owner/name:Q8_0"]);
    offline.env("HF_HUB_OFFLINE", "1");
    let (code, _, stderr) = run(offline);
    assert!(code == 1 && stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
    // A machine that is to stay on its network asks nobody.
    let asked = hub.seen().len();
    let mut command = with_hub(&hub, home.path(), &["models", "get", "owner/name:Q8_0"]);
    command.env("HIVEMIND_LAN_ONLY", "true");
    let (code, _, stderr) = run(command);
    assert!(code == 1 && stderr.contains("local network only"), "{stderr}");
    std::fs::create_dir_all(home.path().join("data")).unwrap();
    std::fs::write(home.path().join("data/config.toml"), "lan_only = true\n").unwrap();
    let (code, _, stderr) = run(with_hub(&hub, home.path(), &["models", "get", "owner/name:Q8_0"]));
    assert!(code == 1 && stderr.contains("local network only") && stderr.contains("lan_only = false"), "{stderr}");
    assert_eq!(hub.seen().len(), asked);
}
