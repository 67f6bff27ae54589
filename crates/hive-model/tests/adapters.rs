//! LoRA adapters give what mlx-lm gives, on any cut and with any kernels, alone and beside sessions without them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use hive_model::sampling::Sampled;
use hive_model::shard::{Input, Output};
use hive_model::{AdapterId, Compute, ForwardError, Sampling, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;
use hive_weights::adapter::Adapter;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

const TOLERANCE: f32 = 1e-3;
/// The length of a chunk of the prompt; some of the reference's logits are after the end of one.
const CHUNK: usize = 7;

const ID: AdapterId = AdapterId([3; 32]);
const WITH: SessionId = SessionId(1);
const WITHOUT: SessionId = SessionId(2);

/// The two files of an adapter.
struct Files {
    config: Value,
    tensors: Vec<u8>,
}

impl Files {
    fn load_into(&self, shard: &mut Shard) {
        let config = self.config.to_string();
        let adapter = Adapter::open(config.as_bytes(), &self.tensors).unwrap();
        shard.load_adapter(ID, &adapter, |_| false, |_| ()).unwrap();
    }

    /// The same adapter as PEFT writes it.
    fn as_peft(&self) -> Self {
        let mlx = SafeTensors::deserialize(&self.tensors).unwrap();
        let mut transposed = BTreeMap::new();
        let mut rank = 0;
        for (name, tensor) in mlx.tensors() {
            let [rows, columns] = [tensor.shape()[0], tensor.shape()[1]];
            let (module, part) = name.rsplit_once('.').unwrap();
            let part = match part {
                "lora_a" => "lora_A",
                "lora_b" => "lora_B",
                other => panic!("{other}"),
            };
            if part == "lora_B" {
                rank = rows;
            }
            let data = tensor.data();
            let number = |column: usize, row: usize| {
                let at = (row * columns + column) * 4;
                &data[at..at + 4]
            };
            let numbers = (0..columns).flat_map(|column| (0..rows).flat_map(move |row| number(column, row)).copied());
            let name = format!("base_model.model.{module}.{part}.weight");
            transposed.insert(name, (vec![columns, rows], numbers.collect::<Vec<u8>>()));
        }
        let views = transposed.iter().map(|(name, (shape, bytes))| {
            (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let scale = self.config["lora_parameters"]["scale"].as_f64().unwrap();
        Self {
            config: json!({ "peft_type": "LORA", "r": rank, "lora_alpha": scale * rank as f64, "bias": "none" }),
            tensors: safetensors::serialize(views, None).unwrap(),
        }
    }
}

/// What mlx-lm says, with or without the adapter.
struct Reference {
    decoded: Vec<u32>,
    logits: BTreeMap<usize, Vec<f32>>,
    largest: f32,
}

impl Reference {
    fn new(part: &Value) -> Self {
        let logits: BTreeMap<usize, Vec<f32>> = serde_json::from_value(part["logits"].clone()).unwrap();
        let largest = logits.values().flatten().fold(0f32, |largest, logit| largest.max(logit.abs()));
        Self { decoded: serde_json::from_value(part["decoded"].clone()).unwrap(), logits, largest }
    }

    fn check(&self, at: usize, prompt: usize, sampled: &Sampled, what: &str) {
        if at + 1 >= prompt {
            assert_eq!(sampled.token, self.decoded[at + 1 - prompt], "{what}: the token after {at}");
        }
        let Some(expected) = self.logits.get(&at) else { return };
        assert_eq!(sampled.top.len(), expected.len());
        let normalizer = expected.iter().map(|logit| logit.exp()).sum::<f32>().ln();
        for (id, logprob) in &sampled.top {
            let off = (logprob - (expected[*id as usize] - normalizer)).abs() / self.largest;
            assert!(off < TOLERANCE, "{what}: off by {off} after {at}");
        }
    }
}

struct Case {
    name: String,
    files: ModelFiles,
    uncut: Vec<usize>,
    adapter: Files,
    prompt: Vec<u32>,
    with: Reference,
    without: Reference,
}

/// The tensors of a folder, which are in several files, as one.
fn in_one_file(folder: &Path) -> Vec<u8> {
    let files = [1, 2].map(|number| fs::read(folder.join(format!("model-0000{number}-of-00002.safetensors"))).unwrap());
    let files = files.each_ref().map(|file| SafeTensors::deserialize(file).unwrap());
    safetensors::serialize(files.iter().flat_map(SafeTensors::tensors), None).unwrap()
}

fn cases(folder: &Path) -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle/adapters.json");
    let fixture: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let variants = fixture["variants"].as_array().unwrap();
    let case = |(index, variant): (usize, &Value)| {
        let [model, adapter] = ["model", "adapter"].map(|name| {
            let path = folder.join(format!("{index}-{name}"));
            fs::create_dir(&path).unwrap();
            path
        });
        assert_eq!(formula::write(variant, &model), variant["sha256"]);
        let mut own = variant["adapter"].clone();
        own["seed"] = variant["seed"].clone();
        assert_eq!(formula::write(&own, &adapter), own["sha256"]);
        Case {
            name: format!("{}, {}", variant["family"], variant["name"]),
            files: ModelFiles::open(&model).unwrap(),
            uncut: serde_json::from_value(variant["uncut"].clone()).unwrap(),
            adapter: Files { config: own["config"].clone(), tensors: in_one_file(&adapter) },
            prompt: serde_json::from_value(variant["tokens"].clone()).unwrap(),
            with: Reference::new(&variant["with"]),
            without: Reference::new(&variant["without"]),
        }
    };
    variants.iter().enumerate().map(case).collect()
}

fn options(adapter: Option<AdapterId>) -> SessionOptions {
    let sampling = Sampling { logprobs: Some(u8::MAX), ..Sampling::default() };
    SessionOptions { sampling, adapter, ..SessionOptions::default() }
}

/// The stages of a cut, with the adapter loaded.
fn load(case: &Case, cut: &[Range<usize>], compute: Compute, adapter: &Files) -> Vec<Shard> {
    let load = |layers: &Range<usize>| {
        let options = ShardOptions { layers: layers.clone(), compute };
        let mut shard = Shard::load(&case.files, &options, |_| ()).unwrap();
        adapter.load_into(&mut shard);
        shard
    };
    cut.iter().map(load).collect()
}

fn cuts(case: &Case) -> Vec<Vec<Range<usize>>> {
    let layers = case.files.config().layers;
    let places: Vec<usize> = (1..layers).filter(|at| !case.uncut.contains(at)).collect();
    let two = places.iter().map(|&at| vec![0..at, at..layers]);
    let three = places.windows(2).map(|pair| vec![0..pair[0], pair[0]..pair[1], pair[1]..layers]);
    std::iter::once(std::iter::once(0..layers).collect()).chain(two).chain(three).collect()
}

/// Passes tokens of several sessions through all stages, in one batch.
fn step(stages: &mut [Shard], position: usize, sessions: &[(SessionId, Vec<u32>)]) -> Vec<Sampled> {
    let mut inputs: Vec<Input> = sessions.iter().map(|(_, tokens)| Input::Tokens(tokens.clone())).collect();
    for stage in stages {
        let slots = sessions.iter().zip(inputs.drain(..));
        let slots: Vec<Slot> =
            slots.map(|((session, _), input)| Slot { session: *session, position, input, sample: true }).collect();
        let mut sampled = Vec::new();
        for output in stage.forward(&slots) {
            match output.unwrap() {
                Output::Hidden(hidden) => inputs.push(Input::Hidden(hidden)),
                Output::Token(token) => sampled.push(token),
                Output::Nothing => panic!("nothing was sampled"),
            }
        }
        if !sampled.is_empty() {
            return sampled;
        }
    }
    panic!("the last stage has sampled nothing");
}

/// Runs the conversation for these sessions together; returns what was sampled after each position, for each of them.
fn run(case: &Case, stages: &mut [Shard], sessions: &[SessionId], what: &str) -> Vec<Vec<(u32, f32)>> {
    let of = |session: SessionId| if session == WITH { &case.with } else { &case.without };
    for stage in &mut *stages {
        for session in sessions {
            stage.open(*session, options((*session == WITH).then_some(ID))).unwrap();
        }
    }
    let (prompt, end) = (case.prompt.len(), case.prompt.len() + case.with.decoded.len() - 1);
    let token = |session: SessionId, at: usize| {
        case.prompt.get(at).copied().unwrap_or_else(|| of(session).decoded[at - prompt])
    };
    let (mut position, mut all) = (0, Vec::new());
    while position < end {
        let next = if position < prompt { prompt.min(position + CHUNK) } else { position + 1 };
        let tokens = |session: &SessionId| (*session, (position..next).map(|at| token(*session, at)).collect());
        let tokens: Vec<_> = sessions.iter().map(tokens).collect();
        for (session, sampled) in sessions.iter().zip(step(stages, position, &tokens)) {
            of(*session).check(next - 1, prompt, &sampled, &format!("{}, {what}, {session:?}", case.name));
            all.push(sampled.top);
        }
        position = next;
    }
    all
}

#[test]
fn answers_with_an_adapter_are_mlx_lms_on_every_cut_alone_and_beside_answers_without() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases(folder.path()) {
        for compute in [Compute::Plain, Compute::Fast] {
            let mut bits: Option<Vec<Vec<(u32, f32)>>> = None;
            for cut in cuts(&case) {
                let mut stages = load(&case, &cut, compute, &case.adapter);
                let what = format!("{compute:?} on {cut:?}");
                let with = run(&case, &mut stages, &[WITH], &what);
                let without = run(&case, &mut stages, &[WITHOUT], &what);
                let both = run(&case, &mut stages, &[WITHOUT, WITH], &what);
                assert!(with.iter().zip(&without).any(|(a, b)| a != b), "the adapter changes nothing");
                if stages.iter().all(Shard::is_fast) {
                    let together: Vec<_> =
                        without.iter().zip(&with).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
                    assert!(both == together, "{}, {what}: other bits beside another session", case.name);
                    let first = bits.get_or_insert_with(|| with.clone());
                    assert!(*first == with, "{}, {what}: other bits than on another cut", case.name);
                }
            }
        }
    }
}

#[test]
fn an_adapter_as_peft_writes_it_is_the_same_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases(folder.path()) {
        let cut: Vec<Range<usize>> = std::iter::once(0..case.files.config().layers).collect();
        let of = |adapter: &Files| run(&case, &mut load(&case, &cut, Compute::Auto, adapter), &[WITH], "whole");
        assert!(of(&case.adapter) == of(&case.adapter.as_peft()), "{}", case.name);
    }
}

#[test]
fn a_session_keeps_its_adapter_when_it_is_rolled_back_carried_continued_and_run_ahead() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases(folder.path()) {
        for compute in [Compute::Plain, Compute::Fast] {
            let cut: Vec<Range<usize>> = std::iter::once(0..case.files.config().layers).collect();
            let mut shard = load(&case, &cut, compute, &case.adapter).remove(0);
            let what = format!("{}, {compute:?}", case.name);
            let prompt = case.prompt.len();
            shard.open(WITH, options(Some(ID))).unwrap();
            let mut stages = [shard];
            step(&mut stages, 0, &[(WITH, case.prompt.clone())]);
            let [shard] = &mut stages;
            let at = shard.rollback(WITH, prompt - 1).unwrap();
            step(&mut stages, at, &[(WITH, case.prompt[at..].to_vec())]);
            // Carried to another id, as to another machine.
            let [shard] = &mut stages;
            let carried = shard.export(WITH).unwrap();
            let layers: Vec<_> = (0..cut[0].len()).map(|layer| shard.export_kv(WITH, layer).unwrap()).collect();
            let moved = SessionId(9);
            shard.import_kv(moved, options(Some(ID)), carried, &layers).unwrap();
            let sampled = step(&mut stages, prompt, &[(moved, vec![case.with.decoded[0]])]).remove(0);
            case.with.check(prompt, prompt, &sampled, &what);
            // Continued by the next turn.
            let [shard] = &mut stages;
            let next = SessionId(10);
            let at = shard.adopt(moved, next, prompt, options(Some(ID))).unwrap();
            let known: Vec<u32> = case.prompt.iter().copied().chain([case.with.decoded[0]]).collect();
            let sampled = step(&mut stages, at, &[(next, known[at..].to_vec())]).remove(0);
            case.with.check(prompt, prompt, &sampled, &what);
            // Ahead of its tokens, on MLX's kernels.
            let [shard] = &mut stages;
            let ahead = SessionId(11);
            let greedy = SessionOptions { adapter: Some(ID), ..SessionOptions::default() };
            shard.open(ahead, greedy).unwrap();
            let first = Slot { session: ahead, position: 0, input: Input::Tokens(case.prompt.clone()), sample: true };
            shard.forward(&[first]).remove(0).unwrap();
            let input = Input::Tokens(vec![case.with.decoded[0]]);
            let slots = [Slot { session: ahead, position: prompt, input, sample: true }];
            assert_eq!(shard.can_run_ahead(&slots), !shard.is_fast());
            if shard.can_run_ahead(&slots) {
                let first = shard.start(&slots).unwrap();
                let second = shard.start_after(&first).unwrap().unwrap();
                for (step, expected) in [first, second].iter().zip(&case.with.decoded[1..]) {
                    let (_, _, output) = shard.finish(step, |_| true).remove(0);
                    let Output::Token(sampled) = output.unwrap() else { panic!("no token") };
                    assert_eq!(sampled.token, *expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_and_a_session_of_an_unknown_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    let [llama, biased, .., latent] = &cases[..] else { panic!("too few cases") };
    let whole = |case: &Case| {
        let options = ShardOptions { layers: 0..case.files.config().layers, compute: Compute::Auto };
        Shard::load(&case.files, &options, |_| ()).unwrap()
    };
    let refused = |shard: &mut Shard, files: &Files| {
        let config = files.config.to_string();
        let adapter = Adapter::open(config.as_bytes(), &files.tensors).unwrap();
        let why = shard.load_adapter(ID, &adapter, |_| false, |_| ()).unwrap_err().to_string();
        assert!(shard.adapters().is_empty() && !why.contains('\n'));
        why
    };
    let why = refused(&mut whole(biased), &llama.adapter);
    assert!(why.starts_with("the adapter"), "{why}");
    let why = refused(&mut whole(llama), &biased.adapter);
    assert!(why.contains("was made for another model: its model.layers.1.mlp.down_proj has 100 inputs"), "{why}");
    let why = refused(&mut whole(llama), &latent.adapter);
    assert!(why.contains("which this model does not have or which adapters cannot change here"), "{why}");
    // A stage checks its own layers; those that no stage has are of another model, too.
    let first = ShardOptions { layers: 0..1, compute: Compute::Auto };
    let mut first = Shard::load(&biased.files, &first, |_| ()).unwrap();
    let why = refused(&mut first, &llama.adapter);
    assert!(why.contains("model.layers.3") || why.contains("model.layers.4"), "{why}");

    let mut shard = whole(llama);
    let unknown = shard.open(WITH, options(Some(ID))).unwrap_err();
    assert!(matches!(unknown, ForwardError::UnknownAdapter(ID)), "{unknown}");
    llama.adapter.load_into(&mut shard);
    shard.open(WITH, options(Some(ID))).unwrap();
    assert_eq!(shard.adapters(), [ID]);
}
