//! Blocks of every quantized type with their values by ggml's own Python package, for tests.

use data_encoding::BASE64;
use serde_json::Value as Json;

use hive_weights::weights::{Float, Gguf, Weights, to_f32};

/// Blocks of one type.
pub(crate) struct Sample {
    /// The type.
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) blocks: Vec<u8>,
    /// Their values, row by row.
    pub(crate) values: Vec<f32>,
}

/// Rows and columns of every sample.
pub(crate) const SHAPE: [usize; 2] = [2, 256];

pub(crate) fn samples() -> Vec<Sample> {
    let all: Json = serde_json::from_str(include_str!("../../../../tests/oracle/gguf_types.json")).unwrap();
    assert_eq!([&all["rows"], &all["columns"]].map(|size| size.as_u64().unwrap() as usize), SHAPE);
    let bytes = |text: &Json| BASE64.decode(text.as_str().unwrap().as_bytes()).unwrap();
    let sample = |entry: &Json| Sample {
        name: entry["name"].as_str().unwrap().to_owned(),
        number: entry["number"].as_u64().unwrap() as u32,
        blocks: bytes(&entry["blocks"]),
        values: to_f32(Float::F32, &bytes(&entry["values"])),
    };
    all["types"].as_array().unwrap().iter().map(sample).collect()
}

/// The name of a sample's matrix in [`file`].
pub(crate) fn matrix(sample: usize) -> String {
    format!("model.layers.{sample}.self_attn.v_proj")
}

/// A file with a matrix of each type.
pub(crate) fn file(samples: &[Sample]) -> Weights {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &(samples.len() as u64).to_le_bytes()].concat();
    bytes
        .extend([&1u64.to_le_bytes()[..], &text("general.architecture"), &8u32.to_le_bytes(), &text("llama")].concat());
    let mut data: Vec<u8> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let [rows, columns] = SHAPE.map(|size| (size as u64).to_le_bytes());
        let start = (data.len() as u64).to_le_bytes();
        bytes.extend([&text(&format!("blk.{index}.attn_v.weight"))[..], &2u32.to_le_bytes(), &columns, &rows].concat());
        bytes.extend([&sample.number.to_le_bytes()[..], &start].concat());
        data.extend(&sample.blocks);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(data);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    // The open file outlives its name.
    Weights::Gguf(Gguf::open(&path).unwrap())
}
