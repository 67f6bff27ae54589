//! Sessions that decode together on MLX's kernels share buffers and go through attention together, and their answers are
//! those that each gets alone.

#![allow(clippy::unwrap_used)]

#[path = "../../hive-weights/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::ops::Range;

use common::{HIDDEN, LAYERS, VOCABULARY, write_tiny_model};
use hive_model::shard::{ForwardError, Input};
use hive_model::{Compute, Output, Sampling, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;

/// Bytes of 256 positions of one session: a head of 16 numbers for keys and one for values, in each layer.
const BLOCK_BYTES: usize = 256 * 2 * 16 * 4 * LAYERS;

/// A made-up model with a context of 4,096 tokens; `change` may modify its numbers.
fn model(change: impl FnMut(&str, &mut [f32])) -> (tempfile::TempDir, ModelFiles) {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), change);
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("512", "4096");
    std::fs::write(&config, text).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    (folder, files)
}

/// Whether MLX's kernels compute a row with the same bits in any batch: those for CPUs do, where it multiplies itself.
fn exactly() -> bool {
    cfg!(target_os = "linux") && !hive_model::device::is_gpu()
}

/// The likeliest tokens come with their probabilities, which are compared.
fn options() -> SessionOptions {
    SessionOptions { sampling: Sampling { logprobs: Some(20), ..Sampling::default() }, ..SessionOptions::default() }
}

/// One shard for all sessions, and one where each is computed alone.
struct Pair {
    together: Shard,
    alone: Shard,
    positions: BTreeMap<u128, usize>,
}

impl Pair {
    fn load(files: &ModelFiles, layers: Range<usize>) -> Self {
        let load = || {
            let options = ShardOptions { layers: layers.clone(), compute: Compute::Plain };
            Shard::load(files, &options, |_| ()).unwrap()
        };
        Self { together: load(), alone: load(), positions: BTreeMap::new() }
    }

    /// Opens sessions with prompts of these lengths.
    fn open(&mut self, lengths: &[(u128, usize)]) {
        for &(session, length) in lengths {
            self.together.open(SessionId(session), options()).unwrap();
            self.alone.open(SessionId(session), options()).unwrap();
            self.positions.insert(session, 0);
            self.step(&[(session, length)]);
        }
    }

    fn slot(&self, session: u128, rows: usize) -> Slot {
        let position = self.positions[&session];
        let token = |at: usize| (session as u32 * 5 + at as u32 * 11) % 47;
        // Token 7 is the bad one.
        let tokens = (position..position + rows).map(|at| if token(at) == 7 { 47 } else { token(at) }).collect();
        Slot { session: SessionId(session), position, input: Input::Tokens(tokens), sample: true }
    }

    /// Computes this many tokens of each of these sessions in one batch, and alone, and compares.
    fn step(&mut self, batch: &[(u128, usize)]) {
        let slots: Vec<Slot> = batch.iter().map(|&(session, rows)| self.slot(session, rows)).collect();
        let results = self.together.forward(&slots);
        assert_eq!(results.len(), slots.len());
        for (slot, result) in slots.iter().zip(results) {
            let expected = self.alone.forward(std::slice::from_ref(slot)).remove(0).unwrap();
            compare(&result.unwrap(), &expected);
            *self.positions.get_mut(&slot.session.0).unwrap() += slot.input.rows();
        }
    }

    /// Decodes one token of each of these sessions.
    fn decode(&mut self, batch: &[u128]) {
        self.step(&batch.iter().map(|&session| (session, 1)).collect::<Vec<_>>());
    }

    /// Closes a session here and there.
    fn close(&mut self, session: u128) {
        self.together.close(SessionId(session));
        self.alone.close(SessionId(session));
        self.positions.remove(&session);
    }

    fn rollback(&mut self, session: u128, position: usize) {
        self.together.rollback(SessionId(session), position).unwrap();
        self.alone.rollback(SessionId(session), position).unwrap();
        self.positions.insert(session, position);
    }

    /// The blocks of 256 positions that the caches hold.
    fn blocks(&self) -> usize {
        assert!(self.together.kv_bytes().is_multiple_of(BLOCK_BYTES));
        self.together.kv_bytes() / BLOCK_BYTES
    }
}

fn compare(output: &Output, expected: &Output) {
    match (output, expected) {
        (Output::Token(one), Output::Token(other)) => {
            assert_eq!(one.token, other.token);
            let numbers = |top: &[(u32, f32)]| top.iter().map(|(_, number)| *number).collect::<Vec<_>>();
            compare_numbers(&numbers(&one.top), &numbers(&other.top));
        }
        (Output::Hidden(one), Output::Hidden(other)) => compare_numbers(&floats(&one.bytes), &floats(&other.bytes)),
        other => panic!("{other:?}"),
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn compare_numbers(numbers: &[f32], expected: &[f32]) {
    assert!(!numbers.is_empty() && numbers.len() == expected.len());
    for (number, expected) in numbers.iter().zip(expected) {
        let is_same = if exactly() { number == expected } else { (number - expected).abs() < 1e-3 };
        assert!(is_same, "{number} instead of {expected}");
    }
}

#[test]
fn sessions_of_any_lengths_decode_together_as_each_does_alone() {
    let (_folder, files) = model(|_, _| ());
    let mut pair = Pair::load(&files, 0..LAYERS);
    // One with a token less than a block, so that its buffer grows.
    pair.open(&[(1, 3), (2, 40), (3, 253), (4, 40), (5, 1)]);
    for _ in 0..8 {
        pair.decode(&[1, 2, 3, 4, 5]);
    }
    // In another order; some of them; joined by another; with a prompt beside them.
    pair.decode(&[5, 3, 1, 2, 4]);
    for subset in [&[1, 2][..], &[3, 4, 5], &[4, 1], &[2], &[5, 4, 3, 1], &[3, 2]] {
        pair.decode(subset);
    }
    pair.open(&[(6, 17)]);
    for _ in 0..3 {
        pair.decode(&[1, 2, 3, 4, 5, 6]);
    }
    pair.step(&[(1, 1), (2, 30), (3, 1), (4, 1)]);
    pair.step(&[(6, 300), (3, 2), (1, 1)]);
    for _ in 0..3 {
        pair.decode(&[6, 2, 1, 4, 3, 5]);
    }
    pair.close(4);
    pair.decode(&[1, 2, 3, 5, 6]);
}

#[test]
fn sessions_share_a_buffer_once_they_decode_together_twice_and_leave_nothing_behind() {
    let (_folder, files) = model(|_, _| ());
    let mut pair = Pair::load(&files, 0..LAYERS);
    pair.open(&[(1, 20), (2, 300), (3, 290), (4, 2)]);
    assert_eq!(pair.blocks(), 1 + 2 + 2 + 1);
    pair.decode(&[1, 2, 3]);
    assert_eq!(pair.blocks(), 1 + 2 + 2 + 1, "they may not come again");
    pair.decode(&[1, 2, 3]);
    // Padded to the longest; the fourth keeps its own.
    assert_eq!(pair.blocks(), 3 * 2 + 1);
    pair.decode(&[3, 1, 2]);
    assert_eq!(pair.blocks(), 3 * 2 + 1, "in any order");
    pair.decode(&[2, 3, 1, 4]);
    assert_eq!(pair.blocks(), 3 * 2 + 1, "somebody beside them changes nothing");
    pair.decode(&[2, 3, 1, 4]);
    // Two of four blocks more: the shorter two would be padding for more than a third.
    assert_eq!(pair.blocks(), 4 * 2);
    pair.step(&[(2, 9)]);
    assert_eq!(pair.blocks(), 3 * 2 + 2, "a part of a prompt is computed in a buffer of its own");
    for _ in 0..2 {
        pair.decode(&[2, 3, 1, 4]);
    }
    pair.close(2);
    assert_eq!(pair.blocks(), 3 * 2);
    pair.close(3);
    assert_eq!(pair.blocks(), 2 * 2);
    pair.close(4);
    assert_eq!(pair.blocks(), 1, "the last one has a buffer of its own again");
    pair.decode(&[1]);
    pair.close(1);
    assert_eq!(pair.blocks(), 0);
}

#[test]
fn a_session_much_longer_than_the_others_keeps_its_own_buffer() {
    let (_folder, files) = model(|_, _| ());
    let mut pair = Pair::load(&files, 0..LAYERS);
    pair.open(&[(1, 3), (2, 1500), (3, 9), (4, 7), (5, 1400), (6, 12)]);
    for _ in 0..4 {
        pair.decode(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(pair.blocks(), 4 + 2 * 6);
    }
    // The shorter ones share: their rows are in order, and two others beside them.
    pair.decode(&[2, 6, 5, 4, 3, 1]);
}

#[test]
fn answers_that_run_ahead_are_those_of_sessions_alone() {
    let (_folder, files) = model(|_, _| ());
    let options = ShardOptions { layers: 0..LAYERS, compute: Compute::Plain };
    let mut shard = Shard::load(&files, &options, |_| ()).unwrap();
    let prompts: BTreeMap<u128, usize> = [(1, 3), (2, 253), (3, 40), (4, 700)].into();
    let start = |shard: &mut Shard, session: u128| {
        let id = SessionId(session);
        shard.open(id, SessionOptions::default()).unwrap();
        let length = prompts[&session];
        let prompt = (0..length).map(|at| (session as u32 * 5 + at as u32 * 11) % 47).collect();
        let slot = Slot { session: id, position: 0, input: Input::Tokens(prompt), sample: true };
        let Output::Token(first) = shard.forward(&[slot]).remove(0).unwrap() else { panic!("no token") };
        Slot { session: id, position: length, input: Input::Tokens(vec![first.token]), sample: true }
    };
    let run = |shard: &mut Shard, slots: &[Slot]| {
        let mut answers: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
        let mut step = shard.start(slots).unwrap();
        for _ in 0..30 {
            let next = shard.start_after(&step).unwrap().unwrap();
            for (session, _, output) in shard.finish(&step, |_| true) {
                let Output::Token(sampled) = output.unwrap() else { panic!("no token") };
                answers.entry(session.0).or_default().push(sampled.token);
            }
            step = next;
        }
        answers
    };
    let alone: BTreeMap<u128, Vec<u32>> = (1..=4)
        .flat_map(|session| {
            let slot = start(&mut shard, session);
            run(&mut shard, &[slot])
        })
        .collect();
    let slots: Vec<Slot> = (1..=4).map(|session| start(&mut shard, session)).collect();
    let own = shard.kv_bytes();
    assert_eq!(run(&mut shard, &slots), alone);
    // The first three share, with two blocks each since the second has grown; the fourth has three.
    assert_eq!((own / BLOCK_BYTES, shard.kv_bytes() / BLOCK_BYTES), (6, 3 * 2 + 3));
}

#[test]
fn a_few_of_many_decode_without_disturbing_those_that_wait() {
    let (_folder, files) = model(|_, _| ());
    let mut pair = Pair::load(&files, 0..LAYERS);
    let all: Vec<u128> = (0..9).collect();
    pair.open(&all.iter().map(|&session| (session, 5 + 3 * session as usize)).collect::<Vec<_>>());
    pair.decode(&all);
    for pick in [&[3, 1][..], &[0, 8], &[4, 5, 6], &[7, 2]] {
        pair.decode(pick);
    }
    pair.decode(&all);
}

#[test]
fn a_session_that_goes_back_is_rolled_back_alone() {
    let (_folder, files) = model(|_, _| ());
    let mut pair = Pair::load(&files, 0..LAYERS);
    pair.open(&[(1, 20), (2, 30), (3, 25)]);
    for _ in 0..4 {
        pair.decode(&[1, 2, 3]);
    }
    pair.rollback(2, 33);
    pair.decode(&[1, 2, 3]);
    pair.rollback(3, 5);
    pair.decode(&[1, 2, 3]);
    pair.rollback(1, 0);
    pair.step(&[(1, 12)]);
    pair.decode(&[3, 2, 1]);
}

#[test]
fn a_session_is_carried_and_adopted_like_any_session() {
    let (_folder, files) = model(|_, _| ());
    let mut pair = Pair::load(&files, 0..LAYERS);
    pair.open(&[(1, 20), (2, 270), (3, 25)]);
    for _ in 0..3 {
        pair.decode(&[1, 2, 3]);
    }
    // Out of the shard and in again.
    for session in [1, 2] {
        let id = SessionId(session);
        let carried = pair.together.export(id).unwrap();
        let caches: Vec<_> = (0..LAYERS).map(|layer| pair.together.export_kv(id, layer).unwrap()).collect();
        let expected: Vec<_> = (0..LAYERS).map(|layer| pair.alone.export_kv(id, layer).unwrap()).collect();
        // Keys, then values; those that count.
        let numbers = pair.positions[&session] * 16;
        for (cache, expected) in caches.iter().zip(&expected) {
            let (cache, expected) = (floats(cache), floats(expected));
            let half = cache.len() / 2;
            compare_numbers(&cache[..numbers], &expected[..numbers]);
            compare_numbers(&cache[half..half + numbers], &expected[half..half + numbers]);
            assert_eq!(cache.len(), expected.len());
        }
        pair.together.import_kv(id, options(), carried, &caches).unwrap();
    }
    pair.decode(&[1, 2, 3]);
    // The next turn of a conversation, a part of which is kept.
    for shard in [&mut pair.together, &mut pair.alone] {
        shard.adopt(SessionId(2), SessionId(9), 200, options()).unwrap();
    }
    pair.positions.remove(&2);
    pair.positions.insert(9, 200);
    pair.step(&[(9, 40), (1, 1), (3, 1)]);
    pair.decode(&[1, 9, 3]);
    pair.decode(&[9, 3, 1]);
}

#[test]
fn a_session_whose_numbers_are_not_finite_fails_alone_and_goes_on_from_where_it_was() {
    // Row 7 of the embedding: only token 7 is bad.
    let (_folder, files) = model(|name, numbers| {
        if name == "model.embed_tokens.weight" {
            assert_eq!(numbers.len(), VOCABULARY * HIDDEN);
            numbers[7 * HIDDEN + 3] = f32::NAN;
        }
    });
    // Without the end of the model, whose matrix is the embedding as well.
    let mut pair = Pair::load(&files, 0..1);
    pair.open(&[(1, 20), (2, 31), (3, 45)]);
    for place in 0..3 {
        pair.decode(&[1, 2, 3]);
        let mut slots: Vec<Slot> = [1, 2, 3].map(|session| pair.slot(session, 1)).into();
        slots[place].input = Input::Tokens(vec![7]);
        for (at, result) in pair.together.forward(&slots).into_iter().enumerate() {
            if at == place {
                assert!(matches!(result, Err(ForwardError::NotFinite(_))), "{result:?}");
                continue;
            }
            let expected = pair.alone.forward(&slots[at..=at]).remove(0).unwrap();
            compare(&result.unwrap(), &expected);
            *pair.positions.get_mut(&slots[at].session.0).unwrap() += 1;
        }
        pair.decode(&[1, 2, 3]);
        // Several rows, whose rest must not count.
        let mut bad = pair.slot(1, 5);
        bad.input = Input::Tokens(vec![7; 5]);
        assert!(pair.together.forward(&[bad]).remove(0).is_err());
        assert_eq!(pair.together.position(SessionId(1)), Some(pair.positions[&1]));
        pair.decode(&[1, 2]);
        pair.decode(&[1, 2, 3]);
    }
}
