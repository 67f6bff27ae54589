//! Layers that attend to a window of tokens.

#![allow(clippy::unwrap_used)]

#[path = "../../hive-weights/tests/common/mod.rs"]
mod common;

use common::write_tiny_model;
use hive_model::{Compute, Shard, ShardOptions};
use hive_weights::ModelFiles;
use serde_json::Value;

#[test]
fn a_token_sees_its_window_and_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let configure = |key: &str, value: Value| {
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    };
    let digest = || ModelFiles::open(folder.path()).unwrap().digest().unwrap();
    configure("model_type", "mistral".into());
    let without = digest();
    configure("sliding_window", 16.into());
    // A version that computes it without the window must not take part.
    assert_ne!(digest(), without);
    let files = ModelFiles::open(folder.path()).unwrap();
    for compute in [Compute::Plain, Compute::Fast] {
        let mut shard = Shard::load(&files, &ShardOptions { layers: 0..2, compute }, |_| ()).unwrap();
        // Two layers of windows of 16: the last token depends on the 30 tokens before it.
        let mut logits = |first: u32, length: usize| {
            let tokens: Vec<u32> = std::iter::once(first).chain((1..length as u32).map(|n| n * 7 % 48)).collect();
            shard.logits_of(&tokens).unwrap()
        };
        assert_ne!(logits(3, 31), logits(5, 31), "{compute:?}: within both windows");
        assert_eq!(logits(3, 32), logits(5, 32), "{compute:?}: outside");
    }
}
