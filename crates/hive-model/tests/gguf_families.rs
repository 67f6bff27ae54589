//! The families that GGUF files hold: a folder's model written as llama.cpp's converter writes it has the same logits.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../../tests/common/converter.rs"]
mod converter;
#[path = "common/formula.rs"]
mod formula;

use std::path::Path;

use converter::Written;
use hive_model::{Compute, Shard, ShardOptions};
use hive_weights::ModelFiles;
use serde_json::Value;

/// Fixtures of `tests/oracle/families`, and what GGUF calls the architecture.
const FAMILIES: [(&str, &str); 22] = [
    ("llama", "llama"),
    ("mixtral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3_moe", "qwen3moe"),
    ("smollm3", "smollm3"),
    ("granite", "granite"),
    ("olmo2", "olmo2"),
    ("gemma3_text", "gemma3"),
    ("gemma3", "gemma3"),
    ("gpt_oss", "gpt-oss"),
    ("phi3", "phi3"),
    ("qwen3_5", "qwen35"),
    ("qwen3_5_moe", "qwen35moe"),
    ("qwen3_next", "qwen3next"),
    ("glm4_moe", "glm4moe"),
    ("deepseek_v3", "deepseek2"),
    ("glm4_moe_lite", "deepseek2"),
    ("ministral3", "mistral3"),
    ("mistral3", "mistral3"),
    ("gemma4_text", "gemma4"),
    ("gemma4", "gemma4"),
];

/// Architectures whose metadata are those of a Llama.
const LLAMA_LIKE: [&str; 7] = ["llama", "qwen2", "qwen3", "qwen3moe", "smollm3", "granite", "olmo2"];

/// Whether the format can say what a variant's configuration says.
fn can_be_said(architecture: &str, variant: &Value) -> bool {
    let whole = &variant["config"];
    let config = if whole["text_config"].is_object() { &whole["text_config"] } else { whole };
    let yarn = &config["rope_scaling"];
    let has_kinds = config["layer_types"].is_array();
    whole["quantization"].is_null()
        && match architecture {
            // Only the largest model has another.
            "gemma3" => config["query_pre_attn_scalar"] == config["head_dim"],
            // The shares of experts always sum to one, and every layer has experts.
            "qwen35moe" => config["norm_topk_prob"] != false,
            "qwen3next" => config["norm_topk_prob"] == true && config["decoder_sparse_step"] == 1,
            // Both numbers are one.
            "deepseek2" => yarn["mscale"] == yarn["mscale_all_dim"],
            "mistral3" => !has_kinds && config["rope_parameters"]["rope_type"] != "default",
            _ => true,
        }
}

/// The variants that the format can say, and the folder of each.
fn variants(family: &str, architecture: &str) -> Vec<(Value, tempfile::TempDir)> {
    let path = format!("{}/../../tests/oracle/families/{family}.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let variants = fixture["variants"].as_array().unwrap().iter();
    let with_folder = |variant: &Value| {
        let mut variant = variant.clone();
        // The format cannot say it; the models have it so.
        if architecture == "gpt-oss" && variant["config"]["rope_scaling"].is_object() {
            variant["config"]["rope_scaling"]["truncate"] = false.into();
        }
        // One architecture for all, with one epsilon.
        if family == "deepseek_v3" {
            variant["config"]["rms_norm_eps"] = 1e-6.into();
        }
        let folder = tempfile::tempdir().unwrap();
        formula::write(&variant, folder.path());
        (variant, folder)
    };
    // Of the others, the first is what all can say.
    let first = if LLAMA_LIKE.contains(&architecture) { 1 } else { usize::MAX };
    variants.filter(|variant| can_be_said(architecture, variant)).take(first).map(with_folder).collect()
}

/// The logits after a prompt that is longer than the windows.
fn logits(path: &Path, compute: Compute) -> Vec<f32> {
    let files = ModelFiles::open(path).unwrap_or_else(|error| panic!("{error}"));
    let layers = 0..files.config().layers;
    let mut shard = Shard::load(&files, &ShardOptions { layers, compute }, |_| ()).unwrap();
    shard.logits_of(&PROMPT).unwrap()
}

const PROMPT: [u32; 24] = [5, 17, 3, 44, 8, 29, 11, 2, 50, 37, 41, 7, 19, 23, 31, 1, 43, 47, 53, 59, 13, 6, 28, 33];

fn off(logits: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
    logits.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn a_gguf_file_of_every_architecture_has_the_logits_of_its_folder() {
    let mut others = Vec::new();
    for (family, architecture) in FAMILIES {
        let variants = variants(family, architecture);
        assert!(!variants.is_empty(), "{family}");
        for (variant, folder) in variants {
            let file = folder.path().join("model.gguf");
            converter::convert(folder.path(), &file, architecture, &variant["config"], Written::Single);
            for compute in [Compute::Plain, Compute::Fast] {
                let (ours, expected) = (logits(&file, compute), logits(folder.path(), compute));
                let name = &variant["name"];
                if ours != expected {
                    others.push(format!("{family}, {name}, {compute:?}: off by {}", off(&ours, &expected)));
                }
            }
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn experts_whose_gates_and_ups_are_one_tensor_have_the_same_logits() {
    for (family, architecture) in [("gemma4_text", "gemma4"), ("glm4_moe_lite", "deepseek2"), ("qwen3_moe", "qwen3moe")]
    {
        for (variant, folder) in variants(family, architecture) {
            let file = folder.path().join("model.gguf");
            converter::convert(folder.path(), &file, architecture, &variant["config"], Written::Joined);
            for compute in [Compute::Plain, Compute::Fast] {
                assert!(logits(&file, compute) == logits(folder.path(), compute), "{family}, {}", variant["name"]);
            }
        }
    }
}

#[test]
fn a_quantized_file_of_every_architecture_has_the_logits_of_the_same_numbers() {
    let mut others = Vec::new();
    for (family, architecture) in FAMILIES {
        let (variant, folder) = variants(family, architecture).remove(0);
        let [file, rounded] = ["model.gguf", "rounded.gguf"].map(|name| folder.path().join(name));
        for (to, written) in [(&file, Written::Q8_0), (&rounded, Written::Rounded)] {
            converter::convert(folder.path(), to, architecture, &variant["config"], written);
        }
        for compute in [Compute::Plain, Compute::Fast] {
            let off = off(&logits(&file, compute), &logits(&rounded, compute));
            if off > 1e-4 {
                others.push(format!("{family}, {compute:?}: off by {off}"));
            }
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn experts_in_four_bits_are_those_of_the_folder() {
    let path = format!("{}/../../tests/oracle/families/gpt_oss.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let variants = fixture["variants"].as_array().unwrap().iter();
    let of_floats: Vec<&Value> =
        variants.filter(|variant| variant["config"]["quantization"]["mode"] == "mxfp4").collect();
    assert!(!of_floats.is_empty());
    for variant in of_floats {
        let mut config = variant["config"].clone();
        if config["rope_scaling"].is_object() {
            config["rope_scaling"]["truncate"] = false.into();
        }
        let folder = tempfile::tempdir().unwrap();
        formula::write(variant, folder.path());
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let file = folder.path().join("model.gguf");
        converter::convert(folder.path(), &file, "gpt-oss", &config, Written::Single);
        for compute in [Compute::Plain, Compute::Fast] {
            let off = off(&logits(&file, compute), &logits(folder.path(), compute));
            assert!(off < 1e-5, "{}, {compute:?}: off by {off}", variant["name"]);
        }
    }
}
