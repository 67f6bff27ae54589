//! `hivemind models search`: with a running node, which says what fits, and without one.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::http::answer;
use common::loopback::Node;
use common::{finish, hivemind};
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The numbers of the starter model, as an owner's own entry.
const OWN: &str = r#"[[model]]
name = "Tiny"
family = "llama"
parameters = 134_515_008
layers = 30
hidden = 576
vocabulary = 49152
tied_embeddings = true
kv_bytes_per_token = 23_040
context = 8192
licence = "Apache-2.0"
good_at = ["small machines"]
variants = [{ repository = "someone/tiny-GGUF", quantization = "Q4_1", bits_per_weight = 5.9 }]
"#;

/// A cache with the starter model as `someone/tiny-GGUF`.
fn cache(home: &Path) -> PathBuf {
    let starter = std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model");
    let cache = home.join("cache");
    let folder = cache.join("models--someone--tiny-GGUF");
    let snapshot = folder.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
    std::fs::copy(starter, snapshot.join("tiny.Q4_1.gguf")).unwrap();
    cache
}

/// The variants of the model that is found first.
fn first(found: &Value) -> (&str, &Vec<Value>) {
    let model = &found["models"][0];
    (model["name"].as_str().unwrap_or_default(), model["variants"].as_array().unwrap())
}

#[test]
fn a_running_node_says_of_each_model_whether_it_fits_is_here_and_is_loaded() {
    let home = tempfile::tempdir().unwrap();
    let cache = cache(home.path());
    std::fs::create_dir_all(home.path().join("ann")).unwrap();
    std::fs::write(home.path().join("ann/catalogue.toml"), OWN).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hivemind"));
    command.env("HF_HUB_CACHE", &cache);
    let node = Node::start_by(command, home.path(), "ann", &["--memory", "2500MB"]);

    let found = node.json(&["models", "search", "qwen3", "0.6b"], None);
    let (name, variants) = first(&found);
    assert_eq!((name, &variants[0]["model"]), ("Qwen3 0.6B", &json!("mlx-community/Qwen3-0.6B-4bit")));
    let fits = variants[0]["fits"].as_array().unwrap();
    let verdicts: Vec<_> = fits.iter().map(|fit| (fit["context"].as_u64().unwrap(), &fit["fit"]["verdict"])).collect();
    assert_eq!(verdicts[0].1, "comfortable", "{fits:?}");
    // A whole context takes 40,960 × 28 × 8 KiB, which this machine does not share.
    assert_eq!((verdicts[2].0, verdicts[2].1), (40_960, &json!("needs_more")), "{fits:?}");
    assert_eq!(fits[0]["machines"], json!(["ann"]));
    assert!(fits[0]["decode_tokens_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{fits:?}");
    assert_eq!((&variants[0]["on_disk"], &variants[0]["loaded"]), (&json!(false), &json!(false)));

    let found = node.json(&["models", "search", "DeepSeek V3.1", "--context", "100"], None);
    let fits = first(&found).1[0]["fits"].as_array().unwrap();
    assert_eq!((fits.len(), &fits[0]["context"]), (1, &json!(100)));
    let missing = fits[0]["fit"]["bytes"].as_u64().unwrap();
    assert!((370..390).contains(&(missing / 1_000_000_000)), "{fits:?}");
    assert_eq!(fits[0]["fit"]["advice"], "add a second machine with 512 GB");

    // The owner's own entry, which is on the disk, and then in memory.
    let tiny = |node: &Node| {
        let found = node.json(&["models", "search", "tiny"], None);
        let variant = &first(&found).1[0];
        (variant["on_disk"] == true, variant["loaded"] == true)
    };
    assert_eq!(tiny(&node), (true, false));
    let (code, _, stderr) = node.run(&["models", "load", "someone/tiny-GGUF"], None);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(tiny(&node), (true, true));

    // What is no terminal gets plain lines.
    let (_, lines, _) = node.run(&["models", "search", "tiny"], None);
    assert!(lines.starts_with("Tiny · about 99.2 MB, Q4_1 · yes, up to 8,192 tokens · "), "{lines}");
    assert!(lines.ends_with(" · small machines · loaded · someone/tiny-GGUF\n"), "{lines}");

    // Other programs ask the same.
    let (status, body) = answer(&node.folder, "GET", "/hive/v1/catalogue?search=kimi&context=4096", &Value::Null);
    assert_eq!((status, &body["problem"]), (200, &Value::Null));
    assert!(first(&body).0.starts_with("Kimi"), "{body}");
    let (status, _) = answer(&node.folder, "GET", "/hive/v1/catalogue?serch=kimi", &Value::Null);
    assert_eq!(status, 400);
}

fn without_a_node(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = hivemind(arguments);
    command.env("HIVEMIND_DATA_DIR", folder);
    let output = finish(command, None);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn without_a_node_models_are_found_and_the_command_says_why_it_does_not_know_what_fits() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = without_a_node(home.path(), &["models", "search", "gemma", "26b"]);
    assert_eq!(code, 0, "{stderr}");
    let line =
        "Gemma 4 26B A4B · 15.6 GB, 4-bit · chat, reasoning, tools, languages · mlx-community/gemma-4-26b-a4b-it-4bit";
    assert_eq!(stdout.lines().next(), Some(line));
    assert!(stderr.contains("No node is running") && stderr.contains("hivemind node"), "{stderr}");

    let (code, stdout, stderr) = without_a_node(home.path(), &["models", "search", "--json"]);
    let all: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(all["models"].as_array().unwrap().len() >= 40);
    assert_eq!(first(&all).1[0]["fits"], json!([]));

    let (code, stdout, stderr) = without_a_node(home.path(), &["models", "search", "a", "horse"]);
    assert_eq!((code, stdout.as_str()), (0, "No model matches \"a horse\".\n"));
    assert!(stderr.contains("hivemind models get owner/name"), "{stderr}");

    // A damaged own file is named, and hides nothing.
    std::fs::write(home.path().join("catalogue.toml"), OWN.replace("layers", "layer")).unwrap();
    let (code, stdout, stderr) = without_a_node(home.path(), &["models", "search", "phi-4", "mini"]);
    assert!(code == 0 && stdout.starts_with("Phi-4 mini Instruct · "), "{stdout}");
    assert!(stderr.contains("catalogue.toml, line 5: unknown field `layer`"), "{stderr}");
}
