//! Models as people download them: GGUF files whose tensors are of several types, and MLX folders of few bits. Their
//! logits are those of the same weights as single-precision numbers.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use hive_model::{Compute, Shard, ShardOptions};
use hive_weights::ModelFiles;
use hive_weights::weights::{Gguf, Matrix, Weights};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const HIDDEN: usize = 256;
const INNER: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 64;
const LAYERS: usize = 2;
const VOCABULARY: usize = 40;

/// Of a layer: names in Hugging Face's files and in GGUF, rows, and columns.
const MATRICES: [(&str, &str, usize, usize); 7] = [
    ("self_attn.q_proj", "attn_q", HEADS * HEAD, HIDDEN),
    ("self_attn.k_proj", "attn_k", KV_HEADS * HEAD, HIDDEN),
    ("self_attn.v_proj", "attn_v", KV_HEADS * HEAD, HIDDEN),
    ("self_attn.o_proj", "attn_output", HIDDEN, HEADS * HEAD),
    ("mlp.gate_proj", "ffn_gate", INNER, HIDDEN),
    ("mlp.up_proj", "ffn_up", INNER, HIDDEN),
    ("mlp.down_proj", "ffn_down", HIDDEN, INNER),
];

struct Type {
    number: u32,
    elements: usize,
    bytes: usize,
    /// Where a block has its scale and its minimum, each a half-precision number.
    halves: &'static [(usize, f32)],
}

/// Scales that give weights of the usual size; minimums that put their middle near zero.
fn of(name: &str) -> Type {
    let (number, elements, bytes, halves): (_, _, _, &'static [(usize, f32)]) = match name {
        "Q4_0" => (2, 32, 18, &[(0, 0.013)]),
        "Q4_1" => (3, 32, 20, &[(0, 0.013), (2, -0.0975)]),
        "Q5_0" => (6, 32, 22, &[(0, 0.0065)]),
        "Q5_1" => (7, 32, 24, &[(0, 0.0065), (2, -0.1)]),
        "Q8_0" => (8, 32, 34, &[(0, 0.0008)]),
        "Q2_K" => (10, 256, 84, &[(80, 0.007), (82, 0.0105)]),
        "Q3_K" => (11, 256, 110, &[(108, 0.0014)]),
        "Q4_K" => (12, 256, 144, &[(0, 4.2e-4), (2, 3.2e-3)]),
        "Q5_K" => (13, 256, 176, &[(0, 2.1e-4), (2, 3.2e-3)]),
        "Q6_K" => (14, 256, 210, &[(208, 4.5e-5)]),
        "IQ4_NL" => (20, 32, 18, &[(0, 9e-4)]),
        "IQ4_XS" => (23, 256, 136, &[(0, 5e-5)]),
        "MXFP4" => (39, 32, 17, &[]),
        other => panic!("{other}"),
    };
    Type { number, elements, bytes, halves }
}

/// The type of each tensor by its name in the file.
type Mix = fn(&str) -> &'static str;

fn random(state: &mut u64) -> u8 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 56) as u8
}

fn blocks(kind: &Type, weights: usize, state: &mut u64) -> Vec<u8> {
    let mut all: Vec<u8> = (0..weights / kind.elements * kind.bytes).map(|_| random(state)).collect();
    for block in all.chunks_exact_mut(kind.bytes) {
        for (at, scale) in kind.halves {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(*scale).to_le_bytes());
        }
        if kind.number == 39 {
            block[0] = 120 + block[0] % 3;
        }
    }
    all
}

/// Writes a model.
fn write_gguf(to: &Path, mix: Mix, tied: bool) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |key: &str, value: usize| {
        [text(key), 4u32.to_le_bytes().to_vec(), (value as u32).to_le_bytes().to_vec()].concat()
    };
    let metadata = [
        [text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat(),
        number("llama.block_count", LAYERS),
        number("llama.embedding_length", HIDDEN),
        number("llama.feed_forward_length", INNER),
        number("llama.attention.head_count", HEADS),
        number("llama.attention.head_count_kv", KV_HEADS),
        number("llama.vocab_size", VOCABULARY),
        [text("llama.attention.layer_norm_rms_epsilon"), 6u32.to_le_bytes().to_vec(), 1e-5f32.to_le_bytes().to_vec()]
            .concat(),
    ];
    let (mut infos, mut data, mut count, mut state) = (Vec::new(), Vec::new(), 0u64, 7u64);
    let mut tensor = |name: &str, dims: &[usize], kind: u32, bytes: Vec<u8>| {
        infos.extend(text(&format!("{name}.weight")));
        infos.extend((dims.len() as u32).to_le_bytes());
        infos.extend(dims.iter().flat_map(|dim| (*dim as u64).to_le_bytes()));
        infos.extend(kind.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
        count += 1;
    };
    let of_layer =
        |layer: usize| MATRICES.map(|(_, stored, rows, columns)| (format!("blk.{layer}.{stored}"), rows, columns));
    let outer = [("token_embd", VOCABULARY), ("output", if tied { 0 } else { VOCABULARY })];
    let outer = outer.map(|(name, rows)| (name.to_owned(), rows, HIDDEN)).into_iter().filter(|(_, rows, _)| *rows > 0);
    for (name, rows, columns) in (0..LAYERS).flat_map(of_layer).chain(outer) {
        let kind = of(mix(&name));
        tensor(&name, &[columns, rows], kind.number, blocks(&kind, rows * columns, &mut state));
    }
    let norms = (0..LAYERS).flat_map(|layer| ["attn_norm", "ffn_norm"].map(|norm| format!("blk.{layer}.{norm}")));
    for name in norms.chain(["output_norm".to_owned()]) {
        tensor(&name, &[HIDDEN], 0, 1f32.to_le_bytes().repeat(HIDDEN));
    }
    let head =
        [&b"GGUF"[..], &3u32.to_le_bytes(), &count.to_le_bytes(), &(metadata.len() as u64).to_le_bytes()].concat();
    let mut file = [head, metadata.concat(), infos].concat();
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    std::fs::write(to, file).unwrap();
}

fn matrices(tied: bool) -> Vec<(String, usize, usize)> {
    let of_layer =
        |layer: usize| MATRICES.map(|(name, _, rows, columns)| (format!("model.layers.{layer}.{name}"), rows, columns));
    let outer = ["model.embed_tokens", "lm_head"].map(|name| (name.to_owned(), VOCABULARY, HIDDEN));
    (0..LAYERS).flat_map(of_layer).chain(outer.into_iter().take(if tied { 1 } else { 2 })).collect()
}

/// A folder with these tensors beside norms of ones.
fn write_folder(to: &Path, tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>, more: &serde_json::Value) {
    let ones = |name: String| (name, Dtype::F32, vec![HIDDEN], 1f32.to_le_bytes().repeat(HIDDEN));
    let norms = (0..LAYERS).flat_map(|layer| {
        ["input_layernorm", "post_attention_layernorm"].map(|norm| format!("model.layers.{layer}.{norm}.weight"))
    });
    let norms = norms.chain(["model.norm.weight".to_owned()]).map(ones);
    let tensors: Vec<_> = tensors.into_iter().chain(norms).collect();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    let mut config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": INNER,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 512
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

/// The model's weights as single-precision numbers.
fn write_dequantized(to: &Path, weights: &Weights, tied: bool) {
    let tensors = matrices(tied).into_iter().map(|(name, rows, columns)| {
        let values: Vec<f32> = match weights.matrix(&name, rows, columns).unwrap() {
            Matrix::Quantized(matrix) => (0..rows).flat_map(|row| matrix.row(row)).collect(),
            Matrix::Float(tensor) => tensor.to_f32(),
        };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (format!("{name}.weight"), Dtype::F32, vec![rows, columns], bytes)
    });
    write_folder(to, tensors.collect(), &serde_json::json!({ "tie_word_embeddings": tied }));
}

fn logits(path: &Path, compute: Compute) -> Vec<f32> {
    let files = ModelFiles::open(path).unwrap();
    let mut shard = Shard::load(&files, &ShardOptions { layers: 0..LAYERS, compute }, |_| ()).unwrap();
    assert_eq!(shard.is_fast(), compute == Compute::Fast);
    // Enough for the kernels of many tokens.
    (0..12).flat_map(|at| shard.logits_of(&(0..=at).map(|n| n * 7 % 40).collect::<Vec<u32>>()).unwrap()).collect()
}

/// The greatest difference, beside the standard deviation of the expected logits.
fn off(logits: &[f32], expected: &[f32]) -> f32 {
    let count = expected.len() as f32;
    let mean = expected.iter().sum::<f32>() / count;
    let deviation = (expected.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt();
    assert!(deviation > 0.1, "logits that differ: {deviation}");
    logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / deviation
}

#[test]
fn mixes_of_types_have_the_logits_of_their_dequantized_weights() {
    let folder = tempfile::tempdir().unwrap();
    // A worst difference per kind of kernels, in standard deviations of the logits: plain kernels requantize groups of 16.
    let mixes: [(&str, Mix, bool, f32); 9] = [
        (
            "Q4_K_M",
            |name| match name {
                "output" | "blk.0.attn_v" | "blk.0.ffn_down" => "Q6_K",
                _ => "Q4_K",
            },
            false,
            0.1,
        ),
        (
            "Q4_K_M tied",
            |name| match name {
                "token_embd" | "blk.0.attn_v" | "blk.0.ffn_down" => "Q6_K",
                _ => "Q4_K",
            },
            true,
            0.1,
        ),
        ("Q5_K_M", |name| if name.ends_with("ffn_down") || name == "output" { "Q6_K" } else { "Q5_K" }, false, 0.1),
        ("Q6_K", |_| "Q6_K", true, 0.1),
        ("Q4_0", |name| if name == "output" { "Q6_K" } else { "Q4_0" }, false, 0.1),
        ("Q5_0 and Q5_1", |name| if name.ends_with("ffn_down") { "Q5_1" } else { "Q5_0" }, true, 1e-4),
        (
            "Q2_K",
            |name| match name {
                "output" => "Q6_K",
                name if name.ends_with("attn_v") => "Q4_K",
                name if name.ends_with("ffn_down") || name.ends_with("attn_output") => "Q3_K",
                _ => "Q2_K",
            },
            false,
            0.5,
        ),
        ("IQ4", |name| if name.ends_with("ffn_down") { "IQ4_NL" } else { "IQ4_XS" }, true, 1e-4),
        ("MXFP4", |name| if name.starts_with("blk") { "MXFP4" } else { "Q8_0" }, false, 1e-4),
    ];
    for (name, mix, tied, plain) in mixes {
        let (path, dequantized) = (folder.path().join(format!("{name}.gguf")), folder.path().join(name));
        write_gguf(&path, mix, tied);
        std::fs::create_dir(&dequantized).unwrap();
        write_dequantized(&dequantized, &Weights::Gguf(Gguf::open(&path).unwrap()), tied);
        let expected = logits(&dequantized, Compute::Plain);
        for (compute, worst) in [(Compute::Fast, 1e-4), (Compute::Plain, plain)] {
            let off = off(&logits(&path, compute), &expected);
            assert!(off < worst, "{name}, {compute:?}: off by {off}");
        }
    }
}

#[test]
fn folders_of_2_3_5_and_6_bits_have_the_same_logits_on_the_fast_kernels_as_on_mlx() {
    for (bits, group) in [(2, 32), (3, 64), (5, 64), (6, 128)] {
        let folder = tempfile::tempdir().unwrap();
        let mut state = bits as u64;
        let mut tensors = Vec::new();
        for (name, rows, columns) in matrices(true) {
            let words = (0..rows * columns * bits / 8).map(|_| random(&mut state)).collect();
            let scale = 0.2 / (1 << bits) as f32;
            let groups = rows * columns / group;
            let affine = |number: f32| number.to_le_bytes().repeat(groups);
            tensors.push((format!("{name}.weight"), Dtype::U32, vec![rows, columns * bits / 32], words));
            tensors.push((format!("{name}.scales"), Dtype::F32, vec![rows, columns / group], affine(scale)));
            tensors.push((format!("{name}.biases"), Dtype::F32, vec![rows, columns / group], affine(-0.1)));
        }
        let quantization = serde_json::json!({ "bits": bits, "group_size": group });
        let more = serde_json::json!({ "tie_word_embeddings": true, "quantization": quantization });
        write_folder(folder.path(), tensors, &more);
        let off = off(&logits(folder.path(), Compute::Fast), &logits(folder.path(), Compute::Plain));
        assert!(off < 1e-4, "{bits} bits: off by {off}");
    }
}
