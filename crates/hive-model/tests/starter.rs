//! The starter model against the references in `tests/oracle`, stage by stage in one process.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, clippy::reversed_empty_ranges)]

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hive_model::shard::{ForwardError, Input, Output};
use hive_model::{Compute, Sampling, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_text::template::{Conversation, Message};
use hive_weights::ModelFiles;
use serde_json::Value;

/// One test at a time: each loads the model, and the number of threads is global.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn starter() -> ModelFiles {
    let path = std::env::var_os("HIVEMIND_STARTER").map(PathBuf::from);
    let path = path.expect("HIVEMIND_STARTER names the starter model; ./dev test sets it");
    ModelFiles::open(&path).unwrap()
}

fn reference() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Whether everything is computed on every split, as `HIVEMIND_TEST_LONG=1` wants it.
fn is_long() -> bool {
    std::env::var_os("HIVEMIND_TEST_LONG").is_some()
}

/// Stages in one process, joined as a ring.
struct Ring(Vec<Shard>);

impl Ring {
    fn load(files: &ModelFiles, splits: &[Range<usize>], compute: Compute) -> Self {
        let load = |layers: &Range<usize>| {
            Shard::load(files, &ShardOptions { layers: layers.clone(), compute }, |_| ()).unwrap()
        };
        Self(splits.iter().map(load).collect())
    }

    fn open(&mut self, session: SessionId, options: &SessionOptions) {
        for shard in &mut self.0 {
            shard.open(session, options.clone()).unwrap();
        }
    }

    fn step(&mut self, session: SessionId, position: usize, tokens: &[u32], sample: bool) -> Option<u32> {
        let mut input = Input::Tokens(tokens.to_vec());
        for shard in &mut self.0 {
            let slot = Slot { session, position, input, sample };
            match shard.forward(&[slot]).remove(0).unwrap() {
                Output::Hidden(hidden) => input = Input::Hidden(hidden),
                Output::Token(sampled) => return Some(sampled.token),
                Output::Nothing => return None,
            }
        }
        panic!("the last stage gave hidden states");
    }

    fn generate(&mut self, prompt: &[u32], count: usize, chunk: usize, sampling: Sampling, end: &[u32]) -> Vec<u32> {
        let session = SessionId(1);
        self.open(session, &SessionOptions { sampling, prompt: prompt.to_vec(), ..SessionOptions::default() });
        let mut position = 0;
        let mut next = None;
        for part in prompt.chunks(chunk) {
            next = self.step(session, position, part, position + part.len() == prompt.len());
            position += part.len();
        }
        let mut tokens = vec![next.unwrap()];
        while tokens.len() < count && !end.contains(tokens.last().unwrap()) {
            tokens.push(self.step(session, position, &[*tokens.last().unwrap()], true).unwrap());
            position += 1;
        }
        tokens
    }
}

const SPLITS: &[&[Range<usize>]] =
    &[&[0..30], &[0..15, 15..30], &[0..3, 3..25, 25..30], &[0..6, 6..12, 12..18, 18..24, 24..30]];

#[test]
fn plain_gives_mlx_lms_tokens_on_any_number_of_stages() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let end = &files.end_tokens();
    let mut rings: Vec<Ring> = SPLITS.iter().map(|splits| Ring::load(&files, splits, Compute::Plain)).collect();
    let cases = reference["greedy"].as_array().unwrap();
    assert!(cases.len() >= 10);
    // Plain kernels are slow: one answer runs in full on every split, and on each split another one begins.
    let few = [&[0, 1][..], &[0, 4], &[0, 5], &[0, 10]];
    for (number, ring) in rings.iter_mut().enumerate() {
        for (index, case) in cases.iter().enumerate() {
            if !is_long() && !few[number].contains(&index) {
                continue;
            }
            let most = if is_long() || index == 0 { 64 } else { 12 };
            let (prompt, expected) = (ids(&case["prompt_tokens"]), ids(&case["tokens"]));
            let tokens = ring.generate(&prompt, most, 2048, Sampling::default(), end);
            let expected = &expected[..expected.len().min(most)];
            assert_eq!(tokens, expected, "{} on split {:?}", case["prompt"], SPLITS[number]);
        }
    }
}

#[test]
fn sessions_that_decode_together_get_mlx_lms_tokens_too() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let mut shard = Shard::load(&files, &ShardOptions { layers: 0..30, compute: Compute::Plain }, |_| ()).unwrap();
    let cases: Vec<(Vec<u32>, Vec<u32>)> = reference["greedy"].as_array().unwrap()[..3]
        .iter()
        .map(|case| (ids(&case["prompt_tokens"]), ids(&case["tokens"])))
        .collect();
    let slot = |session: usize, position: usize, tokens: &[u32]| Slot {
        session: SessionId(session as u128),
        position,
        input: Input::Tokens(tokens.to_vec()),
        sample: true,
    };
    for (session, (prompt, expected)) in cases.iter().enumerate() {
        shard.open(SessionId(session as u128), SessionOptions::default()).unwrap();
        let output = shard.forward(&[slot(session, 0, prompt)]).remove(0).unwrap();
        assert!(matches!(output, Output::Token(sampled) if sampled.token == expected[0]));
    }
    // The last one joins late, and the first one leaves early.
    let mut decoded = [0; 3];
    for step in 0..6 {
        let batch: Vec<usize> = (0..3).filter(|&s| (s < 2 || step >= 2) && (s > 0 || step < 4)).collect();
        let slots: Vec<Slot> = batch
            .iter()
            .map(|&s| slot(s, cases[s].0.len() + decoded[s], &cases[s].1[decoded[s]..=decoded[s]]))
            .collect();
        for (&session, output) in batch.iter().zip(shard.forward(&slots)) {
            decoded[session] += 1;
            let Ok(Output::Token(sampled)) = output else { panic!("{output:?}") };
            assert_eq!(sampled.token, cases[session].1[decoded[session]], "session {session}, step {step}");
        }
    }
}

#[test]
fn fast_gives_mlx_lms_tokens_too() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let end = &files.end_tokens();
    for (number, splits) in SPLITS.iter().enumerate() {
        let mut ring = Ring::load(&files, splits, Compute::Fast);
        assert!(ring.0.iter().all(Shard::is_fast));
        for (index, case) in reference["greedy"].as_array().unwrap().iter().enumerate() {
            // Every case on the whole model; the cases take turns at the other splits.
            if !is_long() && number > 0 && index % (SPLITS.len() - 1) != number - 1 {
                continue;
            }
            let (prompt, expected) = (ids(&case["prompt_tokens"]), ids(&case["tokens"]));
            let tokens = ring.generate(&prompt, 64, 16, Sampling::default(), end);
            // Rounding may decide between two nearly equal tokens; the reference knows how close they are.
            let margin = case["smallest_margin"].as_f64().unwrap();
            if tokens != expected {
                println!("near tie ({margin}) in {}", case["prompt"]);
            }
            assert!(tokens == expected || margin < 2e-3, "{}", case["prompt"]);
        }
    }
}

#[test]
fn fast_logits_are_within_a_thousandth_of_plains() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let load = |compute| Shard::load(&files, &ShardOptions { layers: 0..30, compute }, |_| ()).unwrap();
    let (mut plain, mut fast) = (load(Compute::Plain), load(Compute::Fast));
    let mut worst = 0.0f32;
    for case in reference["greedy"].as_array().unwrap().iter().take(if is_long() { 4 } else { 2 }) {
        let prompt = ids(&case["prompt_tokens"]);
        let (a, b) = (plain.logits_of(&prompt).unwrap(), fast.logits_of(&prompt).unwrap());
        worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
    }
    println!("largest difference {worst}");
    assert!(worst < 1e-3, "{worst}");
}

/// The hidden states after each stage, then the logits' argmax: bits, not values.
fn trace(files: &ModelFiles, splits: &[Range<usize>], compute: Compute, tokens: &[u32]) -> Vec<u8> {
    let mut ring = Ring::load(files, splits, compute);
    let sampling = Sampling { logprobs: Some(20), ..Sampling::default() };
    ring.open(SessionId(1), &SessionOptions { sampling, ..SessionOptions::default() });
    let mut input = Input::Tokens(tokens.to_vec());
    for shard in &mut ring.0 {
        let slot = Slot { session: SessionId(1), position: 0, input, sample: true };
        match shard.forward(&[slot]).remove(0).unwrap() {
            Output::Hidden(hidden) => input = Input::Hidden(hidden),
            Output::Token(sampled) => {
                return sampled.top.iter().flat_map(|(id, p)| [id.to_le_bytes(), p.to_le_bytes()].concat()).collect();
            }
            Output::Nothing => break,
        }
    }
    panic!("no token came");
}

#[test]
fn one_and_several_stages_agree_to_the_bit() {
    let _alone = alone();
    let files = starter();
    let prompt = ids(&reference()["greedy"][0]["prompt_tokens"]);
    for compute in [Compute::Plain, Compute::Fast] {
        // Plain kernels are slow, and compute every token in the same way.
        let tokens = if compute == Compute::Plain && !is_long() { &prompt[..10] } else { &prompt };
        let one = trace(&files, SPLITS[0], compute, tokens);
        for splits in &SPLITS[1..] {
            assert_eq!(trace(&files, splits, compute, tokens), one, "{compute:?} {splits:?}");
        }
    }
}

#[test]
fn a_seeded_sample_is_the_same_on_three_stages_and_in_other_chunks() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let prompt = ids(&reference["greedy"][8]["prompt_tokens"]);
    let sampling = Sampling { temperature: 0.8, seed: 42, ..Sampling::default() };
    let run = |splits, chunk| {
        Ring::load(&files, splits, Compute::Fast).generate(&prompt, 48, chunk, sampling.clone(), &files.end_tokens())
    };
    let one = run(SPLITS[0], 2048);
    assert_eq!(run(SPLITS[2], 7), one);
    let other = Sampling { seed: 43, ..sampling.clone() };
    let other = Ring::load(&files, SPLITS[0], Compute::Fast).generate(&prompt, 48, 2048, other, &[]);
    assert_ne!(other, one, "another seed gives another text");
}

#[test]
fn sessions_in_one_batch_do_not_disturb_each_other_and_rollback_forgets() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let mut shard = Shard::load(&files, &ShardOptions { layers: 0..30, compute: Compute::Fast }, |_| ()).unwrap();
    let prompts: Vec<Vec<u32>> = (0..3).map(|i| ids(&reference["greedy"][i]["prompt_tokens"])).collect();
    let slot = |i: usize, position: usize, tokens: &[u32]| Slot {
        session: SessionId(i as u128),
        position,
        input: Input::Tokens(tokens.to_vec()),
        sample: true,
    };
    let token = |output: &Result<Output, ForwardError>| match output {
        Ok(Output::Token(sampled)) => sampled.token,
        other => panic!("{other:?}"),
    };
    for i in 0..3 {
        shard.open(SessionId(i as u128), SessionOptions::default()).unwrap();
    }
    // Two prompts together, the third joins while the first two decode.
    let first = shard.forward(&[slot(0, 0, &prompts[0]), slot(1, 0, &prompts[1])]);
    let second = shard.forward(&[
        slot(0, prompts[0].len(), &[token(&first[0])]),
        slot(2, 0, &prompts[2]),
        slot(1, prompts[1].len(), &[token(&first[1])]),
    ]);
    let expected = |i: usize| ids(&reference["greedy"][i]["tokens"]);
    assert_eq!([token(&first[0]), token(&second[0])], expected(0)[..2]);
    assert_eq!([token(&first[1]), token(&second[2])], expected(1)[..2]);
    assert_eq!(token(&second[1]), expected(2)[0]);

    // A wrong token that is rolled back leaves no trace.
    let at = prompts[2].len();
    assert!(shard.forward(&[slot(2, at, &[99])])[0].is_ok());
    shard.rollback(SessionId(2), at).unwrap();
    let again = shard.forward(&[slot(2, at, &[expected(2)[0]])]);
    assert_eq!(token(&again[0]), expected(2)[1]);

    assert!(shard.kv_bytes() > 0);
    for i in 0..3 {
        shard.close(SessionId(i));
    }
    assert_eq!(shard.kv_bytes(), 0);
}

#[test]
fn a_session_that_is_adopted_goes_on_as_if_all_of_it_had_been_computed() {
    let _alone = alone();
    let (files, reference) = (starter(), reference());
    let mut shard = Shard::load(&files, &ShardOptions { layers: 0..30, compute: Compute::Fast }, |_| ()).unwrap();
    let prompt = ids(&reference["greedy"][0]["prompt_tokens"]);
    let next: Vec<u32> = ids(&reference["greedy"][1]["prompt_tokens"]);
    let turns: Vec<u32> = prompt.iter().chain(&next).copied().collect();
    let options = SessionOptions {
        sampling: Sampling { repetition_penalty: 1.3, ..Sampling::default() },
        prompt: turns.clone(),
        answer: Vec::new(),
        adapter: None,
    };
    let token = |session: u128, position: usize, tokens: &[u32], shard: &mut Shard| {
        let input = Input::Tokens(tokens.to_vec());
        let slot = Slot { session: SessionId(session), position, input, sample: true };
        match shard.forward(&[slot]).remove(0).unwrap() {
            Output::Token(sampled) => sampled.token,
            other => panic!("{other:?}"),
        }
    };
    shard.open(SessionId(1), options.clone()).unwrap();
    let whole = token(1, 0, &turns, &mut shard);

    // The first turn, a little more, and then the second turn in its place.
    shard.open(SessionId(2), SessionOptions::default()).unwrap();
    token(2, 0, &prompt, &mut shard);
    token(2, prompt.len(), &[7], &mut shard);
    shard.adopt(SessionId(2), SessionId(3), prompt.len(), options.clone()).unwrap();
    assert_eq!(shard.position(SessionId(2)), None);
    assert_eq!(token(3, prompt.len(), &next, &mut shard), whole);

    // A resumed answer knows its earlier tokens: the penalty counts them.
    let followed = token(3, turns.len(), &[whole], &mut shard);
    shard.open(SessionId(4), SessionOptions { answer: vec![whole], ..options.clone() }).unwrap();
    let known: Vec<u32> = turns.iter().copied().chain([whole]).collect();
    assert_eq!(token(4, 0, &known, &mut shard), followed);

    assert!(shard.adopt(SessionId(9), SessionId(10), 0, options.clone()).is_err());
    assert!(shard.adopt(SessionId(1), SessionId(10), turns.len() + 1, options).is_err());
}

#[test]
fn wrong_batches_are_refused_and_change_nothing() {
    let _alone = alone();
    let files = starter();
    let mut shard = Shard::load(&files, &ShardOptions { layers: 0..2, compute: Compute::Fast }, |_| ()).unwrap();
    shard.open(SessionId(1), SessionOptions::default()).unwrap();
    let slot = |position, tokens: &[u32]| Slot {
        session: SessionId(1),
        position,
        input: Input::Tokens(tokens.to_vec()),
        sample: false,
    };
    let mut refused = |batch: Vec<Slot>, words: &str| {
        let message = shard.forward(&batch).pop().unwrap().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    refused(vec![slot(5, &[1])], "is at position 0, but the batch begins at 5");
    refused(vec![slot(0, &[49152])], "token 49152 of a vocabulary of 49152");
    refused(vec![slot(0, &[])], "empty");
    refused(vec![slot(0, &vec![1; 8193])], "needs 8193 positions, but the model has 8192");
    refused(vec![Slot { session: SessionId(2), ..slot(0, &[1]) }], "not open");
    assert_eq!(shard.position(SessionId(1)), Some(0));
    let twice = shard.forward(&[slot(0, &[1]), slot(0, &[1])]);
    assert!(matches!(&twice[..], [Ok(Output::Hidden(_)), Err(ForwardError::Twice(_))]));

    for layers in [0..0, 5..3, 0..31, 40..41] {
        assert!(Shard::load(&files, &ShardOptions { layers, compute: Compute::Fast }, |_| ()).is_err());
    }
}

#[test]
fn tokens_and_chats_are_those_of_hugging_face() {
    let (files, reference) = (starter(), reference());
    let (tokenizer, template) = (files.tokenizer().unwrap(), files.chat_template().unwrap());
    for case in reference["encode"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids(&case["tokens"]), "{text:?}");
    }
    for case in reference["encode_as_text"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_literal(text).unwrap(), ids(&case["tokens"]), "{text:?}");
        // Inside a conversation, too: the only special tokens are the template's.
        let chat =
            |text: &str| template.tokenize(&tokenizer, &Conversation::new([Message::new("user", text)])).unwrap();
        let (chat, plain) = (chat(text), chat("x"));
        let special = |tokens: &[u32]| tokens.iter().filter(|&&t| t <= 2).count();
        assert_eq!(special(&chat), special(&plain), "{text:?}");
        assert!(chat.windows(case["tokens"].as_array().unwrap().len()).any(|part| part == ids(&case["tokens"])));
    }
    for case in reference["chats"].as_array().unwrap() {
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let conversation = Conversation::new(messages);
        assert_eq!(template.render(&conversation).unwrap(), case["text"].as_str().unwrap());
        assert_eq!(template.tokenize(&tokenizer, &conversation).unwrap(), ids(&case["tokens"]));
    }
}

#[test]
fn streamed_text_is_whole_characters_and_adds_up() {
    let files = starter();
    let tokenizer = files.tokenizer().unwrap();
    for case in reference()["encode"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let mut detokenizer = hive_text::detokenizer::Detokenizer::new();
        let mut streamed = String::new();
        for token in tokenizer.encode(text).unwrap() {
            let piece = detokenizer.push(&tokenizer, token).unwrap();
            assert!(!piece.contains('\u{FFFD}'), "{text:?}: {piece:?}");
            streamed += &piece;
        }
        streamed += &detokenizer.finish(&tokenizer).unwrap();
        assert_eq!(streamed, text);
    }
}
