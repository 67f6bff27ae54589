//! What GGUF files say in older or unusual spellings: read as llama.cpp reads it, or refused by name.

#![allow(clippy::unwrap_used)]

use hive_model::ModelConfig;
use hive_model::config::RopeScaling;
use hive_model::weights::Gguf;

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

fn integer(key: &str, number: u32) -> Vec<u8> {
    [text(key.as_bytes()), 4u32.to_le_bytes().to_vec(), number.to_le_bytes().to_vec()].concat()
}

fn real(key: &str, number: f32) -> Vec<u8> {
    [text(key.as_bytes()), 6u32.to_le_bytes().to_vec(), number.to_le_bytes().to_vec()].concat()
}

fn label(key: &str, value: &[u8]) -> Vec<u8> {
    [text(key.as_bytes()), 8u32.to_le_bytes().to_vec(), text(value)].concat()
}

/// The metadata of a small Llama, and more.
fn open(more: &[Vec<u8>]) -> Gguf {
    let mut entries = vec![
        label("general.architecture", b"llama"),
        integer("llama.block_count", 2),
        integer("llama.embedding_length", 64),
        integer("llama.feed_forward_length", 128),
        integer("llama.attention.head_count", 4),
        integer("llama.vocab_size", 100),
        real("llama.attention.layer_norm_rms_epsilon", 1e-5),
    ];
    entries.extend_from_slice(more);
    let head = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &(entries.len() as u64).to_le_bytes()].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, [head, entries.concat()].concat()).unwrap();
    Gguf::open(&path).unwrap()
}

fn config(more: &[Vec<u8>]) -> Result<ModelConfig, String> {
    ModelConfig::from_gguf(&open(more)).map_err(|error| error.to_string())
}

#[test]
fn linear_rope_scaling_has_three_spellings() {
    let kind = label("llama.rope.scaling.type", b"linear");
    for spelling in [
        vec![kind, real("llama.rope.scaling.factor", 4.0)],
        vec![real("llama.rope.scaling.factor", 4.0)],
        vec![real("llama.rope.scale_linear", 4.0)],
    ] {
        assert_eq!(config(&spelling).unwrap().rope.scaling, RopeScaling::Linear { factor: 4.0 });
    }
    let none = label("llama.rope.scaling.type", b"none");
    for unscaled in
        [vec![], vec![real("llama.rope.scaling.factor", 1.0)], vec![none, real("llama.rope.scale_linear", 4.0)]]
    {
        assert_eq!(config(&unscaled).unwrap().rope.scaling, RopeScaling::None);
    }
}

#[test]
fn rotary_positions_on_a_part_of_each_head_are_refused_by_name() {
    assert!(config(&[integer("llama.rope.dimension_count", 16)]).is_ok());
    let message = config(&[integer("llama.rope.dimension_count", 8)]).unwrap_err();
    assert!(message.contains("rotary positions on 8 of a head's 16"), "{message}");
}

#[test]
fn a_label_in_another_encoding_refuses_no_model() {
    let gguf = open(&[label("general.organization", b"Caf\xe9")]);
    assert_eq!(gguf.string("general.organization"), Some("Caf\u{fffd}"));
}
