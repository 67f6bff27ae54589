//! A large tensor takes no more memory than a part of it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use hive_quantize::{PART_BYTES, Recipe, quantize};
use serde_json::{Map, json};

/// The most memory that this process has had, in bytes.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_large_tensor_passes_through_memory_in_parts() {
    const HIDDEN: usize = 256;
    /// 512 MiB of single precision.
    const VOCABULARY: usize = 1 << 19;
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let mut shapes =
        vec![("model.embed_tokens".to_owned(), vec![VOCABULARY, HIDDEN]), ("model.norm".to_owned(), vec![HIDDEN])];
    for part in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ] {
        shapes.push((format!("model.layers.0.{part}"), vec![HIDDEN, HIDDEN]));
    }
    shapes.extend(
        ["input_layernorm", "post_attention_layernorm"].map(|norm| (format!("model.layers.0.{norm}"), vec![HIDDEN])),
    );
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in shapes {
        let next = end + shape.iter().product::<usize>() * 4;
        header.insert(format!("{name}.weight"), json!({ "dtype": "F32", "shape": shape, "data_offsets": [end, next] }));
        end = next;
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = File::create(model.join("model.safetensors")).unwrap();
    // Zeros that take no room on the disk.
    file.set_len((8 + header.len() + end) as u64).unwrap();
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": 1, "intermediate_size": HIDDEN,
        "num_attention_heads": 4, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
        "tie_word_embeddings": true
    });
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    let mut before = None;
    let made = quantize(&model, &folder.path().join("to"), Recipe { bits: 4, group: 64, mixed: false }, &mut |_| {
        // The libraries and the device are there.
        before.get_or_insert_with(peak_bytes);
        ControlFlow::Continue(())
    });
    assert!(made.unwrap().bits_per_weight < 5.0);
    let more = peak_bytes() - before.unwrap();
    assert!(more < 6 * PART_BYTES, "{} MiB more than at the first part", more >> 20);
    let peak = mlx_rs::memory::peak_memory().unwrap();
    assert!(peak < 6 * PART_BYTES, "{} MiB of arrays", peak >> 20);
}
