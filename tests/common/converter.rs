//! A folder's model as llama.cpp's converter writes it: its names, its metadata, and the numbers and orders that it
//! changes. Written from its description, not from what is tested.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use hive_weights::ModelFiles;
use hive_weights::weights::Matrix;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

#[path = "gguf_file.rs"]
mod gguf_file;
#[path = "gguf_metadata.rs"]
mod gguf_metadata;

use gguf_file::{F32, GgufFile, MXFP4, Q8_0, f32_bytes, mxfp4, q8_0, rounded};
use gguf_metadata::{factors, metadata};

/// Of a layer: names in Hugging Face's files and in GGUF.
const PARTS: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.sinks", "attn_sinks.weight"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("self_attn.embed_q", "attn_k_b"),
    ("self_attn.unembed_out", "attn_v_b"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("linear_attn.A_log", "ssm_a"),
    ("linear_attn.dt_bias", "ssm_dt.bias"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("mlp.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("mlp.switch_mlp.up_proj", "ffn_up_exps"),
    ("mlp.switch_mlp.down_proj", "ffn_down_exps"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("block_sparse_moe.switch_mlp.up_proj", "ffn_up_exps"),
    ("block_sparse_moe.switch_mlp.down_proj", "ffn_down_exps"),
    ("router.proj", "ffn_gate_inp"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
    ("experts.switch_glu.gate_proj", "ffn_gate_exps"),
    ("experts.switch_glu.up_proj", "ffn_up_exps"),
    ("experts.switch_glu.down_proj", "ffn_down_exps"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("layer_scalar", "layer_output_scale.weight"),
    ("input_layernorm", "attn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
];
/// Architectures that call a norm after attention by its place; others by what follows.
const NAMED_AFTER_ATTENTION: [&str; 8] =
    ["gpt-oss", "qwen35", "qwen35moe", "qwen3next", "glm4moe", "olmo2", "gemma3", "gemma4"];
const OUTER: &[(&str, &str)] = &[
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
];
/// What models have beside the text's part.
const OTHERS: [&str; 6] = ["vision", "multi_modal", "mtp.", "audio", "embed_", "visual"];

fn stored(name: &str, architecture: &str) -> String {
    let after_attention =
        if NAMED_AFTER_ATTENTION.contains(&architecture) { "post_attention_norm" } else { "ffn_norm" };
    let find = |part: &str| match part {
        "post_attention_layernorm" => Some(after_attention),
        _ => PARTS.iter().find(|(ours, _)| *ours == part).map(|(_, theirs)| *theirs),
    };
    let (base, suffix) = name.rsplit_once('.').unwrap();
    let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        let theirs = OUTER.iter().find(|(ours, _)| *ours == base).unwrap_or_else(|| panic!("{name}")).1;
        return format!("{theirs}.{suffix}");
    };
    if let Some(whole) = find(part) {
        return format!("blk.{layer}.{whole}");
    }
    let (part, suffix) = part.rsplit_once('.').unwrap();
    // Of a layer that predicts further tokens.
    let theirs = find(part).map_or_else(|| format!("nextn.{part}"), str::to_owned);
    format!("blk.{layer}.{theirs}.{suffix}")
}

/// A tensor on the way: numbers, or codes of 4-bit floats and their scales.
struct Tensor {
    shape: Vec<usize>,
    numbers: Vec<f32>,
    codes: Option<[Vec<u8>; 2]>,
}

impl Tensor {
    fn plain(shape: &[usize], numbers: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), numbers, codes: None }
    }

    /// Rows in another order: the row that belongs at each place.
    fn with_rows(&mut self, rows: &[usize]) {
        let width = self.numbers.len() / rows.len();
        self.numbers = rows.iter().flat_map(|row| &self.numbers[row * width..(row + 1) * width]).copied().collect();
    }

    fn part(&self, rows: impl Iterator<Item = usize>) -> Self {
        let width = self.numbers.len() / self.shape[0];
        let rows: Vec<usize> = rows.collect();
        let numbers = rows.iter().flat_map(|row| &self.numbers[row * width..(row + 1) * width]).copied().collect();
        Self::plain(&[&[rows.len()], &self.shape[1..]].concat(), numbers)
    }
}

/// The folder's tensors by name, without the parts that are not the text's. Affine numbers become plain.
fn tensors(folder: &Path) -> BTreeMap<String, Tensor> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<Vec<u8>> = entries
        .filter(|path| path.extension().is_some_and(|kind| kind == "safetensors"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let mut raw = BTreeMap::new();
    for file in &files {
        for (name, view) in SafeTensors::deserialize(file).unwrap().tensors() {
            let name = name.strip_prefix("language_model.").unwrap_or(&name).to_owned();
            raw.insert(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    let weights = ModelFiles::open(folder).unwrap();
    let mut out = BTreeMap::new();
    for (name, (kind, shape, bytes)) in &raw {
        let is_scale = ["scales", "biases"].iter().any(|part| name.ends_with(part));
        if is_scale || OTHERS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let numbers = |bytes: &[u8]| {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>()
        };
        let base = name.strip_suffix(".weight").unwrap_or(name);
        let tensor = match (kind, raw.get(&format!("{base}.scales"))) {
            (Dtype::F32, _) => Tensor::plain(shape, numbers(bytes)),
            (_, Some((Dtype::U8, _, scales))) => {
                let (columns, rows) = shape.split_last().unwrap();
                let shape = [rows, &[columns * 8]].concat();
                Tensor { shape, numbers: Vec::new(), codes: Some([bytes.clone(), scales.clone()]) }
            }
            _ => {
                let columns = shape[1] * 4;
                let Matrix::Quantized(matrix) = weights.weights().matrix(base, shape[0], columns).unwrap() else {
                    panic!()
                };
                Tensor::plain(&[shape[0], columns], (0..shape[0]).flat_map(|row| matrix.row(row)).collect())
            }
        };
        out.insert(name.clone(), tensor);
    }
    out
}

/// How gated delta nets are stored: value heads by their place, or with two matrices taken apart.
fn delta(tensors: &mut BTreeMap<String, Tensor>, config: &Value, architecture: &str) {
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let (keys, values) = (number("linear_num_key_heads"), number("linear_num_value_heads"));
    let (key_dim, value_dim) = (number("linear_key_head_dim"), number("linear_value_head_dim"));
    let each = values / keys;
    // The checkpoint's value head at each place.
    let heads: Vec<usize> = (0..each).flat_map(|place| (0..keys).map(move |key| key * each + place)).collect();
    let rows = |from: usize, height: usize| -> Vec<usize> {
        let moved = heads.iter().flat_map(|head| (0..height).map(move |row| from + head * height + row));
        (0..from).chain(moved).collect()
    };
    let names: Vec<String> = tensors.keys().filter(|name| name.contains("linear_attn.")).cloned().collect();
    for name in names {
        let mut tensor = tensors.remove(&name).unwrap();
        if name.ends_with("A_log") {
            tensor.numbers.iter_mut().for_each(|number| *number = -number.exp());
        }
        if name.ends_with("conv1d.weight") {
            tensor.shape.truncate(2);
        }
        if name.contains("in_proj_qkvz") {
            let height = 2 * key_dim + 2 * each * value_dim;
            let of_keys = |from: usize, width: usize| {
                (0..keys).flat_map(move |key| (0..width).map(move |row| key * height + from + row))
            };
            let values = each * value_dim;
            let joined = of_keys(0, key_dim).chain(of_keys(key_dim, key_dim)).chain(of_keys(2 * key_dim, values));
            tensors.insert(name.replace("in_proj_qkvz", "in_proj_qkv"), tensor.part(joined));
            tensors
                .insert(name.replace("in_proj_qkvz", "in_proj_z"), tensor.part(of_keys(2 * key_dim + values, values)));
            continue;
        }
        if architecture != "qwen3next" {
            let part = name.rsplit("linear_attn.").next().unwrap();
            match part.split('.').next().unwrap() {
                "in_proj_qkv" | "conv1d" => tensor.with_rows(&rows(2 * keys * key_dim, value_dim)),
                "in_proj_z" => tensor.with_rows(&rows(0, value_dim)),
                "in_proj_b" | "in_proj_a" | "A_log" | "dt_bias" => tensor.with_rows(&rows(0, 1)),
                "out_proj" => {
                    let (columns, width) = (rows(0, value_dim), tensor.shape[1]);
                    let rows = tensor.numbers.chunks_exact(width);
                    tensor.numbers = rows.flat_map(|row| columns.iter().map(|at| row[*at])).collect();
                }
                _ => (),
            }
        }
        tensors.insert(name, tensor);
    }
}

/// How matrices are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Single,
    /// In 8 bits.
    Q8_0,
    /// As single-precision numbers, which are those of 8 bits.
    Rounded,
    /// As single-precision numbers, and the gates and ups of all experts in one tensor.
    Joined,
}

/// Writes a folder as a GGUF file.
pub fn convert(folder: &Path, to: &Path, architecture: &str, whole: &Value, written: Written) {
    let mut config = if whole["text_config"].is_object() { &whole["text_config"] } else { whole }.clone();
    if config["vocab_size"].is_null() {
        config["vocab_size"] = whole["vocab_size"].clone();
    }
    let number = |name: &str| config[name].as_u64().map(|number| number as usize);
    let mut tensors = tensors(folder);
    if !config["linear_num_key_heads"].is_null() {
        delta(&mut tensors, &config, architecture);
    }
    let layers = number("num_hidden_layers").unwrap();
    let further = usize::from(tensors.keys().any(|name| name.starts_with(&format!("model.layers.{layers}."))));
    let mut file = GgufFile::default();
    metadata(&mut file, architecture, &config, further);
    factors(&mut file, architecture, &config);
    let heads = number("num_attention_heads").unwrap();
    for (name, tensor) in &mut tensors {
        let permutes = ["llama", "granite", "smollm3", "mistral3"].contains(&architecture);
        let permuted = match name.rsplit('.').nth(1).filter(|_| permutes) {
            Some("q_proj") => heads,
            Some("k_proj") => number("num_key_value_heads").unwrap_or(heads),
            _ => 0,
        };
        // The rows of a head's halves alternate.
        if let Some(half) = tensor.shape[0].checked_div(2 * permuted) {
            let rows = tensor.shape[0];
            let row = |at: usize| at / (2 * half) * 2 * half + at % 2 * half + at % (2 * half) / 2;
            tensor.with_rows(&(0..rows).map(row).collect::<Vec<_>>());
        }
        if architecture == "gemma3" && name.ends_with("norm.weight") {
            tensor.numbers.iter_mut().for_each(|number| *number += 1.0);
        }
    }
    for (name, tensor) in &tensors {
        let stored = stored(name, architecture);
        let shape = &tensor.shape;
        if let Some([codes, scales]) = &tensor.codes {
            file.tensor(&stored, shape, MXFP4, &mxfp4(codes, scales));
        } else if written == Written::Joined && stored.contains("_gate_exps") {
            let up = &tensors[&name.replace("gate_proj", "up_proj")].numbers;
            let one = shape[1] * shape[2];
            let both = tensor.numbers.chunks_exact(one).zip(up.chunks_exact(one));
            let both: Vec<f32> = both.flat_map(|(gate, up)| [gate, up].concat()).collect();
            let name = stored.replace("_gate_exps", "_gate_up_exps");
            file.tensor(&name, &[shape[0], 2 * shape[1], shape[2]], F32, &f32_bytes(&both));
        } else if written == Written::Joined && stored.contains("_up_exps") {
        } else if written == Written::Q8_0 && is_quantized(&stored, shape) {
            file.tensor(&stored, shape, Q8_0, &q8_0(&tensor.numbers));
        } else if written == Written::Rounded && is_quantized(&stored, shape) {
            file.tensor(&stored, shape, F32, &f32_bytes(&rounded(&tensor.numbers)));
        } else {
            file.tensor(&stored, shape, F32, &f32_bytes(&tensor.numbers));
        }
    }
    file.write(to);
}

/// Whether llama.cpp quantizes a tensor: a matrix of whole blocks, but for routers and convolutions.
fn is_quantized(stored: &str, shape: &[usize]) -> bool {
    let exceptions = ["ffn_gate_inp", "ssm_conv1d"].iter().any(|part| stored.contains(part));
    stored.ends_with(".weight") && shape.len() > 1 && shape.last().unwrap().is_multiple_of(32) && !exceptions
}
