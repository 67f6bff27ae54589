//! Older and unusual spellings in GGUF files: read as llama.cpp reads them, or refused by name.

#![allow(clippy::unwrap_used)]

use hive_text::Tokenizer;
use hive_text::template::{ChatTemplate, Conversation, Message};
use hive_weights::config::RopeScaling;
use hive_weights::weights::Gguf;
use hive_weights::{ModelConfig, ModelFiles};

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

/// The metadata of a small Llama, with additions.
fn bytes(more: &[Vec<u8>]) -> Vec<u8> {
    with_tensors(more, &[])
}

/// A tensor's name, ggml type number, values, and their bytes.
type Tensor<'a> = (&'a str, u32, u64, &'a [u8]);

fn with_tensors(more: &[Vec<u8>], tensors: &[Tensor<'_>]) -> Vec<u8> {
    file(&[small("llama"), more.to_vec()].concat(), tensors)
}

/// The metadata of a small model of any architecture.
fn small(architecture: &str) -> Vec<Vec<u8>> {
    let widths = [("block_count", 2), ("embedding_length", 64), ("feed_forward_length", 128), ("vocab_size", 100)];
    let widths = widths.into_iter().chain([("attention.head_count", 4)]);
    let mut entries = vec![label("general.architecture", architecture.as_bytes())];
    entries.extend(widths.map(|(name, number)| integer(&format!("{architecture}.{name}"), number)));
    entries.push(real(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5));
    entries
}

fn file(entries: &[Vec<u8>], tensors: &[Tensor<'_>]) -> Vec<u8> {
    let counts = [tensors.len(), entries.len()].map(|count| (count as u64).to_le_bytes()).concat();
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts, &entries.concat()].concat();
    let mut data = Vec::new();
    for (name, kind, numbers, bytes) in tensors {
        file.extend([text(name.as_bytes()), 1u32.to_le_bytes().to_vec(), numbers.to_le_bytes().to_vec()].concat());
        file.extend([kind.to_le_bytes().to_vec(), (data.len() as u64).to_le_bytes().to_vec()].concat());
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

/// Writes a file, and opens it as a model.
fn opened(bytes: &[u8]) -> Result<ModelFiles, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    ModelFiles::open(&path).map_err(|error| error.to_string())
}

fn open(more: &[Vec<u8>]) -> Gguf {
    open_bytes(&bytes(more))
}

fn open_bytes(bytes: &[u8]) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path).unwrap()
}

fn config(more: &[Vec<u8>]) -> Result<ModelConfig, String> {
    config_of("llama", more)
}

fn config_of(architecture: &str, more: &[Vec<u8>]) -> Result<ModelConfig, String> {
    let gguf = open_bytes(&file(&[small(architecture), more.to_vec()].concat(), &[]));
    ModelConfig::from_gguf(&gguf).map_err(|error| error.to_string())
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
fn other_rope_scalings_are_refused_by_name() {
    for (kind, words) in [("su", "rope scaling su"), ("longrope", "no rope_factors_long.weight")] {
        let scaling = [label("llama.rope.scaling.type", kind.as_bytes()), real("llama.rope.scaling.factor", 4.0)];
        let message = config(&scaling).unwrap_err();
        assert!(message.contains(words), "{message}");
    }
    let message = config(&[real("llama.rope.scaling.attn_factor", 1.2)]).unwrap_err();
    assert!(message.contains("rope scaling with an attention factor"), "{message}");
}

#[test]
fn what_yarn_leaves_out_is_what_llama_cpp_takes() {
    let kind = || label("llama.rope.scaling.type", b"yarn");
    let scaling = |more: &[Vec<u8>]| config(&[&[kind(), real("llama.rope.scaling.factor", 4.0)], more].concat());
    let grown = 0.1 * 4f32.ln() + 1.0;
    let plain = RopeScaling::Yarn {
        factor: 4.0,
        fast: 32.0,
        slow: 1.0,
        original_context: 512.0,
        magnitude: grown,
        truncate: true,
    };
    let context = || real("llama.context_length", 512.0);
    assert_eq!(scaling(&[context()]).unwrap().rope.scaling, plain);
    let given = [
        real("llama.rope.scaling.original_context_length", 64.0),
        real("llama.rope.scaling.yarn_beta_fast", 8.0),
        real("llama.rope.scaling.yarn_beta_slow", 2.0),
        real("llama.rope.scaling.yarn_log_multiplier", 1.0),
    ];
    let other =
        RopeScaling::Yarn { factor: 4.0, fast: 8.0, slow: 2.0, original_context: 64.0, magnitude: 1.0, truncate: true };
    assert_eq!(scaling(&[&given[..], &[context()]].concat()).unwrap().rope.scaling, other);
    assert!(config(&[kind()]).unwrap_err().contains("no rope.scaling.factor"));
    assert!(scaling(&[]).unwrap_err().contains("no rope.scaling.original_context_length"));
}

#[test]
fn factors_of_single_periods_and_a_factor_of_all_positions_count_both() {
    let factors: Vec<u8> = (1..=8u8).flat_map(|factor| f32::from(factor).to_le_bytes()).collect();
    let periods = |more: &[Vec<u8>]| {
        let files = opened(&with_tensors(more, &[("rope_freqs.weight", 0, 8, &factors)])).unwrap();
        files.config().rope.periods(16).unwrap()
    };
    let plain: Vec<f32> = (0..8u8).map(|i| 10_000f32.powf(2.0 * f32::from(i) / 16.0)).collect();
    let expected = |linear: f32| -> Vec<f32> {
        plain.iter().zip(1..=8u8).map(|(period, factor)| period * (f32::from(factor) * linear)).collect()
    };
    assert_eq!(periods(&[]), expected(1.0));
    // Dividing positions by four multiplies periods by four.
    for spelling in ["llama.rope.scaling.factor", "llama.rope.scale_linear"] {
        assert_eq!(periods(&[real(spelling, 4.0)]), expected(4.0), "{spelling}");
    }
    let yarn = [label("llama.rope.scaling.type", b"yarn"), real("llama.rope.scaling.factor", 4.0)];
    let yarn = [&yarn[..], &[real("llama.context_length", 512.0)]].concat();
    let message = opened(&with_tensors(&yarn, &[("rope_freqs.weight", 0, 8, &factors)])).unwrap_err();
    assert!(message.contains("rope_freqs.weight beside another scaling"), "{message}");
    let damaged = [&0f32.to_le_bytes()[..], &factors[4..]].concat();
    assert!(opened(&with_tensors(&[], &[("rope_freqs.weight", 0, 8, &damaged)])).is_err());
}

#[test]
fn a_tensor_that_no_llama_has_is_named() {
    let one = 1f32.to_le_bytes();
    for name in [
        "blk.0.attn_q_norm.weight",
        "blk.1.post_attention_norm.weight",
        "blk.2.attn_q.weight",
        "blk.0.ffn_gate_inp.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        "token_types.weight",
    ] {
        let message = opened(&with_tensors(&[], &[(name, 0, 1, &one)])).unwrap_err();
        assert!(
            message.contains(&format!("a tensor \"{name}\" that models of its architecture do not have")),
            "{message}"
        );
    }
}

#[test]
fn a_quantization_that_is_not_read_is_named_when_the_file_is_opened() {
    for (number, name) in
        [(9, "Q8_1"), (16, "IQ2_XXS"), (21, "IQ3_S"), (29, "IQ1_M"), (34, "TQ1_0"), (40, "NVFP4"), (99, "ggml type 99")]
    {
        let message = opened(&with_tensors(&[], &[("blk.0.attn_q.weight", number, 256, &[])])).unwrap_err();
        let said =
            format!("blk.0.attn_q.weight has type {name}, which is not supported; supported are F32, F16, BF16, Q4_0");
        assert!(message.contains(&said), "{message}");
    }
}

#[test]
fn rotary_positions_on_a_part_of_each_head_are_refused_by_name() {
    assert!(config(&[integer("llama.rope.dimension_count", 16)]).is_ok());
    let message = config(&[integer("llama.rope.dimension_count", 8)]).unwrap_err();
    assert!(message.contains("rotary embedding of only 8 of a head's 16"), "{message}");
}

#[test]
fn only_architectures_that_compute_it_have_rotary_positions_on_a_part_of_each_head() {
    for architecture in ["qwen2", "qwen3", "smollm3", "granite", "olmo2", "gemma3", "mistral3"] {
        let key = format!("{architecture}.rope.dimension_count");
        let rotated = |count| config_of(architecture, &[integer(&key, count)]);
        assert!(rotated(16).is_ok(), "{architecture}");
        let message = rotated(8).unwrap_err();
        assert!(message.contains("rotary embedding of only 8 of a head's 16"), "{architecture}: {message}");
    }
    let phi = |count| config_of("phi3", &[integer("phi3.rope.dimension_count", count)]);
    assert!(phi(8).is_ok());
    assert!(phi(0).unwrap_err().contains("the number of rotated dimensions = 0"));
}

#[test]
fn a_factor_of_zero_on_the_experts_shares_is_none() {
    let experts = [("expert_count", 8), ("expert_used_count", 2), ("expert_feed_forward_length", 32)];
    let experts = experts.map(|(name, number)| integer(&format!("glm4moe.{name}"), number));
    let scaled = |scale: f32| {
        let more = [&experts[..], &[real("glm4moe.expert_weights_scale", scale)]].concat();
        config_of("glm4moe", &more).map(|config| format!("{:?}", config.specs[1].network))
    };
    assert!(scaled(0.0).unwrap().contains("scale: 1.0"));
    assert!(scaled(2.5).unwrap().contains("scale: 2.5"));
    for scale in [f32::NAN, f32::INFINITY, -1.0] {
        let message = scaled(scale).unwrap_err();
        assert!(message.contains("the factor on the experts' shares ="), "{message}");
    }
}

#[test]
fn key_value_heads_may_be_written_for_each_layer_if_they_are_the_same() {
    let each = |numbers: [i32; 2]| {
        let items = numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let items = [&5u32.to_le_bytes()[..], &2u64.to_le_bytes(), &items].concat();
        config(&[[text(b"llama.attention.head_count_kv"), 9u32.to_le_bytes().to_vec(), items].concat()])
    };
    assert_eq!(each([2, 2]).unwrap().kv_heads, 2);
    let message = each([2, 4]).unwrap_err();
    assert!(message.contains("layers with different numbers of key-value heads"), "{message}");
}

#[test]
fn a_sliding_window_is_every_layers() {
    let windows = |more: &[Vec<u8>]| {
        let config = config(more).unwrap();
        config.specs.iter().map(|layer| layer.attention().unwrap().window).collect::<Vec<_>>()
    };
    let window = |tokens| windows(&[integer("llama.attention.sliding_window", tokens)]);
    assert!(window(4096).iter().all(|window| *window == Some(4096)));
    assert!(window(0).iter().chain(&windows(&[])).all(Option::is_none));
}

#[test]
fn attention_that_would_be_computed_otherwise_is_refused_by_name() {
    let causal = |on: bool| [text(b"llama.attention.causal"), 7u32.to_le_bytes().to_vec(), vec![on.into()]].concat();
    assert!(config(&[causal(true), real("llama.rope.scaling.attn_factor", 1.0)]).is_ok());
    let message = config(&[causal(false)]).unwrap_err();
    assert!(message.contains("attention to what comes later"), "{message}");
    let message = config(&[real("llama.rope.scaling.attn_factor", 1.19)]).unwrap_err();
    assert!(message.contains("attention factor"), "{message}");
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
    let named = ["eos", "eom", "eot"].iter().zip([0, 3, 5]);
    let named: Vec<_> = named.map(|(name, id)| integer(&format!("tokenizer.ggml.{name}_token_id"), id)).collect();
    let tokens: [&[u8]; 6] = [b"<|endoftext|>", b"a", b"<|im_end|>", b"<eom>", b"<|im_start|>", b"<turn>"];
    std::fs::write(&path, bytes(&[named, vec![vocabulary(&tokens)]].concat())).unwrap();
    assert_eq!(ModelFiles::open(&path).unwrap().end_tokens(), [0, 5, 3, 2]);
    // Unnamed end tokens are recognized by their text, whatever their type; SentencePiece has an end token of its own.
    for (kind, more, ends) in [
        (&b"gpt2"[..], vec![], vec![1, 3, 4, 5]),
        (b"llama", vec![], vec![2, 1, 3, 4, 5]),
        (b"llama", vec![integer("tokenizer.ggml.eos_token_id", 0)], vec![0, 1, 3, 4, 5]),
    ] {
        let tokens: [&[u8]; 6] = [b"<unk>", b"<|eot_id|>", b"</s>", b"<end_of_turn>", b"<|end|>", b"[EOT]"];
        let entries = [more, vec![label("tokenizer.ggml.model", kind), vocabulary(&tokens)]].concat();
        assert_eq!(opened(&bytes(&entries)).unwrap().end_tokens(), ends);
    }
}

#[test]
fn markers_that_are_typed_as_ordinary_tokens_are_special_and_ordinary_ones_are_not() {
    // By type, ordinary and user-defined tokens; the last one has no type.
    let tokens: [&[u8]; 8] =
        [b"a", b"<|im_end|>", b"</s>", b"[INST]", b"<b>", b"<|im_start|>", b"<start_of_turn>", b"<end_of_turn>"];
    let types: Vec<u8> = [1u32, 1, 1, 1, 4, 4, 4].iter().flat_map(|kind| kind.to_le_bytes()).collect();
    let types = [
        text(b"tokenizer.ggml.token_type"),
        9u32.to_le_bytes().to_vec(),
        [&5u32.to_le_bytes()[..], &7u64.to_le_bytes(), &types].concat(),
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
    assert_eq!(special, ["<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>", "[INST]"]);
    let prompt = "<|im_start|>[INST]a<|im_end|></s>";
    assert_eq!(tokenizer.encode(prompt).unwrap()[..4], [5, 3, 0, 1]);
    assert!(!tokenizer.encode_literal(prompt).unwrap().iter().any(|token| [1, 3, 5, 6, 7].contains(token)));
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
    // From the key, from the default of its kind, and never twice.
    assert_eq!(tokens(Some("gpt-2"), &[], without), [2]);
    assert_eq!(tokens(None, &[], without), [2]);
    assert_eq!(tokens(Some("gpt-2"), &[flag(true)], without), [1, 2]);
    assert_eq!(tokens(Some("llama-bpe"), &[], without), [1, 2]);
    assert_eq!(tokens(Some("llama-bpe"), &[flag(false)], without), [2]);
    assert_eq!(tokens(Some("llama-bpe"), &[flag(true)], with), [1, 2]);
    // SentencePiece begins like this if the file says nothing: with its usual first token.
    let scores = [0f32, 0.0, -1.0].iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<_>>();
    let scores = [&6u32.to_le_bytes()[..], &3u64.to_le_bytes(), &scores].concat();
    let scores = [text(b"tokenizer.ggml.scores"), 9u32.to_le_bytes().to_vec(), scores].concat();
    let sentencepiece =
        [label("tokenizer.ggml.model", b"llama"), vocabulary(&[b"<unk>", b"<s>", "▁".as_bytes()]), scores];
    let leading =
        |more: &[Vec<u8>]| Tokenizer::from_gguf(&open(&[&sentencepiece[..], more].concat())).unwrap().leading();
    assert_eq!((leading(&[]), leading(&[flag(false)])), (Some(1), None));
}

#[test]
fn the_markers_of_phi_3_take_the_line_break_behind_them_as_in_its_own_tokenizer() {
    let merges = [text(b"tokenizer.ggml.merges"), 9u32.to_le_bytes().to_vec(), strings(&[b"a a"])].concat();
    let tokens = |name: &str| {
        let gguf = open(&[
            label("general.name", name.as_bytes()),
            label("tokenizer.ggml.model", b"gpt2"),
            label("tokenizer.ggml.pre", b"gpt-2"),
            vocabulary(&[b"a", "Ċ".as_bytes(), b"<|user|>", b"<|endoftext|>", b"aa"]),
            merges.clone(),
        ]);
        let template = ChatTemplate::new("<|user|>\n{{ messages[0].content }}<|endoftext|>\na", []).unwrap();
        let conversation = Conversation::new([Message::new("user", "a")]);
        template.tokenize(&Tokenizer::from_gguf(&gguf).unwrap(), &conversation).unwrap()
    };
    assert_eq!(tokens("Phi3"), [2, 0, 3, 1, 0]);
    assert_eq!(tokens("Phi-3 Mini 4k Instruct"), [2, 0, 3, 1, 0]);
    assert_eq!(tokens("Another"), [2, 1, 0, 3, 1, 0]);
}

#[test]
fn a_pointer_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n").unwrap();
    let message = ModelFiles::open(&path).unwrap_err().to_string();
    assert!(message.contains("Git LFS pointer"), "{message}");
}
