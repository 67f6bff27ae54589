//! Models unlike Llama through the whole product. One has a state that cannot be shortened: the same answer on any number
//! of stages, with machines that die on the way, and in a conversation that continues from a checkpoint. One may not be
//! cut
//! everywhere.
//!
//! They are a tiny Qwen 3.5 and a tiny Gemma 4 of random numbers, so they say nothing; that they say what mlx-lm would is
//! tested where their layers are (`crates/hive-model/tests/families.rs`).

#![allow(clippy::unwrap_used, unreachable_pub)]

mod common;
#[path = "../crates/hive-model/tests/common/formula.rs"]
mod formula;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use common::lab::{Lab, pair};
use common::{children, hivemind, run};
use serde_json::{Value, json};

const BYTES: usize = 256;
const OPENS: usize = 256;
const CLOSES: usize = 257;
const VOCABULARY: usize = 272;

/// What byte-level tokenizers write for a byte.
fn letter(byte: usize) -> char {
    let visible = |byte: usize| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let hidden_before = (0..byte).filter(|byte| !visible(*byte)).count();
    char::from_u32(if visible(byte) { byte } else { BYTES + hidden_before } as u32).unwrap()
}

/// A tokenizer with a token for each byte, and a template that opens an answer with words that the next turn leaves out.
fn write_texts(folder: &Path) {
    let vocabulary: serde_json::Map<String, Value> =
        (0..BYTES).map(|byte| (letter(byte).to_string(), byte.into())).collect();
    let special = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false })
    };
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(OPENS, "<|im_start|>"), special(CLOSES, "<|im_end|>")],
        "pre_tokenizer": bytes, "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] }
    });
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\nThink:{% endif %}";
    let config = json!({ "eos_token": "<|im_end|>", "chat_template": template });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// A folder with a tiny Qwen 3.5, of three layers with a recurrent state and one that attends.
fn model(folder: &Path) -> PathBuf {
    written(folder, "qwen3_5", "unquantized")
}

/// A folder with a variant of a family, for the vocabulary here.
fn written(folder: &Path, family: &str, name: &str) -> PathBuf {
    let fixture = format!("{}/../../tests/oracle/families/{family}.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    let variants = fixture["variants"].as_array().unwrap();
    let mut variant = variants.iter().find(|variant| variant["name"] == name).unwrap().clone();
    let config = &mut variant["config"];
    let config = if config["text_config"].is_object() { &mut config["text_config"] } else { config };
    for key in ["vocab_size", "vocab_size_per_layer_input"] {
        if config[key].is_u64() {
            config[key] = VOCABULARY.into();
        }
    }
    for tensor in variant["tensors"].as_array_mut().unwrap() {
        let name = tensor[0].as_str().unwrap();
        if name.contains("embed_tokens") || name.contains("lm_head") {
            tensor[1][0] = VOCABULARY.into();
        }
    }
    let folder = folder.join("tiny");
    std::fs::create_dir_all(&folder).unwrap();
    formula::write(&variant, &folder);
    write_texts(&folder);
    folder
}

fn question(model: &Path, stages: &str, tokens: &str) -> Command {
    let prompt = "A question of some length, so that a checkpoint lies within it.";
    let mut command = hivemind(&["chat", model.to_str().unwrap(), "--stages", stages, "--prompt", prompt]);
    command.args(["--max-tokens", tokens]);
    command
}

fn ask(model: &Path, stages: &str, tokens: &str) -> Child {
    question(model, stages, tokens).arg("--json").spawn().unwrap()
}

fn answer(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_recurrent_model_answers_the_same_on_any_number_of_stages() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    let whole = answer(ask(&model, "1", "200"));
    assert_eq!(whole["completion_tokens"], 200, "{whole}");
    for stages in ["2", "3", "4"] {
        assert_eq!(answer(ask(&model, stages, "200"))["tokens"], whole["tokens"], "{stages} stages");
    }
}

#[test]
fn a_recurrent_models_answer_goes_on_when_workers_die() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    let undisturbed = answer(ask(&model, "3", "3000"));
    let words = undisturbed["text"].as_str().unwrap();
    let mut child = question(&model, "3", "3000").spawn().unwrap();
    let (mut output, mut said) = (child.stdout.take().unwrap(), Vec::new());
    // At its first word, and after a quarter; each time another stage.
    for bytes in [1, words.len() / 4] {
        let more = (bytes - said.len()) as u64;
        (&mut output).take(more).read_to_end(&mut said).unwrap();
        let mut workers = children(child.id());
        // The one that started first, so that none is killed that took over.
        workers.sort_unstable();
        assert_eq!((said.len(), workers.len()), (bytes, 3), "the answer was over before a worker could be killed");
        assert!(Command::new("kill").args(["-KILL", &workers[0].to_string()]).status().unwrap().success());
    }
    output.read_to_end(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("continuing without it").count(), 2, "{stderr}");
    // A byte is a token, so other tokens would be other words.
    assert_eq!(String::from_utf8(said).unwrap().trim_end_matches('\n'), words.trim_end_matches('\n'));
}

#[test]
fn a_conversation_with_a_recurrent_model_goes_on_from_a_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    let input = b"A first question of some length, so that a checkpoint lies within it.\nAnd a second one.\n";
    let both = |stages: &str| -> Vec<Value> {
        let arguments =
            ["chat", model.to_str().unwrap(), "--lines", "--stages", stages, "--max-tokens", "60", "--json"];
        let (code, stdout, stderr) = run(&arguments, Some(input));
        assert_eq!(code, 0, "{stderr}");
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let answers = both("1");
    let cached = answers[1]["cached_tokens"].as_u64().unwrap();
    let first = answers[0]["prompt_tokens"].as_u64().unwrap();
    // The words that opened the first answer are gone from the second prompt: it continues from shortly before them.
    assert!(cached + 16 >= first - 6 && cached < first, "{cached} of {first} tokens: {}", answers[1]);
    for stages in ["2", "3"] {
        let again = both(stages);
        assert_eq!((&again[1]["tokens"], &again[1]["cached_tokens"]), (&answers[1]["tokens"], &json!(cached)));
    }
}

#[test]
fn a_model_that_may_not_be_cut_everywhere_is_cut_where_it_may() {
    let home = tempfile::tempdir().unwrap();
    // Its last layers use the keys and values of earlier ones, so one cut is left; each layer has an input of its own.
    let model = written(home.path(), "gemma4_text", "small, unquantized");
    let (whole, cut) = (answer(ask(&model, "1", "100")), answer(ask(&model, "2", "100")));
    assert_eq!(whole["completion_tokens"], 100, "{whole}");
    assert_eq!(cut["tokens"], whole["tokens"]);
    let layers: Vec<_> = cut["stages"].as_array().unwrap().iter().map(|stage| stage["layers"].clone()).collect();
    assert_eq!(layers, [json!([0, 1]), json!([1, 5])]);
    let (code, _, stderr) = run(&["chat", model.to_str().unwrap(), "--stages", "3", "--prompt", "x"], None);
    assert!(code == 2 && stderr.contains("at most 2 stages are possible"), "{stderr}");
}

#[test]
fn a_model_in_single_precision_is_quantized_as_it_is_loaded_on_every_machine() {
    let mut lab = Lab::new();
    lab.network("switch", &["ann", "bob"], "10.77.0");
    let [ann, bob] = ["ann", "bob"].map(|name| lab.node(name, ""));
    pair(&lab, &ann, &bob);
    let model = written(&lab.scratch(), "qwen3", "unquantized, tied");
    let small = lab.scratch().join("small");
    let [model, small] = [&model, &small].map(|path| path.to_str().unwrap());
    ann.run(&lab, &["models", "quantize", model, "--bits", "4", "--group-size", "64", "--out", small]);
    let asked = |model: &str, stages: &str| {
        ann.json(&lab, &["chat", model, "--prompt", "A question.", "--max-tokens", "60", "--stages", stages])["tokens"]
            .clone()
    };
    let planned = || -> u64 {
        let plan = ann.json(&lab, &["plan", model, "--stages", "1"]);
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["weight_bytes"].as_u64().unwrap()).sum()
    };
    let (stored, stored_bytes) = (asked(model, "1"), planned());
    let quantized = asked(small, "1");
    assert_ne!(stored, quantized);
    std::fs::write(ann.folder.join("config.toml"), "quantize_at_load = 4\n").unwrap();
    // It counts for models that are loaded from then on.
    common::patiently("the setting counts", || planned() < stored_bytes);
    for stages in ["1", "2"] {
        assert_eq!(asked(model, stages), quantized, "on {stages}");
    }
    // What is quantized already stays as it is.
    assert_eq!(asked(small, "2"), quantized);
    std::fs::write(ann.folder.join("config.toml"), "quantize_at_load = 5\n").unwrap();
    let (code, _, why) = ann.try_run(&lab, &["models", "get", "no/where"]);
    assert!(code != 0 && why.contains("5 bits per weight, instead of one of [4, 6, 8]"), "{why}");
}
