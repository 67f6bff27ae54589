//! Tokenizers from a GGUF's metadata: each kind of vocabulary, on a few tokens.

#![allow(clippy::unwrap_used)]

use hive_text::Tokenizer;
use hive_text::metadata::{Items, Metadata};
use serde_json::{Value, json};

/// Metadata as JSON, by the format's keys without their prefix.
struct Gguf(Value);

impl Gguf {
    fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key.strip_prefix("tokenizer.ggml.")?)
    }
}

impl Metadata for Gguf {
    fn string(&self, key: &str) -> Option<&str> {
        self.value(key)?.as_str()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.as_u64()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.value(key)?.as_bool()
    }

    fn strings(&self, key: &str) -> Option<Items<'_, &str>> {
        Some(Box::new(self.value(key)?.as_array()?.iter().filter_map(Value::as_str)))
    }

    fn integers(&self, key: &str) -> Option<Items<'_, i64>> {
        Some(Box::new(self.value(key)?.as_array()?.iter().filter_map(Value::as_i64)))
    }

    fn reals(&self, key: &str) -> Option<Vec<f64>> {
        Some(self.value(key)?.as_array()?.iter().filter_map(Value::as_f64).collect())
    }
}

fn tokenizer(changes: &Value) -> Result<Tokenizer, String> {
    let mut gguf = json!({
        "model": "gpt2", "tokens": ["a", "b", "c", "ab", "abc", "Ġ", "<|begin|>"], "merges": ["a b"], "bos_token_id": 6
    });
    for (key, value) in changes.as_object().unwrap() {
        gguf[key] = value.clone();
    }
    Tokenizer::from_gguf(&Gguf(gguf)).map_err(|error| error.to_string())
}

#[test]
fn a_pre_tokenizer_that_is_not_known_is_refused_with_the_names_of_those_that_are() {
    let why = tokenizer(&json!({ "pre": "bloom" })).unwrap_err();
    assert!(why.contains("its pre-tokenizer \"bloom\" is not supported; supported are a.x-4.0, "), "{why}");
    for name in ["gemma4", "kimi-k2", "llama-bpe", "qwen35", "tekken"] {
        assert!(why.contains(&format!(", {name}")), "{name} is not in: {why}");
    }
    let why = tokenizer(&json!({ "model": "bert" })).unwrap_err();
    assert!(why.contains("its kind \"bert\" is not supported"), "{why}");
}

#[test]
fn a_piece_that_is_a_token_stays_one_only_where_its_family_ignores_merges() {
    let tokens = |pre: &str| tokenizer(&json!({ "pre": pre })).unwrap().encode("abc abc").unwrap();
    for pre in ["llama-bpe", "tekken", "glm4"] {
        assert_eq!(tokens(pre), [4, 5, 3, 2], "{pre}");
    }
    for pre in ["gpt-2", "qwen2", "qwen35", "kimi-k2", "deepseek-v3"] {
        assert_eq!(tokens(pre), [3, 2, 5, 3, 2], "{pre}");
    }
}

#[test]
fn a_vocabulary_like_gemma_4s_is_merged_over_the_whole_text_and_spells_what_it_lacks_in_bytes() {
    let gemma = |changes: Value| {
        let mut gguf = json!({
            "model": "gemma4",
            "tokens": ["<unk>", "<bos>", "a", "▁", "a▁a", "▁a", "\n", "\n\n", "<0xC3>", "<0xA9>"],
            "token_type": [2, 3, 1, 1, 1, 1, 1, 1, 6, 6], "merges": ["▁ a", "a ▁a", "\n \n"], "bos_token_id": 1
        });
        for (key, value) in changes.as_object().unwrap() {
            gguf[key] = value.clone();
        }
        tokenizer(&gguf).unwrap()
    };
    let tokenizer = gemma(json!({}));
    // A merge across a blank, and none that a text does not have.
    assert_eq!(tokenizer.encode("a a\n\n\né").unwrap(), [4, 7, 6, 8, 9]);
    assert_eq!(tokenizer.decode(&[5, 7, 6, 8, 9]).unwrap(), " a\n\n\né");
    // The same in a file of the other kind, which says it by the pre-tokenizer.
    assert_eq!(gemma(json!({ "model": "gpt2", "pre": "gemma4" })).encode("a a").unwrap(), [4]);
    assert_eq!(gemma(json!({ "add_space_prefix": true })).encode("a a").unwrap(), [5, 5]);
}

#[test]
fn a_prompt_of_gemma_4_begins_with_bos_even_if_the_file_denies_it() {
    let leading = |changes: Value| tokenizer(&changes).unwrap().leading();
    assert_eq!(leading(json!({ "model": "gemma4", "add_bos_token": false })), Some(6));
    assert_eq!(leading(json!({ "pre": "gemma4" })), Some(6));
    assert_eq!(leading(json!({ "pre": "sarvam-moe" })), None);
    assert_eq!(leading(json!({ "pre": "sarvam-moe", "add_bos_token": true })), Some(6));
    assert_eq!(leading(json!({ "pre": "tekken" })), Some(6));
    assert_eq!(leading(json!({ "pre": "tekken", "add_bos_token": false })), None);
    assert_eq!(leading(json!({ "pre": "glm4" })), None);
}
