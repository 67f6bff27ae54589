//! Gated delta nets (`DeltaSpec`): a matrix for each value head, which every token reads and changes.
//!
//! With a state S, a token of key k, query q and value v keeps a share g of the state, and replaces a share b of what the
//! state says about its key: `S <- g S`, `S <- S + b k (v - kᵀ S)`, and reads `qᵀ S`. On MLX's kernels, tokens are taken
//! in chunks, whose products with each other are a triangular system (Yang et al., arXiv 2412.06464): as few operations
//! as products of matrices, on every device. The fast kernel takes one token after the other, so its numbers are the
//! same in any chunks.

use hive_kernels::{DeltaShape, DeltaWeights};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Dtype, ops};

use crate::config::{DeltaSpec, FUSED, ModelConfig, SEPARATE};
use crate::error::{ComputeError, LoadError};
use crate::hidden::ActivationType;
use crate::kv::LayerCache;
use crate::linear::{Arithmetic, Linear, Projection};
use crate::recurrent::{BEFORE_END, RecurrentShape, State};
use crate::span::Span;
use crate::weights::{FileMatrix, TensorError, Weights};

/// Tokens that are computed together on MLX's kernels; a power of two.
const CHUNK: i32 = 32;
/// Added to the squares of queries and keys before they are divided by their length, as the authors do.
const LENGTH_EPS: f32 = 1e-6;

pub(super) struct DeltaNet {
    input: Projection,
    pub(super) output: Linear,
    /// `[taps, channels]`, in single precision, as all vectors here.
    convolution: Array,
    /// How fast each value head forgets: the exponent's factor, which is negative.
    rates: Array,
    /// Added to what decides how much is forgotten.
    step_bias: Array,
    norm: Array,
    eps: f32,
    fast: bool,
    activation: ActivationType,
    spec: DeltaSpec,
}

/// The projections, and the one back.
fn matrices<'a>(
    weights: &'a Weights,
    prefix: &str,
    hidden: usize,
    spec: &DeltaSpec,
) -> Result<(Vec<FileMatrix<'a>>, FileMatrix<'a>), TensorError> {
    let part = |name: &str, rows: usize| weights.file_matrix(&format!("{prefix}.{name}"), rows, hidden);
    let (channels, values, heads) = (spec.channels(), spec.values(), spec.value_heads);
    let input = if spec.is_fused {
        vec![part(FUSED[0], channels + values)?, part(FUSED[1], 2 * heads)?]
    } else {
        let rows = [channels, values, heads, heads];
        SEPARATE.iter().zip(rows).map(|(name, rows)| part(name, rows)).collect::<Result<_, _>>()?
    };
    Ok((input, weights.file_matrix(&format!("{prefix}.out_proj"), hidden, values)?))
}

impl DeltaNet {
    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &DeltaSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let (input, output) = matrices(weights, prefix, config.hidden, spec)?;
        let vector = |name: &str, length| -> Result<Vec<f32>, TensorError> {
            Ok(weights.vector(&format!("{prefix}.{name}"), length)?.to_f32())
        };
        let array = |numbers: &[f32]| Array::from_slice(numbers, &[numbers.len() as i32]);
        let (channels, taps) = (spec.channels(), spec.taps);
        let stored = weights.convolution(&format!("{prefix}.conv1d.weight"), channels, taps)?.to_f32();
        let by_tap: Vec<f32> = (0..taps).flat_map(|tap| stored.iter().skip(tap).step_by(taps).copied()).collect();
        let rates: Vec<f32> = vector("A_log", spec.value_heads)?.into_iter().map(|log| -log.exp()).collect();
        Ok(Self {
            input: Projection::load(&input, arithmetic)?,
            output: Linear::load(&[output], arithmetic)?,
            convolution: Array::from_slice(&by_tap, &[taps as i32, channels as i32]),
            rates: array(&rates),
            step_bias: array(&vector("dt_bias", spec.value_heads)?),
            norm: array(&vector("norm.weight", spec.value_dim)?),
            eps: config.rms_eps,
            fast: arithmetic.fast,
            activation: arithmetic.activation,
            spec: *spec,
        })
    }

    /// The size of such a net in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &DeltaSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let (input, output) = matrices(weights, prefix, config.hidden, spec)?;
        let numbers = spec.taps * spec.channels() + 2 * spec.value_heads + spec.value_dim;
        Ok(Projection::bytes_of(&input, arithmetic)
            + Linear::bytes_of(&[output], arithmetic)
            + (numbers * size_of::<f32>()) as u64)
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let vectors = [&self.convolution, &self.rates, &self.step_bias, &self.norm];
        self.input.bytes() + self.output.bytes() + vectors.iter().map(|vector| vector.nbytes()).sum::<usize>()
    }

    /// What it keeps for a session.
    pub(super) fn state_shape(&self) -> RecurrentShape {
        RecurrentShape::of(&self.spec)
    }

    /// `x [n, hidden]`, normalized, to what is projected back: `[n, value_heads value_dim]`. Keeps new states.
    pub(super) fn mixed(&self, x: &Array, layer: usize, spans: &mut [Span]) -> Result<Array, ComputeError> {
        let projected = self.projected(x)?;
        let mut outputs = Vec::with_capacity(spans.len() + 1);
        for Span { rows, offset, caches } in spans {
            let LayerCache::Recurrent(cache) = &mut caches[layer] else {
                return Err(ComputeError::Mlx("a cache of another kind".to_owned()));
            };
            let mut state = cache.at(*offset)?;
            // A state shortly before the end is kept, to which the session may come back.
            let checkpoint = rows.len().checked_sub(BEFORE_END).filter(|before| *before > 0);
            let ends = checkpoint.into_iter().chain([rows.len()]);
            let mut start = 0;
            for end in ends {
                let part = projected.index(((rows.start + start) as i32..(rows.start + end) as i32, ..));
                let (y, next) = if self.fast { self.on_fast(&part, &state)? } else { self.on_mlx(&part, &state)? };
                cache.keep(*offset + end, next.clone(), Some(end) == checkpoint);
                outputs.push(y);
                (state, start) = (next, end);
            }
        }
        Ok(if outputs.len() == 1 { outputs.remove(0) } else { ops::concatenate(&outputs, 0)? })
    }

    /// Queries, keys and values, the output's gate, how much is written, and how much is kept, side by side.
    fn projected(&self, x: &Array) -> Result<Array, ComputeError> {
        let y = self.input.forward(x)?;
        if !self.spec.is_fused {
            return Ok(y);
        }
        let DeltaSpec { key_heads, value_heads, key_dim, value_dim, .. } = self.spec;
        let [n, heads, keys] = [y.dim(0), key_heads as i32, key_dim as i32];
        let each = (value_heads / key_heads) as i32;
        let values = each * value_dim as i32;
        let wide = heads * (2 * keys + 2 * values);
        let of_heads = |part: Array| part.reshape(&[n, heads, -1]);
        let (first, second) = (of_heads(y.index((.., ..wide)))?, of_heads(y.index((.., wide..)))?);
        let part = |from: &Array, at: i32, width: i32| from.index((.., .., at..at + width)).reshape(&[n, -1]);
        let parts = [
            part(&first, 0, keys)?,
            part(&first, keys, keys)?,
            part(&first, 2 * keys, values)?,
            part(&first, 2 * keys + values, values)?,
            part(&second, 0, each)?,
            part(&second, each, each)?,
        ];
        Ok(ops::concatenate(&parts, -1)?)
    }

    /// One session's rows on the fast kernel.
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

    /// One session's rows on MLX's kernels.
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
