//! Readers of weights on damaged files: whatever the bytes, an error, no panic, and no allocation of merely claimed
//! sizes.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use hive_weights::ModelFiles;
use hive_weights::weights::Gguf;
use hive_weights::weights::safetensors::{QuantizationTable, SafetensorsFolder};
use proptest::prelude::*;

/// A small valid GGUF: a few values of every kind, two tensors.
fn gguf() -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    out.extend(b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend(4u64.to_le_bytes());
    text(&mut out, "general.architecture");
    out.extend(8u32.to_le_bytes());
    text(&mut out, "llama");
    text(&mut out, "llama.block_count");
    out.extend(4u32.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    text(&mut out, "tokenizer.ggml.tokens");
    out.extend(9u32.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    text(&mut out, "a");
    text(&mut out, "b");
    text(&mut out, "llama.rope.freq_base");
    out.extend(6u32.to_le_bytes());
    out.extend(1e4f32.to_le_bytes());
    for (name, kind, offset) in [("blk.0.attn_q.weight", 3u32, 0u64), ("blk.0.attn_norm.weight", 0, 64)] {
        text(&mut out, name);
        let shape: &[u64] = if kind == 3 { &[32, 2] } else { &[32] };
        out.extend((shape.len() as u32).to_le_bytes());
        for dimension in shape {
            out.extend(dimension.to_le_bytes());
        }
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.resize(out.len() + 64 + 128, 7);
    out
}

fn safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"mlx"},"a.weight":{"dtype":"F16","shape":[2,4],"data_offsets":[0,16]},"b.weight":{"dtype":"F32","shape":[3],"data_offsets":[16,28]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[7; 28]].concat()
}

fn open_gguf(folder: &Path, bytes: &[u8]) {
    let path = folder.join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let _ = ModelFiles::open(&path);
    if let Ok(gguf) = Gguf::open(&path) {
        let weights = hive_weights::weights::Weights::Gguf(gguf);
        let _ = weights.matrix("model.layers.0.self_attn.q_proj", 2, 32);
        let _ = weights.vector("model.layers.0.input_layernorm.weight", 32);
    }
}

fn open_safetensors(folder: &Path, bytes: &[u8]) {
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    if let Ok(folder) = SafetensorsFolder::open(folder, QuantizationTable::default()) {
        let weights = hive_weights::weights::Weights::Safetensors(folder);
        let _ = weights.matrix("a", 2, 4);
        let _ = weights.vector("b.weight", 3);
    }
}

#[test]
fn the_undamaged_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, gguf()).unwrap();
    let weights = hive_weights::weights::Weights::Gguf(Gguf::open(&path).unwrap());
    assert_eq!(weights.matrix("model.layers.0.self_attn.q_proj", 2, 32).unwrap().rows(), 2);
    assert_eq!(weights.vector("model.layers.0.input_layernorm.weight", 32).unwrap().bytes, [7; 128]);

    std::fs::write(folder.path().join("model.safetensors"), safetensors()).unwrap();
    let open = SafetensorsFolder::open(folder.path(), QuantizationTable::default()).unwrap();
    let weights = hive_weights::weights::Weights::Safetensors(open);
    assert_eq!(weights.vector("b.weight", 3).unwrap().bytes, [7; 12]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, open) in [(gguf(), open_gguf as fn(&Path, &[u8])), (safetensors(), open_safetensors)] {
            let mut bytes = bytes;
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            open(folder.path(), &bytes);
        }
    }

    #[test]
    fn huge_numbers_never_panic_or_allocate(at in any::<prop::sample::Index>(), number in prop::sample::select(vec![u64::MAX, 1 << 60, 1 << 32, 1 << 31])) {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, open) in [(gguf(), open_gguf as fn(&Path, &[u8])), (safetensors(), open_safetensors)] {
            let mut bytes = bytes;
            let at = at.index(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            open(folder.path(), &bytes);
        }
    }

    #[test]
    fn cut_files_never_panic(at in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        open_gguf(folder.path(), &gguf()[..at.index(gguf().len())]);
        open_safetensors(folder.path(), &safetensors()[..at.index(safetensors().len())]);
    }
}
