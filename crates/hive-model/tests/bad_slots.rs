//! A bad slot in a batch fails alone, with the right fault, and leaves its session where it was.

#![allow(clippy::unwrap_used)]

#[path = "../../hive-weights/tests/common/mod.rs"]
mod common;

use common::{HIDDEN, LAYERS, write_tiny_model};
use hive_model::shard::{ForwardError, Input};
use hive_model::{ActivationType, Compute, Hidden, Output, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;

const BOTH: [Compute; 2] = [Compute::Fast, Compute::Plain];

fn load(folder: &tempfile::TempDir, layers: std::ops::Range<usize>, compute: Compute) -> Shard {
    let files = ModelFiles::open(folder.path()).unwrap();
    let mut shard = Shard::load(&files, &ShardOptions { layers, compute }, |_| ()).unwrap();
    assert_eq!(shard.is_fast(), compute == Compute::Fast);
    for session in 0..3 {
        shard.open(SessionId(session), SessionOptions::default()).unwrap();
    }
    shard
}

fn tiny(change: impl FnMut(&str, &mut [f32])) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path(), change);
    folder
}

/// This many rows of hidden states, different for each session and position.
fn hidden(session: u128, position: usize, rows: usize) -> Hidden {
    let number = |at: usize| ((session as usize * 31 + (position * HIDDEN + at) * 7) % 64) as f32 / 32.0 - 1.0;
    let bytes = (0..rows * HIDDEN).flat_map(|at| number(at).to_le_bytes()).collect();
    Hidden { activation: ActivationType::F32, rows, width: HIDDEN, bytes }
}

fn with_number(mut hidden: Hidden, at: usize, number: f32) -> Hidden {
    hidden.bytes[at * 4..at * 4 + 4].copy_from_slice(&number.to_le_bytes());
    hidden
}

fn slot(session: u128, position: usize, input: Input) -> Slot {
    Slot { session: SessionId(session), position, input, sample: true }
}

/// The inputs of each session, in turn, to a shard that never sees a bad slot.
fn undisturbed(shard: &mut Shard, steps: &[usize]) -> Vec<Vec<Output>> {
    (0..3)
        .map(|session| {
            let mut position = 0;
            let step = |&rows: &usize| {
                let input = Input::Hidden(hidden(session, position, rows));
                let output = shard.forward(&[slot(session, position, input)]).remove(0).unwrap();
                position += rows;
                output
            };
            steps.iter().map(step).collect()
        })
        .collect()
}

#[test]
fn a_bad_slot_in_any_place_fails_alone_and_goes_on_from_where_it_was() {
    let folder = tiny(|_, _| ());
    // One row and many: the fast kernels take different paths.
    for (compute, rows) in BOTH.into_iter().flat_map(|compute| [1, 12].map(|rows| (compute, rows))) {
        let layers = 1..LAYERS;
        let steps = [5, rows, 1];
        let expected = undisturbed(&mut load(&folder, layers.clone(), compute), &steps);
        for (place, bad) in (0..3).zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            let mut shard = load(&folder, layers.clone(), compute);
            let batch = |position: usize, rows: usize| -> Vec<Slot> {
                (0..3).map(|session| slot(session, position, Input::Hidden(hidden(session, position, rows)))).collect()
            };
            let outputs = |results: Vec<Result<Output, ForwardError>>| -> Vec<Output> {
                results.into_iter().map(Result::unwrap).collect()
            };
            assert_eq!(outputs(shard.forward(&batch(0, 5))), [0, 1, 2].map(|s| expected[s][0].clone()));
            let mut disturbed = batch(5, rows);
            let Input::Hidden(input) = disturbed[place].input.clone() else { panic!() };
            disturbed[place].input = Input::Hidden(with_number(input, rows * HIDDEN - 1, bad));
            for (session, result) in shard.forward(&disturbed).into_iter().enumerate() {
                let id = SessionId(session as u128);
                if session == place {
                    assert!(matches!(result, Err(ForwardError::Input(_))), "{compute:?} {place}: {result:?}");
                    assert_eq!(shard.position(id), Some(5));
                } else {
                    assert_eq!(result.unwrap(), expected[session][1], "{compute:?} {place}");
                    assert_eq!(shard.position(id), Some(5 + rows));
                }
            }
            // The same slot with valid numbers, and the next one: the same bits as if nothing had happened.
            let again = shard.forward(&batch(5, rows)[place..=place]).remove(0).unwrap();
            assert_eq!(again, expected[place][1], "{compute:?} {place}");
            let next = outputs(shard.forward(&batch(5 + rows, 1)));
            assert_eq!(next, [0, 1, 2].map(|s| expected[s][2].clone()), "{compute:?} {place}");
        }
    }
}

/// Rewrites the model's numbers in half precision, whose range ends at 65,504.
fn in_half_precision(folder: &tempfile::TempDir) {
    let path = folder.path().join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    for tensor in header.as_object_mut().unwrap().values_mut() {
        tensor["dtype"] = "F16".into();
        for offset in tensor["data_offsets"].as_array_mut().unwrap() {
            *offset = (offset.as_u64().unwrap() / 2).into();
        }
    }
    let half = |number: &[u8; 4]| half::f16::from_f32(f32::from_le_bytes(*number)).to_le_bytes();
    let data: Vec<u8> = data.as_chunks().0.iter().flat_map(half).collect();
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(path, file).unwrap();
}

#[test]
fn numbers_that_overflow_in_any_layer_are_the_senders() {
    let folder = tiny(|name, numbers| {
        if name.ends_with("down_proj.weight") {
            for number in numbers {
                *number *= 3000.0;
            }
        }
    });
    in_half_precision(&folder);
    let mut shard = load(&folder, 1..LAYERS, Compute::Plain);
    assert_eq!(shard.activation(), ActivationType::F16);
    let mut result = |input: Hidden| {
        let result = shard.forward(&[slot(0, 0, Input::Hidden(input))]).remove(0);
        shard.rollback(SessionId(0), 0).unwrap();
        result
    };
    assert!(result(hidden(0, 0, 1)).is_ok());
    // Finite on both sides; adding the layer's output makes some of them infinite.
    let near = (0..HIDDEN).flat_map(|at| [(at, 65_000.0), (at, -65_000.0)]);
    let near: Vec<_> = near.map(|(at, number)| result(with_number(hidden(0, 0, 1), at, number))).collect();
    assert!(near.iter().any(|result| matches!(result, Err(ForwardError::Input(_)))), "none overflowed: {near:?}");
    assert!(!near.iter().any(|result| matches!(result, Err(ForwardError::NotFinite(_)))), "{near:?}");
    // A number that only the sender's type can hold.
    assert!(matches!(result(with_number(hidden(0, 0, 1), 3, 1e6)), Err(ForwardError::Input(_))));
}

#[test]
fn a_slot_for_which_the_own_weights_are_bad_is_the_own_fault_and_the_others_go_on() {
    // Row 7 of the embedding: only token 7 is bad.
    let folder = tiny(|name, numbers| {
        if name == "model.embed_tokens.weight" {
            numbers[7 * HIDDEN + 3] = f32::NAN;
        }
    });
    for compute in BOTH {
        for place in 0..3u128 {
            // Without the end of the model, whose matrix is the embedding as well.
            let mut shard = load(&folder, 0..1, compute);
            let tokens = |session: u128| if session == place { vec![1, 7, 2] } else { vec![1, 2, 3] };
            let batch: Vec<Slot> = (0..3).map(|session| slot(session, 0, Input::Tokens(tokens(session)))).collect();
            for (session, result) in (0..3).zip(shard.forward(&batch)) {
                let (is_bad, position) = (session == place, shard.position(SessionId(session)).unwrap());
                assert_eq!((result.is_err(), position), (is_bad, if is_bad { 0 } else { 3 }), "{compute:?}");
                assert!(!is_bad || matches!(result, Err(ForwardError::NotFinite(_))), "{result:?}");
            }
            let sound = slot(place, 0, Input::Tokens(vec![1, 2, 3]));
            assert_eq!(
                shard.forward(&[sound]).remove(0).unwrap(),
                load(&folder, 0..1, compute)
                    .forward(&[slot(place, 0, Input::Tokens(vec![1, 2, 3]))])
                    .remove(0)
                    .unwrap()
            );
        }
    }
}

#[test]
fn logits_that_are_not_finite_are_the_own_fault_and_choose_no_token() {
    let folder = tiny(|name, numbers| {
        if name == "model.norm.weight" {
            numbers[5] = f32::INFINITY;
        }
    });
    for compute in BOTH {
        let mut shard = load(&folder, 0..LAYERS, compute);
        let results = shard.forward(&[slot(0, 0, Input::Tokens(vec![1, 2])), slot(1, 0, Input::Tokens(vec![3]))]);
        assert!(results.iter().all(|result| matches!(result, Err(ForwardError::NotFinite(_)))), "{results:?}");
        assert_eq!([0, 1].map(|id| shard.position(SessionId(id))), [Some(0); 2]);
        assert!(shard.export(SessionId(0)).unwrap().answer.is_empty());
    }
}

#[test]
fn a_token_that_is_none_fails_alone() {
    let folder = tiny(|_, _| ());
    for compute in BOTH {
        let mut shard = load(&folder, 0..LAYERS, compute);
        let batch = [
            slot(0, 0, Input::Tokens(vec![1])),
            slot(1, 0, Input::Tokens(vec![u32::MAX])),
            slot(9, 0, Input::Tokens(vec![1])),
            slot(2, 1, Input::Tokens(vec![1])),
        ];
        let results = shard.forward(&batch);
        assert!(matches!(
            &results[..],
            [
                Ok(Output::Token(_)),
                Err(ForwardError::Input(_)),
                Err(ForwardError::UnknownSession(_)),
                Err(ForwardError::Position { .. })
            ]
        ));
        assert_eq!([0, 1, 2].map(|id| shard.position(SessionId(id)).unwrap()), [1, 0, 0]);
    }
}

#[test]
fn a_carried_cache_with_numbers_that_are_not_finite_is_refused() {
    let folder = tiny(|_, _| ());
    for compute in BOTH {
        let mut shard = load(&folder, 0..LAYERS, compute);
        shard.forward(&[slot(0, 0, Input::Tokens(vec![1, 2, 3]))]).remove(0).unwrap();
        let carried = shard.export(SessionId(0)).unwrap();
        let caches: Vec<_> = (0..LAYERS).map(|layer| shard.export_kv(SessionId(0), layer).unwrap()).collect();
        let numbers = caches[1].len() / 4;
        let mut refused = 0;
        for at in 0..numbers {
            let mut forged = caches.clone();
            forged[1][at * 4..at * 4 + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            let imported = shard.import_kv(SessionId(1), SessionOptions::default(), carried.clone(), &forged);
            refused += usize::from(imported.is_err());
            if imported.is_ok() {
                // It is past the session's end and does not count.
                let next = |id| slot(id, 3, Input::Tokens(vec![4]));
                let results = shard.forward(&[next(0), next(1)]);
                assert_eq!(results[0].as_ref().unwrap(), results[1].as_ref().unwrap(), "{compute:?} {at}");
                shard.rollback(SessionId(0), 3).unwrap();
            }
        }
        // Three of the sixteen exported positions, in keys and in values.
        assert_eq!(refused, numbers * 3 / 16, "{compute:?}");
    }
}
