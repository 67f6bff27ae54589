//! A LoRA adapter that lies on one machine changes its answers on all machines that compute them, and no others'.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use common::lab::{Host, Lab, pair};
use common::patiently;
use serde_json::{Value, json};

const STARTER: &str = "SmolLM2-135M-Instruct.Q4_1";

/// The starter's widths.
const HIDDEN: usize = 576;
const KEYS: usize = 192;
const INTERMEDIATE: usize = 1536;
const RANK: usize = 4;

/// Writes an adapter for some layers, as mlx-lm does. Its numbers follow from the seed.
fn adapter(folder: PathBuf, seed: u32, hidden: usize) -> PathBuf {
    let mut tensors: Vec<(String, [usize; 2])> = Vec::new();
    for layer in [4, 15, 26] {
        for (module, columns, rows) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.v_proj", hidden, KEYS),
            ("mlp.down_proj", INTERMEDIATE, hidden),
        ] {
            let name = |part: &str| format!("model.layers.{layer}.{module}.{part}");
            tensors.extend([(name("lora_a"), [columns, RANK]), (name("lora_b"), [RANK, rows])]);
        }
    }
    let (mut header, mut data, mut state) = (serde_json::Map::new(), Vec::new(), seed);
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape[0] * shape[1] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend((number * 0.2).to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("adapters.safetensors"), file).unwrap();
    let config = json!({ "fine_tune_type": "lora", "lora_parameters": { "rank": RANK, "scale": 2.0, "dropout": 0.0 } });
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    folder
}

fn alias(host: &Host, lab: &Lab, name: &str, folder: &Path) -> String {
    host.run(lab, &["models", "alias", name, STARTER, "--adapter", folder.to_str().unwrap()])
}

fn asked(host: &Host, lab: &Lab, model: &str, stages: &str) -> Child {
    let arguments = ["chat", model, "--prompt", common::LONG, "--max-tokens", "120", "--stages", stages, "--json"];
    host.command(lab, &arguments).spawn().unwrap()
}

#[track_caller]
fn whole(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_answer_with_an_adapter_is_the_same_on_any_machines_and_goes_on_when_one_is_lost() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob", "cat"], "10.77.0");
    let [ann, bob, cat] = ["ann", "bob", "cat"].map(|name| lab.node(name, ""));
    for (a, b) in [(&ann, &bob), (&ann, &cat), (&bob, &cat)] {
        pair(&lab, a, b);
    }
    let folder = adapter(lab.scratch().join("tuned"), 7, HIDDEN);
    let said = alias(&ann, &lab, "tuned", &folder);
    assert_eq!(said.trim(), format!("tuned is {STARTER} with the adapter {} from now on.", folder.display()));
    let plain = whole(asked(&ann, &lab, STARTER, "1"));
    let alone = whole(asked(&ann, &lab, "tuned", "1"));
    assert_ne!(alone["tokens"], plain["tokens"], "the adapter changes nothing");
    // Beside an answer without it, on three machines of which two do not have its files.
    let (tuned, beside) = (asked(&ann, &lab, "tuned", "3"), asked(&ann, &lab, STARTER, "3"));
    let (tuned, beside) = (whole(tuned), whole(beside));
    assert_eq!(tuned["stages"].as_array().unwrap().len(), 3);
    assert_eq!((&tuned["tokens"], &beside["tokens"]), (&alone["tokens"], &plain["tokens"]));
    // A new worker gets it again.
    let child = asked(&ann, &lab, "tuned", "3");
    let answered = || ann.json(&lab, &["status"])["answered_tokens"].as_u64().unwrap();
    let before = answered();
    patiently("an answer comes", || answered() >= before + 10);
    for worker in bob.workers() {
        assert!(Command::new("kill").args(["-KILL", &worker.to_string()]).status().unwrap().success());
    }
    assert_eq!(whole(child)["tokens"], alone["tokens"]);
    // Another adapter in its place counts for the next answer.
    adapter(folder.clone(), 8, HIDDEN);
    let other = whole(asked(&ann, &lab, "tuned", "3"));
    assert!(other["tokens"] != alone["tokens"] && other["tokens"] != plain["tokens"]);
    // Another name of that name has the adapter, too.
    ann.run(&lab, &["models", "alias", "also-tuned", "tuned"]);
    assert_eq!(whole(asked(&ann, &lab, "also-tuned", "3"))["tokens"], other["tokens"]);
    let aliases = ann.json(&lab, &["models", "alias"])["aliases"].clone();
    let expected = |name: &str| json!({ "alias": name, "model": STARTER, "adapter": folder });
    assert_eq!(aliases, json!([expected("also-tuned"), expected("tuned")]));
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused_in_a_sentence_and_the_model_goes_on() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann"], "10.77.0");
    let ann = lab.node("ann", "");
    let scratch = lab.scratch();
    let empty = scratch.join("empty");
    std::fs::create_dir(&empty).unwrap();
    for folder in [empty.to_str().unwrap(), "/nothing/here", "nobody/nothing"] {
        let (code, _, why) = ann.try_run(&lab, &["models", "alias", "tuned", STARTER, "--adapter", folder]);
        assert!(code == 1 && why.contains(&format!("{folder} holds no adapter; expected a folder with")), "{why}");
    }
    let wide = adapter(scratch.join("wide"), 7, HIDDEN + 64);
    let dora = adapter(scratch.join("dora"), 7, HIDDEN);
    std::fs::write(dora.join("adapter_config.json"), r#"{ "fine_tune_type": "dora", "lora_parameters": {} }"#).unwrap();
    let cut = adapter(scratch.join("cut"), 7, HIDDEN);
    let file = cut.join("adapters.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    for (folder, words) in [
        (&wide, "has 1536 inputs and 640 outputs, this model's has 1536 inputs and 576 outputs"),
        (&dora, "the adapter uses DoRA; only LoRA"),
        (&cut, "the adapter's safetensors file is not valid"),
    ] {
        let folder = folder.to_str().unwrap();
        let (code, _, why) = ann.try_run(&lab, &["models", "alias", "tuned", STARTER, "--adapter", folder]);
        assert!(code == 1 && why.contains(words), "{why}");
    }
    // Its files may change later.
    let folder = adapter(scratch.join("good"), 7, HIDDEN);
    alias(&ann, &lab, "tuned", &folder);
    std::fs::rename(wide.join("adapters.safetensors"), folder.join("adapters.safetensors")).unwrap();
    let (code, _, why) = ann.try_run(&lab, &["chat", "tuned", "--prompt", "Hello.", "--max-tokens", "4"]);
    assert!(code == 1 && why.contains("was made for another model"), "{why}");
    std::fs::remove_dir_all(&folder).unwrap();
    let (code, _, why) = ann.try_run(&lab, &["chat", "tuned", "--prompt", "Hello.", "--max-tokens", "4"]);
    assert!(code == 1 && why.contains("holds no adapter"), "{why}");
    ann.run(&lab, &["chat", STARTER, "--prompt", "Hello.", "--max-tokens", "4"]);
}
