//! The families that GGUF files hold: a folder's model written as llama.cpp's converter writes it has the same logits.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "common/formula.rs"]
mod formula;

use std::path::Path;

use hive_model::{Compute, ModelConfig, ModelFiles, Shard, ShardOptions};
use safetensors::SafeTensors;
use serde_json::Value;

/// Fixtures of `tests/oracle/families`, and what GGUF calls the architecture.
const FAMILIES: [(&str, &str); 8] = [
    ("llama", "llama"),
    ("mixtral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3_moe", "qwen3moe"),
    ("smollm3", "smollm3"),
    ("granite", "granite"),
    ("olmo2", "olmo2"),
];

/// Of a layer: names in Hugging Face's files and in GGUF.
const PARTS: [(&str, &str); 19] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("mlp.switch_mlp.up_proj", "ffn_up_exps"),
    ("mlp.switch_mlp.down_proj", "ffn_down_exps"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("block_sparse_moe.switch_mlp.up_proj", "ffn_up_exps"),
    ("block_sparse_moe.switch_mlp.down_proj", "ffn_down_exps"),
    ("input_layernorm", "attn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

fn stored(name: &str, architecture: &str) -> String {
    let (base, suffix) = name.rsplit_once('.').unwrap();
    let base = match base {
        "model.embed_tokens" => "token_embd".to_owned(),
        "model.norm" => "output_norm".to_owned(),
        "lm_head" => "output".to_owned(),
        _ => {
            let (layer, part) = base.strip_prefix("model.layers.").unwrap().split_once('.').unwrap();
            let after = if architecture == "olmo2" { "post_attention_norm" } else { "ffn_norm" };
            let found = PARTS.iter().find(|(ours, _)| *ours == part).map(|(_, theirs)| *theirs);
            let part =
                found.unwrap_or_else(|| if part == "post_attention_layernorm" { after } else { panic!("{part}") });
            format!("blk.{layer}.{part}")
        }
    };
    format!("{base}.{suffix}")
}

/// As llama.cpp's converter does for some architectures: the rows of a head's halves alternate.
fn permuted(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row_bytes, half) = (bytes.len() / rows, rows / heads / 2);
    let row = |at: usize| {
        let (head, within) = (at / (2 * half), at % (2 * half));
        head * 2 * half + within % 2 * half + within / 2
    };
    (0..rows).flat_map(|at| &bytes[row(at) * row_bytes..(row(at) + 1) * row_bytes]).copied().collect()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn metadata(architecture: &str, config: &ModelConfig, json: &Value) -> Vec<Vec<u8>> {
    let number = |key: &str, value: usize| {
        [text(&format!("{architecture}.{key}")), 4u32.to_le_bytes().to_vec(), (value as u32).to_le_bytes().to_vec()]
            .concat()
    };
    let real = |key: &str, value: f32| {
        [text(&format!("{architecture}.{key}")), 6u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
    };
    let mut all = vec![
        [text("general.architecture"), 8u32.to_le_bytes().to_vec(), text(architecture)].concat(),
        number("block_count", config.layers),
        number("embedding_length", config.hidden),
        number("feed_forward_length", config.intermediate),
        number("attention.head_count", config.heads),
        number("attention.head_count_kv", config.kv_heads),
        number("attention.key_length", config.head_dim),
        number("vocab_size", config.vocabulary),
        number("context_length", config.max_context),
        real("attention.layer_norm_rms_epsilon", config.rms_eps),
        real("rope.freq_base", config.rope.theta),
    ];
    for (keys, key) in [
        (&["num_experts", "num_local_experts"][..], "expert_count"),
        (&["num_experts_per_tok"], "expert_used_count"),
        (&["moe_intermediate_size"], "expert_feed_forward_length"),
    ] {
        if let Some(value) = keys.iter().find_map(|key| json[*key].as_u64()) {
            all.push(number(key, value as usize));
        }
    }
    for (from, key) in [
        ("embedding_multiplier", "embedding_scale"),
        ("logits_scaling", "logit_scale"),
        ("attention_multiplier", "attention.scale"),
        ("residual_multiplier", "residual_scale"),
    ] {
        if let Some(value) = json[from].as_f64() {
            all.push(real(key, value as f32));
        }
    }
    all
}

/// Writes a folder of single-precision weights as a GGUF file.
fn convert(folder: &Path, to: &Path, architecture: &str, json: &Value) {
    let files = ModelFiles::open(folder).unwrap();
    let config = files.config();
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let weights: Vec<Vec<u8>> = entries
        .filter(|path| path.extension().is_some_and(|kind| kind == "safetensors"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let (mut infos, mut data, mut count) = (Vec::new(), Vec::<u8>::new(), 0u64);
    for file in &weights {
        for (name, view) in SafeTensors::deserialize(file).unwrap().tensors() {
            let heads = match name.rsplit('.').nth(1).unwrap() {
                _ if !["llama", "granite", "smollm3"].contains(&architecture) => None,
                "q_proj" => Some(config.heads),
                "k_proj" => Some(config.kv_heads),
                _ => None,
            };
            let bytes = match heads {
                Some(heads) => permuted(view.data(), view.shape()[0], heads),
                None => view.data().to_vec(),
            };
            infos.extend(text(&stored(&name, architecture)));
            infos.extend((view.shape().len() as u32).to_le_bytes());
            infos.extend(view.shape().iter().rev().flat_map(|dim| (*dim as u64).to_le_bytes()));
            infos.extend(0u32.to_le_bytes());
            infos.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
            count += 1;
        }
    }
    let metadata = metadata(architecture, config, json);
    let head =
        [&b"GGUF"[..], &3u32.to_le_bytes(), &count.to_le_bytes(), &(metadata.len() as u64).to_le_bytes()].concat();
    let mut file = [head, metadata.concat(), infos].concat();
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    std::fs::write(to, file).unwrap();
}

#[test]
fn a_gguf_file_of_every_architecture_has_the_logits_of_its_folder() {
    for (family, architecture) in FAMILIES {
        let path = format!("{}/../../tests/oracle/families/{family}.json", env!("CARGO_MANIFEST_DIR"));
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let variant = &fixture["variants"][0];
        assert!(variant["config"]["quantization"].is_null() && variant["config"]["rope_scaling"].is_null());
        let folder = tempfile::tempdir().unwrap();
        formula::write(variant, folder.path());
        let file = folder.path().join("model.gguf");
        convert(folder.path(), &file, architecture, &variant["config"]);
        for compute in [Compute::Plain, Compute::Fast] {
            let logits = |path: &Path| {
                let files = ModelFiles::open(path).unwrap();
                let layers = 0..files.config().layers;
                let mut shard = Shard::load(&files, &ShardOptions { layers, compute }, |_| ()).unwrap();
                shard.logits_of(&[5, 17, 3, 44, 8, 29, 11]).unwrap()
            };
            assert!(logits(&file) == logits(folder.path()), "{family}, {compute:?}");
        }
    }
}
