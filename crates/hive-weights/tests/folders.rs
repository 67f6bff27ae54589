//! Folders as people have them: which output matrix is used, and which tokens end an answer.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{HIDDEN, VOCABULARY, write_tiny_model};
use hive_text::template::{Conversation, Message};
use hive_weights::ModelFiles;
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
    // Other end tokens do not make it another model.
    let digest = || ModelFiles::open(folder.path()).unwrap().digest().unwrap();
    let with_tokenizer = digest();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    assert_eq!((ends(), digest()), (vec![5, 6], with_tokenizer));
}

#[test]
fn special_tokens_may_be_named_in_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let write = |name: &str, json: Value| std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    let added =
        json!([{ "id": 7, "content": "</s>", "special": true }, { "id": 8, "content": "<e>", "special": true }]);
    write("tokenizer.json", json!({ "added_tokens": added }));
    write("special_tokens_map.json", json!({ "eos_token": { "content": "</s>" }, "bos_token": "<s>" }));
    let template = json!("{{ bos_token }}{{ eos_token }}");
    for (config, end, rendered) in [
        (json!({ "chat_template": template }), 7, "<s></s>"),
        (json!({ "chat_template": template, "eos_token": null }), 7, "<s></s>"),
        // The newer file takes precedence.
        (json!({ "chat_template": template, "eos_token": "<e>" }), 8, "<s><e>"),
    ] {
        write("tokenizer_config.json", config);
        let files = ModelFiles::open(folder.path()).unwrap();
        assert_eq!(files.end_tokens(), [end]);
        assert_eq!(files.chat_template().unwrap().render(&Conversation::default()).unwrap(), rendered);
    }
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(ModelFiles::open(folder.path()).unwrap().end_tokens(), [7]);
}

#[test]
fn a_way_of_quantizing_that_is_not_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    for (mode, is_read) in [("affine", true), ("mxfp4", true), ("nvfp4", true), ("mxfp8", true), ("nvfp8", false)] {
        let table = json!({ "group_size": 32, "bits": 4, "mode": mode });
        configure(folder.path(), |config| drop(config.insert("quantization".to_owned(), table)));
        let opened = ModelFiles::open(folder.path()).map(drop).map_err(|error| error.to_string());
        match opened {
            Ok(()) => assert!(is_read, "{mode}"),
            Err(why) => assert!(!is_read && why.contains(&format!("{mode} quantization")), "{why}"),
        }
    }
}

/// The tensors of a file: their entries in the header, and their bytes.
fn tensors(file: &Path) -> Vec<(String, Value, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let offset = |entry: &Value, end: usize| entry["data_offsets"][end].as_u64().unwrap() as usize;
    let header = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    header
        .map(|(name, entry)| (name.clone(), entry.clone(), data[offset(entry, 0)..offset(entry, 1)].to_vec()))
        .collect()
}

fn write_tensors(file: &Path, tensors: &[(String, Value, Vec<u8>)]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, entry, bytes) in tensors {
        let mut entry = entry.clone();
        entry["data_offsets"] = json!([data.len(), data.len() + bytes.len()]);
        data.extend(bytes);
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let file_bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(file, file_bytes).unwrap();
}

#[test]
fn what_lies_beside_a_model_and_how_it_is_spread_over_files_make_no_other_model_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_tiny_model(folder.path(), |_, _| {});
    let digest = || ModelFiles::open(folder.path()).unwrap().digest().unwrap();
    let alone = digest();
    let all = tensors(&at("model.safetensors"));
    // Left over from fine-tuning, another format of the same weights, a download and a Mac.
    write_tensors(&at("adapters.safetensors"), &all[..3]);
    write_tensors(&at("consolidated.safetensors"), &all);
    std::fs::write(at("._model.safetensors"), "Mac OS X").unwrap();
    std::fs::write(at("README.md"), "# A model").unwrap();
    std::fs::write(at("special_tokens_map.json"), "{}").unwrap();
    std::fs::create_dir(at("original")).unwrap();
    assert_eq!(digest(), alone);
    // The same tensors in two files, in another order, with one that is not computed with.
    let frequencies = json!({ "dtype": "F32", "shape": [1], "data_offsets": [0, 4] });
    let mut first = all[2..].to_vec();
    first.reverse();
    first.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), frequencies, vec![0; 4]));
    std::fs::remove_file(at("model.safetensors")).unwrap();
    write_tensors(&at("model-00001-of-00002.safetensors"), &first);
    write_tensors(&at("model-00002-of-00002.safetensors"), &all[..2]);
    assert_eq!(digest(), alone);
}

#[test]
fn every_tensor_tells_a_model_from_another() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let digest = || ModelFiles::open(folder.path()).unwrap().digest().unwrap();
    let file = folder.path().join("model.safetensors");
    let (all, original) = (tensors(&file), digest());
    for altered in 0..all.len() {
        let last = all[altered].2.len() - 1;
        for place in [0, last / 2, last] {
            let mut other = all.clone();
            other[altered].2[place] ^= 1;
            write_tensors(&file, &other);
            assert_ne!(digest(), original, "{} at {place}", all[altered].0);
        }
    }
    write_tensors(&file, &all);
    assert_eq!(digest(), original);
    configure(folder.path(), |config| drop(config.insert("rope_theta".to_owned(), 123.into())));
    assert_ne!(digest(), original);
}

#[test]
fn json_as_editors_leave_it_and_folders_that_lack_something_are_read_or_called_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let (config, refused) =
        (folder.path().join("config.json"), || ModelFiles::open(folder.path()).unwrap_err().to_string());
    let text = std::fs::read_to_string(&config).unwrap();
    // A byte order mark is skipped; other encodings are named.
    std::fs::write(&config, "\u{feff}".to_owned() + &text).unwrap();
    assert!(ModelFiles::open(folder.path()).is_ok());
    let utf16: Vec<u8> = "\u{feff}".chars().chain(text.chars()).flat_map(|c| (c as u16).to_le_bytes()).collect();
    std::fs::write(&config, utf16).unwrap();
    assert!(refused().contains("save it as UTF-8"), "{}", refused());
    std::fs::remove_file(&config).unwrap();
    assert!(refused().contains("no config.json"), "{}", refused());
    std::fs::write(folder.path().join("model_index.json"), "{}").unwrap();
    assert!(refused().contains("makes pictures"), "{}", refused());
}

#[test]
fn a_chat_template_may_lie_in_a_json_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), |_, _| {});
    let template = || ModelFiles::open(folder.path()).unwrap().chat_template();
    assert!(template().is_err());
    std::fs::write(folder.path().join("chat_template.json"), r#"{"chat_template": "{{ messages | length }}"}"#)
        .unwrap();
    let two = Conversation::new([Message::new("user", "a"), Message::new("user", "b")]);
    assert_eq!(template().unwrap().render(&two).unwrap(), "2");
    // The separate file takes precedence.
    std::fs::write(folder.path().join("chat_template.jinja"), "own").unwrap();
    assert_eq!(template().unwrap().render(&two).unwrap(), "own");
}
