//! Folders as people have them: which output matrix is used, and where an answer ends.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{HIDDEN, VOCABULARY, write_tiny_model};
use hive_model::ModelFiles;
use serde_json::{Value, json};

/// Writes one more file with an output matrix.
fn add_head(folder: &Path) {
    let bytes = VOCABULARY * HIDDEN * 4;
    let entry = json!({ "dtype": "F32", "shape": [VOCABULARY, HIDDEN], "data_offsets": [0, bytes] });
    let header = json!({ "lm_head.weight": entry }).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat();
    std::fs::write(folder.join("model-head.safetensors"), file).unwrap();
}

fn configure(folder: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn an_output_matrix_that_is_there_is_used_unless_the_folder_says_that_the_embedding_is() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let is_tied = || ModelFiles::open(folder.path()).unwrap().config().tied_embeddings;
    configure(folder.path(), |config| drop(config.remove("tie_word_embeddings")));
    assert!(is_tied(), "there is no other");
    add_head(folder.path());
    assert!(!is_tied());
    configure(folder.path(), |config| drop(config.insert("tie_word_embeddings".to_owned(), Value::Null)));
    assert!(!is_tied());
    configure(folder.path(), |config| drop(config.insert("tie_word_embeddings".to_owned(), true.into())));
    assert!(is_tied());
}

#[test]
fn an_answer_ends_where_config_generation_and_tokenizer_say() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let ends = || ModelFiles::open(folder.path()).unwrap().end_tokens();
    assert_eq!(ends(), Vec::<u32>::new());
    configure(folder.path(), |config| drop(config.insert("eos_token_id".to_owned(), 5.into())));
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id":[5,6]}"#).unwrap();
    let decoder =
        json!({ "7": { "content": "</s>", "special": true }, "8": { "content": "<|im_end|>", "special": false } });
    let tokenizer = json!({ "eos_token": "</s>", "added_tokens_decoder": decoder });
    std::fs::write(folder.path().join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    assert_eq!(ends(), [5, 6, 7, 8]);
    // Where an answer ends makes no other model of it.
    let digest = || ModelFiles::open(folder.path()).unwrap().digest().unwrap();
    let with_tokenizer = digest();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    assert_eq!((ends(), digest()), (vec![5, 6], with_tokenizer));
}
