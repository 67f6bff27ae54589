//! A small made-up Llama 3 against mlx-lm: safetensors, a separate output matrix, rope scaling, biases, and layers with
//! different quantizations. `tests/oracle/tiny_llama.py` made the reference from the same formulas.

#![allow(clippy::unwrap_used, clippy::similar_names)]

use std::collections::BTreeMap;
use std::path::Path;

use hive_model::shard::Input;
use hive_model::{Compute, Output, Sampling, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// Numbers from a tensor's name: a linear congruential generator, seeded by FNV-1a.
fn numbers(name: &str, count: usize) -> Vec<u32> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 33) as u32)
    };
    std::iter::repeat_with({
        let mut state = seed;
        move || next(&mut state).unwrap()
    })
    .take(count)
    .collect()
}

fn floats(name: &str, count: usize, scale: f32, offset: f32) -> Vec<f32> {
    let unit = |n: u32| n as f32 / 2f32.powi(31) - 0.5;
    numbers(name, count).into_iter().map(|n| unit(n) * scale + offset).collect()
}

#[derive(Default)]
struct Folder(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Folder {
    fn floats(&mut self, name: String, shape: Vec<usize>, values: &[f32]) {
        self.0.insert(name, (Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }

    fn matrix(&mut self, config: &Value, name: &str, rows: usize, columns: usize, bias: bool) {
        let table = &config["quantization"];
        let quantization = table.get(name).unwrap_or(table);
        if quantization == &Value::Bool(false) {
            self.floats(format!("{name}.weight"), vec![rows, columns], &floats(name, rows * columns, 0.3, 0.0));
        } else {
            let number = |key: &str| quantization[key].as_u64().unwrap() as usize;
            let (bits, group) = (number("bits"), number("group_size"));
            let words = rows * columns * bits / 32;
            let (low, high) = (numbers(name, words), numbers(&format!("{name}+"), words));
            let packed = low.iter().zip(&high).flat_map(|(l, h)| (l ^ (h << 16)).to_le_bytes()).collect();
            self.0.insert(format!("{name}.weight"), (Dtype::U32, vec![rows, columns * bits / 32], packed));
            let offset = if bits == 4 { 0.02 } else { 0.0015 };
            let scales = floats(&format!("{name}.scales"), rows * columns / group, 0.002, offset);
            let biases: Vec<f32> = scales.iter().map(|s| -s * if bits == 4 { 7.5 } else { 127.5 }).collect();
            self.floats(format!("{name}.scales"), vec![rows, columns / group], &scales);
            self.floats(format!("{name}.biases"), vec![rows, columns / group], &biases);
        }
        if bias {
            let name = format!("{name}.bias");
            let values = floats(&name, rows, 0.5, 0.0);
            self.floats(name, vec![rows], &values);
        }
    }

    fn norm(&mut self, name: &str, width: usize) {
        let name = format!("{name}.weight");
        let values = floats(&name, width, 0.5, 1.0);
        self.floats(name, vec![width], &values);
    }
}

fn write(config: &Value, to: &Path) {
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, inner, vocabulary) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    let (q, kv) = (size("num_attention_heads") * size("head_dim"), size("num_key_value_heads") * size("head_dim"));
    let mut folder = Folder::default();
    for layer in 0..size("num_hidden_layers") {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, rows, columns, bias) in [
            ("self_attn.q_proj", q, hidden, true),
            ("self_attn.k_proj", kv, hidden, true),
            ("self_attn.v_proj", kv, hidden, true),
            ("self_attn.o_proj", hidden, q, true),
            ("mlp.gate_proj", inner, hidden, false),
            ("mlp.up_proj", inner, hidden, false),
            ("mlp.down_proj", hidden, inner, false),
        ] {
            folder.matrix(config, &name(part), rows, columns, bias);
        }
        folder.norm(&name("input_layernorm"), hidden);
        folder.norm(&name("post_attention_layernorm"), hidden);
    }
    folder.matrix(config, "model.embed_tokens", vocabulary, hidden, false);
    folder.matrix(config, "lm_head", vocabulary, hidden, false);
    folder.norm("model.norm", hidden);
    // In two files, like large models.
    let views = folder
        .0
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let (first, second): (Vec<_>, Vec<_>) = views.partition(|(name, _)| name.starts_with("model.layers.1."));
    for (number, part) in [first, second].into_iter().enumerate() {
        let file = to.join(format!("model-0000{}-of-00002.safetensors", number + 1));
        safetensors::serialize_to_file(part, None, &file).unwrap();
    }
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

/// The reference, the folder of the model, and the opened model.
fn tiny() -> (Value, tempfile::TempDir, ModelFiles) {
    let reference: Value = serde_json::from_str(include_str!("../../../tests/oracle/tiny_llama.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&reference["config"], folder.path());
    let files = ModelFiles::open(folder.path()).unwrap();
    (reference, folder, files)
}

#[test]
fn logits_are_mlx_lms_with_both_kinds_of_kernels() {
    let (reference, _folder, files) = tiny();
    let tokens: Vec<u32> = reference["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    for compute in [Compute::Plain, Compute::Fast] {
        let mut shard = Shard::load(&files, &ShardOptions { layers: 0..3, compute }, |_| ()).unwrap();
        assert_eq!(shard.is_fast(), compute == Compute::Fast);
        for (at, expected) in reference["logits"].as_object().unwrap() {
            let at: usize = at.parse().unwrap();
            let logits = shard.logits_of(&tokens[..=at]).unwrap();
            let off =
                logits.iter().zip(expected.as_array().unwrap()).map(|(a, b)| (a - b.as_f64().unwrap() as f32).abs());
            let worst = off.fold(0.0, f32::max);
            assert!(worst < 1e-4, "{compute:?}, position {at}: off by {worst}");
        }
    }
}

#[test]
fn a_shard_reads_its_own_layers_only() {
    let (_, folder, files) = tiny();
    // The file with layer 1 loses its data; its header stays.
    let file = folder.path().join("model-00001-of-00002.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(bytes.len() as u64 / 10).unwrap();
    let load = |layers| Shard::load(&files, &ShardOptions { layers, compute: Compute::Fast }, |_| ());
    assert!(load(0..1).is_ok());
    assert!(load(2..3).is_ok());
    let message = load(1..2).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("model.layers.1."), "{message}");
}

/// A shard's output for the next tokens of a session.
fn step(shard: &mut Shard, session: SessionId, position: usize, input: Input) -> Output {
    shard.forward(&[Slot { session, position, input, sample: true }]).remove(0).unwrap()
}

#[test]
fn a_session_that_was_carried_goes_on_with_the_same_bits() {
    let (_, _folder, files) = tiny();
    let session = SessionId(7);
    // Earlier tokens affect the next one, so they must be exported, too.
    let sampling = Sampling { temperature: 0.8, seed: 5, repetition_penalty: 1.5, ..Sampling::default() };
    for (compute, length) in [(Compute::Plain, 3), (Compute::Plain, 300), (Compute::Fast, 3), (Compute::Fast, 300)] {
        let load = |layers| Shard::load(&files, &ShardOptions { layers, compute }, |_| ()).unwrap();
        let (mut first, mut last, mut elsewhere) = (load(0..1), load(1..3), load(1..3));
        let prompt: Vec<u32> = (0..length).map(|n| n % 96).collect();
        let options =
            SessionOptions { sampling: sampling.clone(), prompt: prompt.clone(), ..SessionOptions::default() };
        first.open(session, options.clone()).unwrap();
        last.open(session, options.clone()).unwrap();
        let mut next = |last: &mut Shard, position, tokens: Vec<u32>| {
            let Output::Hidden(hidden) = step(&mut first, session, position, Input::Tokens(tokens)) else { panic!() };
            match step(last, session, position, Input::Hidden(hidden.clone())) {
                Output::Token(sampled) => (sampled.token, hidden),
                other => panic!("{other:?}"),
            }
        };
        let (mut token, _) = next(&mut last, 0, prompt);
        let mut position = length as usize;
        for _ in 0..4 {
            (token, _) = next(&mut last, position, vec![token]);
            position += 1;
        }
        let carried = last.export(session).unwrap();
        assert_eq!((carried.position, carried.answer.len()), (position, 5));
        let caches: Vec<_> = (0..2).map(|layer| last.export_kv(session, layer).unwrap()).collect();
        assert!(last.export_kv(session, 2).is_err());
        elsewhere.import_kv(session, options, carried, &caches).unwrap();
        for _ in 0..8 {
            let (here, hidden) = next(&mut last, position, vec![token]);
            let Output::Token(there) = step(&mut elsewhere, session, position, Input::Hidden(hidden)) else { panic!() };
            assert_eq!(there.token, here, "{compute:?} at {position}");
            (token, position) = (here, position + 1);
        }
        // The caches themselves, for everything computed in both places.
        assert!(last.export_kv(session, 1).unwrap() == elsewhere.export_kv(session, 1).unwrap(), "{compute:?}");
    }
}

#[test]
fn an_answer_with_penalties_runs_ahead_to_the_tokens_that_the_host_would_choose() {
    let (_, _folder, files) = tiny();
    let layers = 0..3;
    let mut shard = Shard::load(&files, &ShardOptions { layers, compute: Compute::Plain }, |_| ()).unwrap();
    let prompt = vec![1, 5, 9, 5, 2];
    let penalties = Sampling {
        repetition_penalty: 1.4,
        presence_penalty: 0.3,
        frequency_penalty: 0.2,
        logit_bias: [(7, 0.5)].into(),
        ..Sampling::default()
    };
    let of_host = Sampling { logprobs: Some(0), ..penalties.clone() };
    let [ahead, host, free] = [1, 2, 3].map(SessionId);
    let mut first = Vec::new();
    for (session, sampling) in [(ahead, penalties), (host, of_host), (free, Sampling::default())] {
        let options = SessionOptions { sampling, prompt: prompt.clone(), ..SessionOptions::default() };
        shard.open(session, options).unwrap();
        let Output::Token(sampled) = step(&mut shard, session, 0, Input::Tokens(prompt.clone())) else { panic!() };
        first.push(sampled.token);
    }
    let decoded = |shard: &mut Shard, session, mut token: u32| {
        let one = |position| {
            let Output::Token(sampled) = step(shard, session, position, Input::Tokens(vec![token])) else { panic!() };
            token = sampled.token;
            token
        };
        (prompt.len()..prompt.len() + 20).map(one).collect::<Vec<_>>()
    };
    let expected = decoded(&mut shard, host, first[1]);
    assert_ne!(expected, decoded(&mut shard, free, first[2]), "the penalties change nothing");

    let slot = |position, token| Slot { session: ahead, position, input: Input::Tokens(vec![token]), sample: true };
    let batch = [slot(prompt.len(), first[0])];
    assert!(shard.can_run_ahead(&batch));
    let mut running = shard.start(&batch).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let after = shard.start_after(&running).unwrap().unwrap();
        let (_, _, output) = shard.finish(&running, |_| true).remove(0);
        let Output::Token(sampled) = output.unwrap() else { panic!() };
        tokens.push(sampled.token);
        running = after;
    }
    assert_eq!(tokens, expected);
}

#[test]
fn caches_that_do_not_fit_are_refused() {
    let (_, _folder, files) = tiny();
    let load = |compute| Shard::load(&files, &ShardOptions { layers: 0..3, compute }, |_| ()).unwrap();
    let (mut fast, mut plain) = (load(Compute::Fast), load(Compute::Plain));
    let (session, options) = (SessionId(7), SessionOptions::default());
    fast.open(session, options.clone()).unwrap();
    step(&mut fast, session, 0, Input::Tokens(vec![1, 2, 3]));
    let carried = fast.export(session).unwrap();
    let caches: Vec<_> = (0..3).map(|layer| fast.export_kv(session, layer).unwrap()).collect();
    let other_kernels = plain.import_kv(session, options.clone(), carried.clone(), &caches).unwrap_err().to_string();
    assert!(other_kernels.contains("other kernels"), "{other_kernels}");
    assert!(fast.import_kv(session, options.clone(), carried.clone(), &caches[..2]).is_err());
    let mut cut = caches.clone();
    cut[1].pop();
    assert!(fast.import_kv(session, options.clone(), carried.clone(), &cut).is_err());
    let mut claims = carried.clone();
    claims.position = usize::MAX / 2;
    assert!(fast.import_kv(session, options.clone(), claims, &caches).is_err());
    // A refusal leaves open sessions as they were.
    assert_eq!(fast.position(session), Some(3));
    fast.import_kv(session, options, carried, &caches).unwrap();
}
