//! Attention itself, between the projections: norms and rotation of heads, and what each session attends to.

use hive_kernels::{AttentionShape, HeadWeights, KvSource};
use hive_weights::config::{self, AttentionSpec, HeadNorms, ModelConfig, QueryGrowth, Rope};
use hive_weights::weights::Weights;
use mlx_rs::fast::ScaledDotProductAttentionMask::{self as Mask, Causal};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::norm::{Norm, vector};
use crate::device::is_gpu;
use crate::error::{ComputeError, LoadError};
use crate::kv::shared::SharedStep;
use crate::kv::{LayerCache, PlainCache};
use crate::linear::Arithmetic;
use crate::span::{Batch, Others, Span, Together};

pub(super) struct Heads {
    pub(super) shape: AttentionShape,
    /// Base of the periods, if they are its plain powers.
    base: Option<f32>,
    /// All periods, if they are not.
    special_periods: Option<Array>,
    /// All periods, for the fast kernel.
    periods: Array,
    pub(super) head_norms: HeadNorms,
    /// The norms of queries and of keys.
    norms: [Option<Norm>; 2],
    /// Epsilon of the values' norms.
    eps: f32,
    sinks: Option<Array>,
    growth: Option<QueryGrowth>,
}

/// The widths of the norms of queries and of keys, where there are some.
fn norm_widths(spec: &AttentionSpec) -> [Option<usize>; 2] {
    let [queries, keys] = match spec.head_norms {
        HeadNorms::None => return [None; 2],
        HeadNorms::Each => [spec.head_dim; 2],
        HeadNorms::All => [spec.heads, spec.kv_heads].map(|heads| heads * spec.head_dim),
    };
    [Some(queries), Some(keys).filter(|_| !matches!(spec.source, config::KvSource::Layer(_)))]
}

impl Heads {
    /// What the kernels compute with.
    pub(super) fn shape(spec: &AttentionSpec) -> AttentionShape {
        let AttentionSpec { heads, kv_heads, head_dim, scale, rotated, window, rope, source, .. } = spec;
        AttentionShape {
            rotated: if rope.is_some() { *rotated } else { 0 },
            rope_scale: rope.as_ref().map_or(1.0, Rope::position_scale),
            rope_magnitude: rope.as_ref().map_or(1.0, Rope::magnitude),
            window: *window,
            source: match source {
                config::KvSource::Projected => KvSource::Projected,
                config::KvSource::NormedValues => KvSource::NormedValues,
                config::KvSource::Joint => KvSource::Joint,
                config::KvSource::Layer(_) => KvSource::Cached,
            },
            ..AttentionShape::new(*heads, *kv_heads, *head_dim, *scale)
        }
    }

    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &AttentionSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let shape = Self::shape(spec);
        let array = |periods: &[f32]| Array::from_slice(periods, &[periods.len() as i32]);
        let special = spec.rope.as_ref().and_then(|rope| rope.periods(shape.rotated));
        let plain = || spec.rope.as_ref().map_or_else(Vec::new, |rope| rope.plain_periods(shape.rotated));
        let norm = |name: &str, width: Option<usize>| {
            let load = |width| Norm::load(weights, &format!("{prefix}.{name}"), width, config, arithmetic);
            width.map(load).transpose()
        };
        let [q, k] = norm_widths(spec);
        let sinks = format!("{prefix}.sinks");
        Ok(Self {
            shape,
            base: spec.rope.as_ref().filter(|_| special.is_none()).map(|rope| rope.theta),
            special_periods: special.as_deref().map(array),
            periods: array(&special.unwrap_or_else(plain)),
            head_norms: spec.head_norms,
            norms: [norm("q_norm", q)?, norm("k_norm", k)?],
            eps: config.rms_eps,
            growth: spec.query_growth,
            sinks: if spec.has_sinks { Some(vector(weights, &sinks, spec.heads, arithmetic)?) } else { None },
        })
    }

    /// The size of what it holds in memory, in bytes.
    pub(super) fn bytes_of(spec: &AttentionSpec, arithmetic: Arithmetic) -> u64 {
        let rotated = Self::shape(spec).rotated;
        let periods = rotated / 2 * size_of::<f32>();
        let is_special = spec.rope.as_ref().is_some_and(|rope| rope.periods(rotated).is_some());
        let periods = periods * if is_special { 2 } else { 1 };
        let norms: usize = norm_widths(spec).iter().flatten().sum();
        let sinks = if spec.has_sinks { spec.heads } else { 0 };
        ((norms + sinks) * arithmetic.activation.bytes() + periods) as u64
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let periods = self.periods.nbytes() + self.special_periods.as_ref().map_or(0, Array::nbytes);
        let norms: usize = self.norms.iter().flatten().map(Norm::bytes).sum();
        periods + norms + self.sinks.as_ref().map_or(0, Array::nbytes)
    }

    pub(super) fn head_weights(&self) -> HeadWeights<'_> {
        // A layer without keys of its own has no norm of them, and the kernel reads none.
        let [q, k] = &self.norms;
        let each = q.as_ref().filter(|_| self.head_norms == HeadNorms::Each).map(|q| (q, k.as_ref().unwrap_or(q)));
        HeadWeights {
            periods: &self.periods,
            norms: each.map(|(q, k)| (&q.weight, &k.weight, q.eps)),
            sinks: self.sinks.as_ref(),
            growth: self.growth.map(|QueryGrowth { beta, context }| (beta, context)),
        }
    }

    /// Attention of all sessions of a batch.
    pub(super) fn attend_all(
        &self,
        qkv: &Array,
        layer: usize,
        Batch { spans, offsets, together, .. }: &mut Batch,
    ) -> Result<Array, ComputeError> {
        if let Some(together) = together {
            return self.attend_together(qkv, layer, spans, together);
        }
        if let Some(offsets) = offsets {
            return self.attend_each(qkv, layer, &mut spans.iter_mut().collect::<Vec<_>>(), offsets);
        }
        let mut outputs = Vec::with_capacity(spans.len());
        let alone = spans.len() == 1;
        for span in spans.iter_mut() {
            let rows = if alone { qkv.clone() } else { qkv.index((span.rows.start as i32..span.rows.end as i32, ..)) };
            outputs.push(match &mut span.caches[layer] {
                LayerCache::Fast(buffers) => {
                    buffers.reserve(&self.shape, span.offset + span.rows.len())?;
                    hive_kernels::attention(&rows, buffers, &self.head_weights(), &self.shape, span.offset)?
                }
                LayerCache::Plain(cache) => self.attend(&rows, span.offset, cache)?,
                LayerCache::Recurrent(_) | LayerCache::Shared | LayerCache::Nothing => {
                    return Err(ComputeError::Mlx("a cache of another kind".to_owned()));
                }
            });
        }
        Ok(if alone { outputs.remove(0) } else { ops::concatenate(&outputs, 0)? })
    }

    /// Normalizes all queries together, and all keys, where a model does that.
    pub(super) fn with_norms_of_all(&self, qkv: Array) -> Result<Array, ComputeError> {
        let (HeadNorms::All, [Some(q), Some(k)]) = (self.head_norms, &self.norms) else { return Ok(qkv) };
        let [queries, keys] = [&q.weight, &k.weight].map(|weight| weight.size() as i32);
        // The fast kernel wants rows without gaps.
        let part = |range: std::ops::Range<i32>| -> Result<Array, ComputeError> {
            let part = qkv.index((.., range));
            Ok(if q.fast { part.contiguous()? } else { part })
        };
        let parts = [
            q.forward(&part(0..queries)?)?,
            k.forward(&part(queries..queries + keys)?)?,
            qkv.index((.., queries + keys..)),
        ];
        Ok(ops::concatenate(&parts, -1)?)
    }

    /// Splits rows into heads and normalizes each head, where a model does that.
    fn heads(&self, rows: Array, norm: usize) -> Result<Array, ComputeError> {
        match self.norms[norm].as_ref().filter(|_| self.head_norms == HeadNorms::Each) {
            Some(norm) => norm.forward(&rows),
            None => Ok(rows),
        }
    }

    /// The keys and values in rows of heads, where the layer has its own. `split` gives so many heads from one on.
    fn own(
        &self,
        split: impl Fn(usize, usize) -> Result<Array, ComputeError>,
    ) -> Result<Option<[Array; 2]>, ComputeError> {
        let AttentionShape { heads, kv_heads, source, .. } = self.shape;
        if source == KvSource::Cached {
            return Ok(None);
        }
        let keys = split(heads, kv_heads)?;
        let values = if source == KvSource::Joint { keys.clone() } else { split(heads + kv_heads, kv_heads)? };
        let values =
            if source == KvSource::Projected { values } else { mlx_rs::fast::rms_norm(&values, None, self.eps)? };
        Ok(Some([self.heads(keys, 1)?, values]))
    }

    /// Rotates heads by a function of MLX's.
    fn rotated(
        &self,
        heads: Array,
        rotate: impl FnOnce(Array, i32, Option<f32>, f32) -> mlx_rs::error::Result<Array>,
    ) -> Result<Array, ComputeError> {
        let AttentionShape { head_dim, rotated, rope_scale, rope_magnitude, .. } = self.shape;
        if rotated == 0 {
            return Ok(heads);
        }
        let grown = |part: Array| -> Result<Array, ComputeError> {
            let magnitude = Array::from_f32(rope_magnitude).as_dtype(part.dtype())?;
            Ok(part.multiply(magnitude)?)
        };
        let heads = if rope_magnitude == 1.0 {
            heads
        } else if rotated == head_dim {
            grown(heads)?
        } else {
            let part = grown(heads.index((.., .., .., ..rotated as i32)))?;
            ops::concatenate(&[part, heads.index((.., .., .., rotated as i32..))], -1)?
        };
        Ok(rotate(heads, rotated as i32, self.base, rope_scale)?)
    }

    /// Multiplies queries by what they grow with their positions, where a model does that.
    fn grown(
        &self,
        queries: Array,
        positions: impl FnOnce() -> Vec<f32>,
        shape: &[i32],
    ) -> Result<Array, ComputeError> {
        let Some(QueryGrowth { beta, context }) = self.growth else { return Ok(queries) };
        let factors: Vec<f32> =
            positions().into_iter().map(|position| 1.0 + beta * (1.0 + (position / context).floor()).ln()).collect();
        let factors = Array::from_slice(&factors, shape).as_dtype(queries.dtype())?;
        Ok(queries.multiply(factors)?)
    }

    /// Attention of one session on MLX's kernels, `[n, (heads + 2 kv_heads) head_dim] -> [n, heads head_dim]`.
    fn attend(&self, qkv: &Array, offset: usize, cache: &mut PlainCache) -> Result<Array, ComputeError> {
        let AttentionShape { heads, head_dim, scale, .. } = self.shape;
        let n = qkv.dim(0);
        let split = |from: usize, count: usize| -> Result<Array, ComputeError> {
            let part = qkv.index((.., (from * head_dim) as i32..((from + count) * head_dim) as i32));
            Ok(part.reshape(&[1, n, count as i32, head_dim as i32])?)
        };
        // Heads before tokens: [1, heads, n, head_dim].
        let turned = |part: Array| part.transpose_axes(&[0, 2, 1, 3]);
        let rope = |x: Array| {
            self.rotated(x, |x, dims, base, by| {
                mlx_rs::fast::rope(x, dims, false, base, by, offset as i32, &self.special_periods)
            })
        };
        let queries = rope(turned(self.heads(split(0, heads)?, 0)?)?)?;
        let positions = || (offset..offset + n as usize).map(|position| position as f32).collect();
        let queries = self.grown(queries, positions, &[1, 1, n, 1])?;
        let (keys, values) = match self.own(split)? {
            Some([keys, values]) => cache.update(&rope(turned(keys)?)?, &turned(values)?, offset)?,
            None => cache.up_to(offset + n as usize),
        };
        let (keys, values, mask) = self.in_window(keys, values, offset, n)?;
        let mask = match &mask {
            Some(mask) => Some(Mask::Array(mask)),
            None => (n > 1).then_some(Causal),
        };
        let attended =
            mlx_rs::fast::scaled_dot_product_attention(queries, keys, values, scale, mask, self.sinks.as_ref())?;
        Ok(attended.transpose_axes(&[0, 2, 1, 3])?.reshape(&[n, (heads * head_dim) as i32])?)
    }

    /// The keys and values that `n` tokens from `offset` on attend to, and which of them each token does, if that is
    /// not all before it.
    fn in_window(
        &self,
        keys: Array,
        values: Array,
        offset: usize,
        n: i32,
    ) -> Result<(Array, Array, Option<Array>), ComputeError> {
        let end = offset + n as usize;
        let Some(window) = self.shape.window.filter(|window| *window < end) else { return Ok((keys, values, None)) };
        let start = (offset + 1).saturating_sub(window) as i32;
        // For one token, CUDA's attention takes what begins within a larger array to begin with it, and reads beyond it.
        let of = |all: Array| -> Result<Array, ComputeError> {
            let within = all.index((.., .., start.., ..));
            if n == 1 && is_gpu() { Ok(within.contiguous()?) } else { Ok(within) }
        };
        let (keys, values) = (of(keys)?, of(values)?);
        if n == 1 {
            return Ok((keys, values, None));
        }
        let end = end as i32;
        let queries = ops::arange::<i32, i32>(offset as i32, end, None)?.reshape(&[n, 1])?;
        let positions = ops::arange::<i32, i32>(start, end, None)?.reshape(&[1, end - start])?;
        let before = positions.le(&queries)?;
        let within = positions.gt(queries.subtract(Array::from_int(window as i32))?)?;
        Ok((keys, values, Some(before.logical_and(within)?)))
    }

    /// Attention for one token of every session, of which some share buffers: those together, and the others after them.
    fn attend_together(
        &self,
        qkv: &Array,
        layer: usize,
        spans: &mut [Span],
        Together { step, members, picked, others, order }: &mut Together,
    ) -> Result<Array, ComputeError> {
        let rows = picked.as_ref().map(|rows| qkv.take_axis(rows, 0)).transpose()?;
        let attended = self.attend_rows(rows.as_ref().unwrap_or(qkv), layer, step)?;
        let attended = if let Some(Others { picked, offsets }) = others {
            let alone = spans.iter_mut().enumerate().filter(|(span, _)| !members.contains(span));
            let mut alone: Vec<_> = alone.map(|(_, span)| span).collect();
            let alone = self.attend_each(&qkv.take_axis(&*picked, 0)?, layer, &mut alone, offsets)?;
            ops::concatenate(&[attended, alone], 0)?
        } else {
            attended
        };
        Ok(match order {
            Some(order) => attended.take_axis(&*order, 0)?,
            None => attended,
        })
    }

    /// Splits rows of one token of every session into queries, keys and values of heads, `[n, heads, 1, head_dim]`,
    /// rotated to the positions `[n]` in `offsets`.
    fn split_each(
        &self,
        qkv: &Array,
        positions: impl Fn() -> Vec<f32>,
        offsets: &Array,
    ) -> Result<(Array, Option<[Array; 2]>), ComputeError> {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        let (n, dims) = (qkv.dim(0), head_dim as i32);
        let split = |from: usize, count: usize| -> Result<Array, ComputeError> {
            let part = qkv.index((.., (from * head_dim) as i32..((from + count) * head_dim) as i32));
            Ok(part.reshape(&[n, count as i32, 1, dims])?)
        };
        let rope = |x: Array| {
            self.rotated(x, |x, dims, base, by| {
                mlx_rs::fast::rope_dynamic(x, dims, false, base, by, offsets, &self.special_periods)
            })
        };
        let queries = rope(self.heads(split(0, heads)?, 0)?)?;
        let queries = self.grown(queries, positions, &[n, 1, 1, 1])?;
        let own = match self.own(split)? {
            Some([keys, values]) => Some([rope(keys)?, values]),
            None => None,
        };
        Ok((queries, own))
    }

    /// Attention of sessions that share buffers, in the order of their rows.
    fn attend_rows(&self, qkv: &Array, layer: usize, step: &mut SharedStep) -> Result<Array, ComputeError> {
        let AttentionShape { heads, head_dim, scale, window, .. } = self.shape;
        let positions = || step.positions().iter().map(|position| *position as f32).collect();
        let (queries, own) = self.split_each(qkv, positions, step.offsets())?;
        if let Some([keys, values]) = own {
            step.write(layer, &keys, &values)?;
        }
        let ([keys, values], mask) = step.read(layer, window)?;
        let (mask, sinks) = (mask.as_ref().map(Mask::Array), self.sinks.as_ref());
        let attended = mlx_rs::fast::scaled_dot_product_attention(queries, keys, values, scale, mask, sinks)?;
        Ok(attended.reshape(&[qkv.dim(0), (heads * head_dim) as i32])?)
    }

    /// Attention of sessions with a token each and buffers of their own. All rows are rotated together.
    fn attend_each(
        &self,
        qkv: &Array,
        layer: usize,
        spans: &mut [&mut Span],
        offsets: &Array,
    ) -> Result<Array, ComputeError> {
        let AttentionShape { heads, head_dim, scale, .. } = self.shape;
        let n = qkv.dim(0);
        let positions = || spans.iter().map(|span| span.offset as f32).collect();
        let (queries, own) = self.split_each(qkv, positions, offsets)?;
        let mut outputs = Vec::with_capacity(spans.len());
        for (row, span) in (0..n).zip(spans) {
            let LayerCache::Plain(cache) = &mut span.caches[layer] else {
                return Err(ComputeError::Mlx("a cache is of other kernels".to_owned()));
            };
            let of = |all: &Array| all.index((row..row + 1, .., .., ..));
            let (keys, values) = match &own {
                Some([keys, values]) => cache.update(&of(keys), &of(values), span.offset)?,
                None => cache.up_to(span.offset + 1),
            };
            let (keys, values, _) = self.in_window(keys, values, span.offset, 1)?;
            let sinks = self.sinks.as_ref();
            outputs.push(mlx_rs::fast::scaled_dot_product_attention(of(&queries), keys, values, scale, None, sinks)?);
        }
        Ok(ops::concatenate(&outputs, 0)?.reshape(&[n, (heads * head_dim) as i32])?)
    }
}
