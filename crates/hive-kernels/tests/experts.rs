//! Experts: the sums that they should be, with the same bits alone and in any batch.

#![allow(clippy::unwrap_used)]

use hive_kernels::{Activation, ExpertWeights, Format, PackedMatrix, experts};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Device};

const COUNT: usize = 5;
const HIDDEN: usize = 32;
const INNER: usize = 48;
const PER_TOKEN: usize = 2;

fn numbers(mut seed: u64, count: usize) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn packed(numbers: &[f32], rows: usize, columns: usize) -> PackedMatrix {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    PackedMatrix::pack(Format::F32, rows, columns, &bytes, None).unwrap()
}

fn values(array: &Array) -> Vec<f32> {
    array.eval().unwrap();
    array.try_as_slice::<f32>().unwrap().to_vec()
}

struct Sample {
    gate_up: Vec<f32>,
    down: Vec<f32>,
    gate_up_bias: Vec<f32>,
    down_bias: Vec<f32>,
    x: Vec<f32>,
    picked: Vec<u32>,
    shares: Vec<f32>,
}

impl Sample {
    fn new(tokens: usize) -> Self {
        let numbers = |seed, count| numbers(seed, count);
        Self {
            gate_up: numbers(1, COUNT * 2 * INNER * HIDDEN),
            down: numbers(2, COUNT * HIDDEN * INNER),
            gate_up_bias: numbers(3, COUNT * 2 * INNER),
            down_bias: numbers(4, COUNT * HIDDEN),
            x: numbers(5, tokens * HIDDEN).into_iter().map(|number| number * 9.0).collect(),
            picked: (0..tokens).flat_map(|t| [(t * 3 + 4) % COUNT, (t * 3 + 2) % COUNT]).map(|e| e as u32).collect(),
            shares: numbers(6, tokens * PER_TOKEN),
        }
    }

    /// On the kernels, in parts of this many tokens.
    fn computed(&self, at_once: usize, biased: bool, activation: Activation) -> Vec<f32> {
        let gate_up = packed(&self.gate_up, COUNT * 2 * INNER, HIDDEN);
        let down = packed(&self.down, COUNT * HIDDEN, INNER);
        let array = |numbers: &[f32]| Array::from_slice(numbers, &[numbers.len() as i32]);
        let biases = [array(&self.gate_up_bias), array(&self.down_bias)];
        let bias = |which: usize| biased.then_some(&biases[which]);
        let weights = ExpertWeights { count: COUNT, gate_up: (&gate_up, bias(0)), down: (&down, bias(1)), activation };
        let tokens = self.x.len() / HIDDEN;
        let x = Array::from_slice(&self.x, &[tokens as i32, HIDDEN as i32]);
        let picked = Array::from_slice(&self.picked, &[tokens as i32, PER_TOKEN as i32]);
        let shares = Array::from_slice(&self.shares, &[tokens as i32, PER_TOKEN as i32]);
        let part = |start: usize| {
            let rows = start as i32..(start + at_once).min(tokens) as i32;
            let of = |all: &Array| all.index((rows.clone(), ..)).contiguous().unwrap();
            values(&experts(&of(&x), &of(&picked), &of(&shares), &weights).unwrap())
        };
        (0..tokens).step_by(at_once).flat_map(part).collect()
    }

    /// One token in double precision.
    fn expected(&self, token: usize, biased: bool, activation: Activation) -> Vec<f64> {
        let row = |matrix: &[f32], row: usize, x: &[f64]| -> f64 {
            let width = x.len();
            matrix[row * width..(row + 1) * width].iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
        };
        let x: Vec<f64> = self.x[token * HIDDEN..(token + 1) * HIDDEN].iter().map(|x| f64::from(*x)).collect();
        let mut y = vec![0.0; HIDDEN];
        for slot in token * PER_TOKEN..(token + 1) * PER_TOKEN {
            let expert = self.picked[slot] as usize;
            let bias = |of: &[f32], at: usize| if biased { f64::from(of[at]) } else { 0.0 };
            let inner: Vec<f64> = (0..INNER)
                .map(|i| {
                    let at = |part: usize| expert * 2 * INNER + part * INNER + i;
                    let product = |part: usize| row(&self.gate_up, at(part), &x) + bias(&self.gate_up_bias, at(part));
                    let (gate, up) = (product(0), product(1));
                    match activation {
                        Activation::Silu => gate / (1.0 + (-gate).exp()) * up,
                        Activation::Gelu => {
                            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
                            0.5 * gate * (1.0 + inner.tanh()) * up
                        }
                        Activation::Clamped(limit) => {
                            let limit = f64::from(limit);
                            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
                            gate / (1.0 + (-1.702 * gate).exp()) * (up + 1.0)
                        }
                    }
                })
                .collect();
            for (i, y) in y.iter_mut().enumerate() {
                let at = expert * HIDDEN + i;
                *y += f64::from(self.shares[slot]) * (row(&self.down, at, &inner) + bias(&self.down_bias, at));
            }
        }
        y
    }
}

#[test]
fn a_row_is_the_sum_of_its_experts_and_has_the_same_bits_in_any_batch() {
    Device::set_default(&Device::cpu());
    let sample = Sample::new(23);
    let activations = [Activation::Silu, Activation::Gelu, Activation::Clamped(0.7)];
    for (biased, activation) in [false, true].into_iter().flat_map(|biased| activations.map(|one| (biased, one))) {
        let together = sample.computed(23, biased, activation);
        for at_once in [1, 4, 9] {
            let apart = sample.computed(at_once, biased, activation);
            assert_eq!(apart, together, "{at_once} at once, {biased}, {activation:?}");
        }
        for (token, row) in together.chunks_exact(HIDDEN).enumerate() {
            let expected = sample.expected(token, biased, activation);
            let off = row.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-4, "token {token}, {biased}, {activation:?}: off by {off}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    Device::set_default(&Device::cpu());
    let (gate_up, down) = (packed(&[0.0; 2 * 64 * 32], 2 * 64, 32), packed(&[0.0; 2 * 32 * 32], 2 * 32, 32));
    let activation = Activation::Silu;
    let weights = |count| ExpertWeights { count, gate_up: (&gate_up, None), down: (&down, None), activation };
    let x = Array::zeros::<f32>(&[3, 32]).unwrap();
    let picked = |per_token: i32| Array::from_slice(&vec![1u32; 3 * per_token as usize], &[3, per_token]);
    let shares = |per_token: i32| Array::zeros::<f32>(&[3, per_token]).unwrap();
    assert!(experts(&x, &picked(2), &shares(2), &weights(2)).unwrap().eval().is_ok());
    assert!(experts(&x, &picked(2), &shares(1), &weights(2)).is_err(), "shares");
    assert!(experts(&x, &picked(3), &shares(3), &weights(2)).is_err(), "more than there are");
    assert!(experts(&x, &picked(2), &shares(2), &weights(4)).is_err(), "another number of experts");
    assert!(experts(&x, &shares(2), &shares(2), &weights(2)).is_err(), "numbers that are no whole numbers");
    let bias = Array::zeros::<f32>(&[7]).unwrap();
    let biased = ExpertWeights { gate_up: (&gate_up, Some(&bias)), ..weights(2) };
    assert!(experts(&x, &picked(2), &shares(2), &biased).is_err(), "a bias of another size");
}
