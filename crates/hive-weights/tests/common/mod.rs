//! A made-up Llama with two layers that all kernels can compute, as a folder on disk.

#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;

/// Width of a hidden state.
pub const HIDDEN: usize = 32;
/// Tokens of the vocabulary.
pub const VOCABULARY: usize = 48;
/// Layers.
pub const LAYERS: usize = 2;

/// Writes the model. `change` may modify the numbers of a tensor, by its name.
pub fn write_tiny_model(to: &Path, mut change: impl FnMut(&str, &mut [f32])) {
    let mut tensors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for layer in 0..LAYERS {
        for (part, shape) in [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.up_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, HIDDEN]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ] {
            tensors.insert(format!("model.layers.{layer}.{part}.weight"), shape);
        }
    }
    tensors.insert("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]);
    tensors.insert("model.norm.weight".to_owned(), vec![HIDDEN]);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut state = 1u64;
    for (name, shape) in tensors {
        let mut numbers: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect();
        change(&name, &mut numbers);
        let start = data.len();
        data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name, entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(to.join("model.safetensors"), file).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": HIDDEN,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "tie_word_embeddings": true
    });
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}
