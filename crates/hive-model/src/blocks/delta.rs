//! Gated delta nets (`DeltaSpec`): a matrix for each value head, which every token reads and changes.
//!
//! This is the net with its projections; `delta/rule.rs` is what a token does to the state.

mod rule;

use hive_weights::config::{DeltaSpec, FUSED, ModelConfig, SEPARATE};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use crate::adapter::{LayerAdapter, Place, Target, adapted};
use crate::error::{ComputeError, LoadError};
use crate::kv::LayerCache;
use crate::linear::{Arithmetic, Linear, Projection};
use crate::recurrent::{BEFORE_END, RecurrentShape};
use crate::span::{Batch, Span};
use rule::DeltaRule;

pub(super) struct DeltaNet {
    input: Projection,
    pub(super) output: Linear,
    rule: DeltaRule,
}

/// The projections, and the one back.
fn matrices<'a>(
    weights: &'a Weights,
    prefix: &str,
    hidden: usize,
    spec: &DeltaSpec,
) -> Result<(Vec<FileMatrix<'a>>, FileMatrix<'a>), TensorError> {
    let part = |name: &str, rows: usize| weights.file_matrix(&format!("{prefix}.{name}"), rows, hidden);
    let input = input(spec).into_iter().map(|(name, rows)| part(name, rows)).collect::<Result<_, _>>()?;
    Ok((input, weights.file_matrix(&format!("{prefix}.out_proj"), hidden, spec.values())?))
}

/// The projections of the input, with their rows.
fn input(spec: &DeltaSpec) -> Vec<(&'static str, usize)> {
    let (channels, values, heads) = (spec.channels(), spec.values(), spec.value_heads);
    if spec.is_fused {
        return FUSED.into_iter().zip([channels + values, 2 * heads]).collect();
    }
    SEPARATE.into_iter().zip([channels, values, heads, heads]).collect()
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
        let rates = vector("A_log", spec.value_heads)?;
        // GGUF stores the rates themselves.
        let rates = if weights.is_gguf() { rates } else { rates.into_iter().map(|log| -log.exp()).collect() };
        Ok(Self {
            input: Projection::load(&input, arithmetic)?,
            output: Linear::load(&[output], arithmetic)?,
            rule: DeltaRule {
                convolution: Array::from_slice(&by_tap, &[taps as i32, channels as i32]),
                rates: array(&rates),
                step_bias: array(&vector("dt_bias", spec.value_heads)?),
                norm: array(&vector("norm.weight", spec.value_dim)?),
                eps: config.rms_eps,
                fast: arithmetic.fast,
                activation: arithmetic.activation,
                spec: *spec,
            },
        })
    }

    /// What adapters can change in such a net.
    pub(super) fn targets(module: &str, hidden: usize, spec: &DeltaSpec) -> Vec<Target> {
        vec![
            Target::of(Place::Input, hidden, module, &input(spec)),
            Target::of(Place::Output, spec.values(), module, &[("out_proj", hidden)]),
        ]
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
        Ok(Projection::bytes_of(&input, arithmetic)
            + Linear::bytes_of(&[output], arithmetic)
            + DeltaRule::bytes_of(spec) as u64)
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.input.bytes() + self.output.bytes() + self.rule.bytes()
    }

    /// What it keeps for a session.
    pub(super) fn state_shape(&self) -> RecurrentShape {
        RecurrentShape::of(&self.rule.spec)
    }

    /// `x [n, hidden]`, normalized, to what is projected back: `[n, value_heads value_dim]`. Keeps new states.
    pub(super) fn mixed(&self, x: &Array, layer: usize, batch: &mut Batch) -> Result<Array, ComputeError> {
        let projected = self.projected(x, batch.adapter)?;
        let spans = &mut *batch.spans;
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
                let (y, next) = self.rule.applied(&part, &state)?;
                cache.keep(*offset + end, next.clone(), Some(end) == checkpoint);
                outputs.push(y);
                (state, start) = (next, end);
            }
        }
        Ok(if outputs.len() == 1 { outputs.remove(0) } else { ops::concatenate(&outputs, 0)? })
    }

    /// Queries, keys and values, the output's gate, how much is written, and how much is kept, side by side.
    fn projected(&self, x: &Array, adapter: Option<&LayerAdapter>) -> Result<Array, ComputeError> {
        let y = adapted(adapter, Place::Input, self.input.forward(x)?, x)?;
        if !self.rule.spec.is_fused {
            return Ok(y);
        }
        let DeltaSpec { key_heads, value_heads, key_dim, value_dim, .. } = self.rule.spec;
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
}
