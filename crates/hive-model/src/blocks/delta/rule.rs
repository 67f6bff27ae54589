//! The gated delta rule: what tokens do to a state, from a short convolution over them to the norm of what they read.
//!
//! With a state S, a token of key k, query q and value v keeps a share g of the state, and replaces a share b of what the
//! state says about its key: `S <- g S`, `S <- S + b k (v - kᵀ S)`, and reads `qᵀ S`. On MLX's kernels, tokens are taken
//! in chunks, whose products with each other are a triangular system (Yang et al., arXiv 2412.06464): few operations, all
//! of them products of matrices, on every device. The fast kernel takes one token after the other, so its numbers are
//! the same in any chunks.

use hive_kernels::{DeltaShape, DeltaWeights};
use hive_weights::config::DeltaSpec;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Dtype, ops};

use crate::error::ComputeError;
use crate::hidden::ActivationType;
use crate::recurrent::State;

/// Tokens that are computed together on MLX's kernels; a power of two.
const CHUNK: i32 = 32;
/// Added to the squares of queries and keys before they are divided by their length, as the authors do.
const LENGTH_EPS: f32 = 1e-6;

pub(super) struct DeltaRule {
    /// `[taps, channels]`, in single precision, as all vectors here.
    pub(super) convolution: Array,
    /// How fast each value head forgets: the exponent's factor, which is negative.
    pub(super) rates: Array,
    /// Added to what decides how much is forgotten.
    pub(super) step_bias: Array,
    pub(super) norm: Array,
    pub(super) eps: f32,
    pub(super) fast: bool,
    pub(super) activation: ActivationType,
    pub(super) spec: DeltaSpec,
}

impl DeltaRule {
    /// The size of its vectors in memory, in bytes.
    pub(super) fn bytes_of(spec: &DeltaSpec) -> usize {
        (spec.taps * spec.channels() + 2 * spec.value_heads + spec.value_dim) * size_of::<f32>()
    }

    /// Their size, in bytes.
    pub(super) fn bytes(&self) -> usize {
        [&self.convolution, &self.rates, &self.step_bias, &self.norm].iter().map(|vector| vector.nbytes()).sum()
    }

    /// One session's rows: queries, keys and values before the convolution, the output's gates, how much is written and
    /// how much is kept, side by side. Returns what is read, `[n, value_heads value_dim]`, and the state after them.
    pub(super) fn applied(&self, rows: &Array, state: &State) -> Result<(Array, State), ComputeError> {
        if self.fast { self.on_fast(rows, state) } else { self.on_mlx(rows, state) }
    }

    /// On the fast kernel.
    fn on_fast(&self, rows: &Array, [seen, matrices]: &State) -> Result<(Array, State), ComputeError> {
        let DeltaSpec { key_heads, value_heads, key_dim, value_dim, taps, .. } = self.spec;
        let shape = DeltaShape { key_heads, value_heads, key_dim, value_dim, taps };
        let weights = DeltaWeights {
            convolution: &self.convolution,
            rates: &self.rates,
            step_bias: &self.step_bias,
            norm: &self.norm,
            eps: self.eps,
            length_eps: LENGTH_EPS,
        };
        let [y, seen, matrices] = hive_kernels::delta(&rows.contiguous()?, seen, matrices, &weights, &shape)?;
        Ok((y, [seen, matrices]))
    }

    /// On MLX's kernels.
    fn on_mlx(&self, rows: &Array, [seen, matrices]: &State) -> Result<(Array, State), ComputeError> {
        let DeltaSpec { key_heads, value_heads, key_dim, value_dim, taps, .. } = self.spec;
        let (n, taps, channels) = (rows.dim(0), taps as i32, self.spec.channels() as i32);
        let [keys, values, heads] = [key_dim, value_dim, value_heads].map(|width| width as i32);
        let gates_from = channels + heads * values;
        let single = |part: Array| part.as_dtype(Dtype::Float32);
        let before = ops::concatenate(&[seen, &rows.index((.., ..channels))], 0)?;
        let now_seen = before.index((n.., ..)).contiguous()?;
        let before = single(before)?;
        let mut mixed = before.index((..n, ..)).multiply(self.convolution.index((0, ..)))?;
        for tap in 1..taps {
            mixed = mixed.add(before.index((tap..tap + n, ..)).multiply(self.convolution.index((tap, ..)))?)?;
        }
        let mixed = mixed.multiply(ops::sigmoid(&mixed)?)?;
        // Heads before tokens, one query and one key for each value head.
        let (key_width, scale) = (key_heads as i32 * keys, (key_dim as f32).powf(-0.5));
        let of_keys = |from: i32, scale: f32| -> Result<Array, ComputeError> {
            let part = mixed.index((.., from..from + key_width)).reshape(&[n, key_heads as i32, 1, keys])?;
            let normed = mlx_rs::fast::rms_norm(&part, None, LENGTH_EPS / key_dim as f32)?;
            let normed = normed.multiply(Array::from_f32(scale))?;
            let each = ops::broadcast_to(&normed, &[n, key_heads as i32, heads / key_heads as i32, keys])?;
            Ok(each.reshape(&[n, heads, keys])?.transpose_axes(&[1, 0, 2])?)
        };
        let gate = |from: i32| single(rows.index((.., from..from + heads)));
        let step = gate(gates_from + heads)?.add(&self.step_bias)?;
        let brought = Brought {
            queries: of_keys(0, scale * scale)?,
            keys: of_keys(key_width, scale)?,
            values: mixed.index((.., 2 * key_width..)).reshape(&[n, heads, values])?.transpose_axes(&[1, 0, 2])?,
            // The softplus, as the logarithm of a sum of exponentials.
            kept: ops::logaddexp(step, Array::from_f32(0.0))?.multiply(&self.rates)?.transpose()?,
            written: ops::sigmoid(gate(gates_from)?)?.transpose()?,
        };
        let (y, matrices) = if n == 1 { brought.of_one_token(matrices)? } else { brought.in_chunks(matrices)? };
        let y = y.transpose_axes(&[1, 0, 2])?;
        let z = single(rows.index((.., channels..gates_from)))?.reshape(&[n, heads, values])?;
        let y = mlx_rs::fast::rms_norm(&y, Some(&self.norm), self.eps)?.multiply(z.multiply(ops::sigmoid(&z)?)?)?;
        Ok((y.reshape(&[n, heads * values])?.as_dtype(self.activation.mlx())?, [now_seen, matrices]))
    }
}

/// What the tokens of one session bring, heads before tokens.
struct Brought {
    /// `[heads, n, keys]`, one for each value head.
    queries: Array,
    keys: Array,
    /// `[heads, n, values]`.
    values: Array,
    /// The logarithm of the share of the state that is kept, `[heads, n]`.
    kept: Array,
    /// The share of what the state says that is replaced, `[heads, n]`.
    written: Array,
}

impl Brought {
    /// One token, and the state `[heads, keys, values]` that it finds. Returns what is read, `[heads, 1, values]`, and the
    /// new state.
    fn of_one_token(&self, state: &Array) -> Result<(Array, Array), ComputeError> {
        let Self { queries, keys, values, kept, written } = self;
        let state = state.multiply(ops::exp(kept)?.expand_dims(-1)?)?;
        let change = values.subtract(keys.matmul(&state)?)?.multiply(written.expand_dims(-1)?)?;
        let state = state.add(keys.swap_axes(-1, -2)?.multiply(change)?)?;
        Ok((queries.matmul(&state)?, state))
    }

    /// The same for n tokens in chunks.
    fn in_chunks(&self, state: &Array) -> Result<(Array, Array), ComputeError> {
        let [heads, n] = [self.queries.dim(0), self.queries.dim(1)];
        let missing = (CHUNK - n % CHUNK) % CHUNK;
        // Tokens that are added change nothing: they write nothing and keep everything.
        let chunked = |x: &Array| -> Result<Array, ComputeError> {
            let width = if x.ndim() == 3 { x.dim(2) } else { 1 };
            let none = Array::zeros::<f32>(&[heads, missing, width])?;
            let x = ops::concatenate(&[x.reshape(&[heads, n, width])?, none], 1)?;
            Ok(x.reshape(&[heads, -1, CHUNK, width])?.transpose_axes(&[1, 0, 2, 3])?)
        };
        let [queries, keys, values] = [chunked(&self.queries)?, chunked(&self.keys)?, chunked(&self.values)?];
        let written = chunked(&self.written)?;
        let kept = ops::cumsum(chunked(&self.kept)?, -2, None, None)?;
        // What is kept between two tokens of a chunk, the later one first: at most all.
        let ones = Array::ones::<f32>(&[CHUNK, CHUNK])?;
        let not_before = ops::triu(&ones, 1)?.multiply(Array::from_f32(-1e30))?;
        let between = ops::minimum(kept.subtract(kept.swap_axes(-1, -2)?)?, Array::from_f32(0.0))?;
        let between = ops::exp(between.add(not_before)?)?;
        // How much of what earlier tokens of the chunk write each one replaces.
        let turned = keys.swap_axes(-1, -2)?;
        let replaced = keys.matmul(&turned)?.multiply(&between)?.multiply(&written)?;
        let inverse = inverse_of_one_plus(&replaced.multiply(ops::tril(&ones, -1)?)?)?;
        let from_start = ops::exp(&kept)?;
        let to_end = between.index((.., .., CHUNK - 1.., ..)).swap_axes(-1, -2)?;
        let new_values = inverse.matmul(values.multiply(&written)?)?;
        let old_keys = inverse.matmul(keys.multiply(&written)?.multiply(&from_start)?)?;
        let within = queries.matmul(&turned)?.multiply(&between)?;
        let queries = queries.multiply(&from_start)?;
        let writes = keys.multiply(to_end)?.swap_axes(-1, -2)?;
        let all_kept = from_start.index((.., .., CHUNK - 1.., ..));
        let mut state = state.clone();
        let mut outputs = Vec::new();
        for chunk in 0..queries.dim(0) {
            let of = |all: &Array| all.index((chunk, .., .., ..));
            let change = of(&new_values).subtract(of(&old_keys).matmul(&state)?)?;
            outputs.push(of(&queries).matmul(&state)?.add(of(&within).matmul(&change)?)?);
            state = state.multiply(of(&all_kept))?.add(of(&writes).matmul(change)?)?;
        }
        let read = if outputs.len() == 1 { outputs.remove(0) } else { ops::concatenate(&outputs, 1)? };
        Ok((read.index((.., ..n, ..)), state))
    }
}

/// The inverse of one plus a strictly lower triangular matrix `[.., CHUNK, CHUNK]`: of blocks on the diagonal, which
/// double in size. Exact but for rounding, unlike the series of its powers, whose terms may be huge.
fn inverse_of_one_plus(lower: &Array) -> Result<Array, ComputeError> {
    let mut inverse = Array::eye::<f32>(CHUNK, None, None)?;
    let mut size = 1;
    while size < CHUNK {
        // The blocks below the diagonal that join two blocks of this size.
        let joins = |row: i32, column: i32| row / size == column / size + 1 && row / size % 2 == 1;
        let mask: Vec<f32> = (0..CHUNK * CHUNK).map(|at| f32::from(u8::from(joins(at / CHUNK, at % CHUNK)))).collect();
        let joint = lower.multiply(Array::from_slice(&mask, &[CHUNK, CHUNK]))?;
        inverse = inverse.subtract(inverse.matmul(joint)?.matmul(&inverse)?)?;
        size *= 2;
    }
    Ok(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrent::RecurrentShape;

    /// Rows that a sequence of numbers fills, between -1 and 1.
    fn numbers(shape: &[i32], seed: u32) -> Array {
        let count = shape.iter().product::<i32>() as u32;
        let number = |at: u32| ((at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) % 2001) as f32 / 1000.0 - 1.0;
        Array::from_slice(&(0..count).map(number).collect::<Vec<_>>(), shape)
    }

    fn rule(fast: bool) -> DeltaRule {
        let spec = DeltaSpec { key_heads: 2, value_heads: 4, key_dim: 32, value_dim: 48, taps: 4, is_fused: false };
        DeltaRule {
            convolution: numbers(&[4, spec.channels() as i32], 3),
            // One that keeps nearly everything, and one that forgets at once.
            rates: Array::from_slice(&[-1e-4f32, -0.1, -1.0, -80.0], &[4]),
            step_bias: numbers(&[4], 5),
            norm: numbers(&[48], 7),
            eps: 1e-6,
            fast,
            activation: ActivationType::F32,
            spec,
        }
    }

    fn start(rule: &DeltaRule) -> State {
        let RecurrentShape { seen, matrices } = RecurrentShape::of(&rule.spec);
        [Array::zeros::<f32>(&seen).unwrap(), Array::zeros::<f32>(&matrices).unwrap()]
    }

    fn all(array: &Array) -> Vec<f32> {
        let array = array.contiguous().unwrap();
        array.eval().unwrap();
        array.as_slice::<f32>().to_vec()
    }

    /// What rows give in pieces of these lengths, and the last state.
    fn in_pieces(rule: &DeltaRule, rows: &Array, pieces: &[i32]) -> [Vec<f32>; 3] {
        let (mut state, mut outputs, mut from) = (start(rule), Vec::new(), 0);
        for piece in pieces {
            let part = rows.index((from..from + piece, ..));
            let (y, next) = rule.applied(&part, &state).unwrap();
            outputs.extend(all(&y));
            (state, from) = (next, from + piece);
        }
        assert_eq!(from, rows.dim(0));
        [outputs, all(&state[0]), all(&state[1])]
    }

    fn off(a: &[Vec<f32>; 3], b: &[Vec<f32>; 3]) -> f32 {
        let off = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            let largest = a.iter().fold(1e-6f32, |largest, number| largest.max(number.abs()));
            a.iter().zip(b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
        };
        a.iter().zip(b).map(off).fold(0.0, f32::max)
    }

    fn kinds_of_rows(width: i32) -> [Array; 3] {
        let same = ops::broadcast_to(numbers(&[1, width], 11), &[77, width]).unwrap();
        let far = numbers(&[77, width], 13).multiply(Array::from_f32(20.0)).unwrap();
        [numbers(&[77, width], 17), same, far]
    }

    #[test]
    fn chunks_are_the_same_as_one_token_after_the_other() {
        let rule = rule(false);
        let width = (rule.spec.channels() + rule.spec.values() + 2 * rule.spec.value_heads) as i32;
        for (kind, rows) in kinds_of_rows(width).iter().enumerate() {
            let one_by_one = in_pieces(&rule, rows, &[1; 77]);
            assert!(one_by_one.iter().flatten().all(|number| number.is_finite()));
            for pieces in [&[77][..], &[32, 45], &[31, 33, 13], &[64, 1, 12]] {
                let off = off(&one_by_one, &in_pieces(&rule, rows, pieces));
                assert!(off < 2e-4, "rows of kind {kind} in {pieces:?}: off by {off}");
            }
        }
    }

    #[test]
    fn the_fast_kernel_has_the_same_bits_in_any_pieces_and_the_numbers_of_mlx() {
        let (fast, plain) = (rule(true), rule(false));
        let width = (fast.spec.channels() + fast.spec.values() + 2 * fast.spec.value_heads) as i32;
        for (kind, rows) in kinds_of_rows(width).iter().enumerate() {
            let one_by_one = in_pieces(&fast, rows, &[1; 77]);
            for pieces in [&[77][..], &[32, 45], &[2, 2, 73]] {
                assert!(one_by_one == in_pieces(&fast, rows, pieces), "rows of kind {kind} in {pieces:?}: other bits");
            }
            let off = off(&in_pieces(&plain, rows, &[1; 77]), &one_by_one);
            assert!(off < 2e-4, "rows of kind {kind}: off by {off}");
        }
    }
}
