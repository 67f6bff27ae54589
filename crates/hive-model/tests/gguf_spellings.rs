//! What GGUF files say in older or unusual spellings: read as llama.cpp reads it, or refused by name.

#![allow(clippy::unwrap_used)]

use hive_model::config::RopeScaling;
use hive_model::template::{ChatTemplate, Conversation, Message};
use hive_model::weights::Gguf;
use hive_model::{ModelConfig, ModelFiles, Tokenizer};

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
fn bytes(more: &[Vec<u8>]) -> Vec<u8> {
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
    [head, entries.concat()].concat()
}

fn open(more: &[Vec<u8>]) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes(more)).unwrap();
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
    assert!(message.contains("rotary embedding of only 8 of a head's 16"), "{message}");
}

#[test]
fn a_label_in_another_encoding_refuses_no_model() {
    let tags = [text(b"general.tags"), 9u32.to_le_bytes().to_vec(), strings(&[b"Caf\xe9"])].concat();
    let gguf = open(&[label("general.organization", b"Caf\xe9"), tags]);
    assert_eq!(gguf.string("general.organization"), Some("Caf\u{fffd}"));
}

fn strings(texts: &[&[u8]]) -> Vec<u8> {
    let count = (texts.len() as u64).to_le_bytes();
    [&8u32.to_le_bytes()[..], &count, &texts.iter().flat_map(|one| text(one)).collect::<Vec<_>>()].concat()
}

fn vocabulary(texts: &[&[u8]]) -> Vec<u8> {
    [text(b"tokenizer.ggml.tokens"), 9u32.to_le_bytes().to_vec(), strings(texts)].concat()
}

#[test]
fn an_answer_ends_where_the_vocabulary_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let named = [integer("tokenizer.ggml.eos_token_id", 0), integer("tokenizer.ggml.eom_token_id", 3)];
    let tokens: [&[u8]; 5] = [b"<|endoftext|>", b"a", b"<|im_end|>", b"<eom>", b"<|im_start|>"];
    std::fs::write(&path, bytes(&[&named[..], &[vocabulary(&tokens)]].concat())).unwrap();
    assert_eq!(ModelFiles::open(&path).unwrap().end_tokens(), [0, 3, 2]);
}

#[test]
fn markers_that_are_typed_as_ordinary_tokens_are_special_and_ordinary_ones_are_not() {
    let tokens: [&[u8]; 4] = [b"a", b"<|im_end|>", b"</s>", b"<b>"];
    let types: Vec<u8> = [1u32, 1, 1, 4].iter().flat_map(|kind| kind.to_le_bytes()).collect();
    let types = [
        text(b"tokenizer.ggml.token_type"),
        9u32.to_le_bytes().to_vec(),
        [&5u32.to_le_bytes()[..], &4u64.to_le_bytes(), &types].concat(),
    ]
    .concat();
    let merges = [text(b"tokenizer.ggml.merges"), 9u32.to_le_bytes().to_vec(), strings(&[b"a a"])].concat();
    let gguf = open(&[
        label("tokenizer.ggml.model", b"gpt2"),
        label("tokenizer.ggml.pre", b"gpt-2"),
        vocabulary(&[&tokens[..], &[b"aa"]].concat()),
        types,
        merges,
    ]);
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let special: Vec<&str> = tokenizer.special_tokens().all().iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(special, ["<|im_end|>"]);
}

#[test]
fn a_prompt_begins_as_the_file_wants_whether_its_template_writes_that_or_not() {
    let merges = [text(b"tokenizer.ggml.merges"), 9u32.to_le_bytes().to_vec(), strings(&[b"a a"])].concat();
    let flag =
        |on: bool| [text(b"tokenizer.ggml.add_bos_token"), 7u32.to_le_bytes().to_vec(), vec![on.into()]].concat();
    let tokens = |pre: Option<&str>, more: &[Vec<u8>], template: &str| {
        let mut entries = vec![
            label("tokenizer.ggml.model", b"gpt2"),
            vocabulary(&[b"a", b"<|begin|>", b"aa"]),
            merges.clone(),
            integer("tokenizer.ggml.bos_token_id", 1),
        ];
        entries.extend(pre.map(|pre| label("tokenizer.ggml.pre", pre.as_bytes())));
        entries.extend_from_slice(more);
        let tokenizer = Tokenizer::from_gguf(&open(&entries)).unwrap();
        let template = ChatTemplate::new(template, [("bos_token".to_owned(), "<|begin|>".to_owned())]).unwrap();
        template.tokenize(&tokenizer, &Conversation::new([Message::new("user", "aa")])).unwrap()
    };
    let (with, without) = ("{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}");
    // By the key, by what is usual for its kind, and never twice.
    assert_eq!(tokens(Some("gpt-2"), &[], without), [2]);
    assert_eq!(tokens(None, &[], without), [2]);
    assert_eq!(tokens(Some("gpt-2"), &[flag(true)], without), [1, 2]);
    assert_eq!(tokens(Some("llama-bpe"), &[], without), [1, 2]);
    assert_eq!(tokens(Some("llama-bpe"), &[flag(false)], without), [2]);
    assert_eq!(tokens(Some("llama-bpe"), &[flag(true)], with), [1, 2]);
}

#[test]
fn one_part_of_several_and_a_pointer_are_called_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model-00001-of-00002.gguf");
    std::fs::write(&path, bytes(&[integer("split.count", 2)])).unwrap();
    let message = ModelFiles::open(&path).unwrap_err().to_string();
    assert!(message.contains("one of 2 parts"), "{message}");
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n").unwrap();
    let message = ModelFiles::open(&path).unwrap_err().to_string();
    assert!(message.contains("Git LFS pointer"), "{message}");
}
