//! Malicious tokenizers: refused within moments, and none ends the process.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hive_text::Tokenizer;
use serde_json::json;

/// Enough for debug builds on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn bpe(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut json = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] }
    });
    change(&mut json);
    json.to_string().into_bytes()
}

#[test]
fn a_tokenizer_that_makes_its_library_panic_is_damaged() {
    assert_eq!(Tokenizer::from_json(&bpe(|_| ())).unwrap().encode("ab").unwrap(), [2]);
    let strip = |json: &mut serde_json::Value| json["model"]["continuing_subword_prefix"] = json!("long prefix");
    let mut panicked = 0;
    for file in [
        bpe(strip),
        bpe(|json| {
            json["added_tokens"] = json!([{
                "id": 4_294_967_295u32, "content": "x", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true
            }]);
        }),
    ] {
        match Tokenizer::from_json(&file) {
            Err(why) => panicked += usize::from(why == "tokenizer.json is damaged"),
            Ok(tokenizer) => drop(tokenizer.encode("ab x").map(|tokens| tokenizer.decode(&tokens))),
        }
    }
    assert!(panicked > 0, "this file no longer makes the library panic: find another");
}

#[test]
fn normalizers_that_multiply_and_patterns_that_unroll_are_refused_before_they_run() {
    let double = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
    let sixty = json!({ "type": "Sequence", "normalizers": vec![double; 60] });
    let pattern = json!({ "type": "Split", "pattern": { "Regex": "(?:(?:(?:a(?!b)){999}){999}){999}" }, "behavior": "Isolated", "invert": false });
    for file in [bpe(|json| json["normalizer"] = sixty), bpe(|json| json["pre_tokenizer"] = pattern)] {
        let started = Instant::now();
        assert!(Tokenizer::from_json(&file).is_err());
        assert!(started.elapsed() < SOON);
    }
}
