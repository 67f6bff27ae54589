//! The KV cache of one session in one layer, grown in blocks, cut back by `rollback`.
//!
//! Two layouts: MLX's own for the plain kernels, `[1, kv_heads, capacity, head_dim]` each, and that of the fast ones.
//! Either way the buffers may hold more than the session has: what counts is the shard's position.

use hive_kernels::{AttentionShape, KV_BLOCK, KvBuffers};
use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, Dtype};

use crate::linear::ComputeError;

#[derive(Debug)]
pub(crate) enum LayerCache {
    Plain(PlainCache),
    Fast(KvBuffers),
}

#[derive(Debug)]
pub(crate) struct PlainCache {
    keys: Array,
    values: Array,
}

impl LayerCache {
    pub(crate) fn fast(shape: &AttentionShape) -> Result<Self, ComputeError> {
        Ok(Self::Fast(KvBuffers::new(shape)?))
    }

    pub(crate) fn plain(shape: &AttentionShape, dtype: Dtype) -> Result<Self, ComputeError> {
        let zeros = || PlainCache::zeros(shape.kv_heads, KV_BLOCK, shape.head_dim, dtype);
        Ok(Self::Plain(PlainCache { keys: zeros()?, values: zeros()? }))
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Plain(cache) => cache.keys.nbytes() + cache.values.nbytes(),
            Self::Fast(buffers) => buffers.bytes(),
        }
    }

    /// What has to be evaluated for the cache to be up to date.
    pub(crate) fn pending(&self) -> Vec<&Array> {
        match self {
            Self::Plain(cache) => vec![&cache.keys, &cache.values],
            // The fast attention writes when its output is evaluated.
            Self::Fast(_) => Vec::new(),
        }
    }
}

impl PlainCache {
    fn zeros(heads: usize, positions: usize, head_dim: usize, dtype: Dtype) -> Result<Array, ComputeError> {
        let zeros = Array::zeros::<f32>(&[1, heads as i32, positions as i32, head_dim as i32])?.as_dtype(dtype)?;
        zeros.eval()?;
        Ok(zeros)
    }

    /// Writes keys and values `[1, kv_heads, n, head_dim]` at `offset` and gives all up to there.
    pub(crate) fn update(
        &mut self,
        keys: &Array,
        values: &Array,
        offset: usize,
    ) -> Result<(Array, Array), ComputeError> {
        let end = offset + keys.dim(2) as usize;
        let missing = end.saturating_sub(self.keys.dim(2) as usize).div_ceil(KV_BLOCK) * KV_BLOCK;
        let write = |buffer: &mut Array, new: &Array| -> Result<Array, ComputeError> {
            if missing > 0 {
                let more = Self::zeros(buffer.dim(1) as usize, missing, buffer.dim(3) as usize, buffer.dtype())?;
                *buffer = mlx_rs::ops::concatenate(&[&*buffer, &more], 2)?;
            }
            buffer.try_index_mut((.., .., offset as i32..end as i32, ..), new)?;
            Ok(buffer.index((.., .., ..end as i32, ..)))
        };
        Ok((write(&mut self.keys, keys)?, write(&mut self.values, values)?))
    }
}
