//! Attention with rotary positions: projections to queries, keys and values, and back.

use hive_kernels::{AttentionShape, HeadWeights, PackedMatrix};
use hive_weights::config::{AttentionSpec, HeadNorms, KvSource, ModelConfig};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::heads::Heads;
use crate::adapter::{Place, Target, adapted};
use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear, Projection};
use crate::span::Batch;

pub(super) struct Attention {
    qkv: Projection,
    pub(super) output: Linear,
    heads: Heads,
    is_gated: bool,
}

/// The projections: queries, keys and values; and the output.
fn matrices<'a>(
    weights: &'a Weights,
    prefix: &str,
    hidden: usize,
    spec: &AttentionSpec,
) -> Result<(Vec<FileMatrix<'a>>, FileMatrix<'a>), TensorError> {
    let part =
        |name: &str, rows: usize, columns: usize| weights.file_matrix(&format!("{prefix}.{name}"), rows, columns);
    let qkv = qkv(spec).into_iter().map(|(name, rows)| part(name, rows, hidden)).collect::<Result<_, _>>()?;
    Ok((qkv, part("o_proj", hidden, spec.heads * spec.head_dim)?))
}

/// Queries, keys and values, with their rows.
fn qkv(spec: &AttentionSpec) -> Vec<(&'static str, usize)> {
    let AttentionSpec { heads, kv_heads, head_dim, is_joined, is_gated, .. } = *spec;
    if is_joined {
        return vec![("qkv_proj", (heads + 2 * kv_heads) * head_dim)];
    }
    let queries = if is_gated { 2 * heads } else { heads };
    let parts = [("q_proj", queries), ("k_proj", kv_heads), ("v_proj", kv_heads)];
    let count = match spec.source {
        KvSource::Projected | KvSource::NormedValues => 3,
        KvSource::Joint => 2,
        KvSource::Layer(_) => 1,
    };
    parts[..count].iter().map(|(name, heads)| (*name, heads * head_dim)).collect()
}

impl Attention {
    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &AttentionSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let (qkv, output) = matrices(weights, prefix, config.hidden, spec)?;
        Ok(Self {
            qkv: Projection::load(&qkv, arithmetic)?,
            output: Linear::load(&[output], arithmetic)?,
            heads: Heads::load(weights, prefix, config, spec, arithmetic)?,
            is_gated: spec.is_gated,
        })
    }

    /// What adapters can change in such attention.
    pub(super) fn targets(module: &str, hidden: usize, spec: &AttentionSpec) -> Vec<Target> {
        vec![
            Target::of(Place::Input, hidden, module, &qkv(spec)),
            Target::of(Place::Output, spec.heads * spec.head_dim, module, &[("o_proj", hidden)]),
        ]
    }

    /// The size of such attention in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &AttentionSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let (qkv, output) = matrices(weights, prefix, config.hidden, spec)?;
        Ok(Projection::bytes_of(&qkv, arithmetic)
            + Linear::bytes_of(&[output], arithmetic)
            + Heads::bytes_of(spec, arithmetic))
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.heads.bytes() + self.qkv.bytes() + self.output.bytes()
    }

    /// What the kernels compute with.
    pub(super) fn shape(&self) -> &AttentionShape {
        &self.heads.shape
    }

    /// Its matrices for the kernel that computes a layer in one call, if that kernel supports them.
    pub(super) fn packed(&self) -> Option<(&PackedMatrix, HeadWeights<'_>, &PackedMatrix)> {
        if self.heads.head_norms == HeadNorms::All || self.is_gated {
            return None;
        }
        Some((self.qkv.packed()?, self.heads.head_weights(), self.output.packed()?))
    }

    /// `x [n, hidden]`, normalized, to what is projected back: `[n, heads head_dim]`. Extends the caches.
    pub(super) fn attended(&self, x: &Array, layer: usize, batch: &mut Batch) -> Result<Array, ComputeError> {
        let projected = adapted(batch.adapter, Place::Input, self.qkv.forward(x)?, x)?;
        if self.is_gated {
            let (qkv, gates) = self.without_gates(&projected)?;
            return Ok(self.heads.attend_all(&qkv, layer, batch)?.multiply(ops::sigmoid(gates)?)?);
        }
        self.heads.attend_all(&self.heads.with_norms_of_all(projected)?, layer, batch)
    }

    /// Takes out the gates, of which each follows its query: `[n, heads head_dim]`.
    fn without_gates(&self, projected: &Array) -> Result<(Array, Array), ComputeError> {
        let AttentionShape { heads, head_dim, .. } = self.heads.shape;
        let (n, width) = (projected.dim(0), (heads * head_dim) as i32);
        let pairs = projected.index((.., ..2 * width)).reshape(&[n, heads as i32, 2, head_dim as i32])?;
        let part = |index: i32| pairs.index((.., .., index, ..)).reshape(&[n, width]);
        Ok((ops::concatenate(&[part(0)?, projected.index((.., 2 * width..))], -1)?, part(1)?))
    }
}
