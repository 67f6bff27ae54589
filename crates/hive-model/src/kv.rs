//! The KV cache of one session in one layer. It grows in blocks; `rollback` shortens it.
//!
//! There are two layouts: MLX's own for the plain kernels, `[rows, kv_heads, capacity, head_dim]` for keys and values
//! each, where several sessions may have a row, and that of the fast kernels. In both, the buffers may hold more than the
//! session has; only what is before the shard's position counts.

mod plain;

use std::collections::BTreeSet;

use hive_kernels::{AttentionShape, KV_BLOCK, KvBuffers, LANES};
use mlx_rs::{Array, Dtype};

use crate::error::ComputeError;
use crate::hidden::{ActivationType, bytes_are_finite};

pub(crate) use plain::PlainCache;

/// The memory layout of a cache. Kernels cannot continue a cache of another layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum KvLayout {
    /// MLX's own.
    Plain(ActivationType),
    /// The fast kernels' own.
    Fast,
}

#[derive(Debug)]
pub(crate) enum LayerCache {
    Plain(PlainCache),
    Fast(KvBuffers),
}

impl LayerCache {
    pub(crate) fn fast(shape: &AttentionShape) -> Result<Self, ComputeError> {
        Ok(Self::Fast(KvBuffers::new(shape)?))
    }

    pub(crate) fn plain(shape: &AttentionShape, dtype: Dtype) -> Result<Self, ComputeError> {
        Ok(Self::Plain(PlainCache::new(shape, dtype)?))
    }

    pub(crate) fn as_plain(&self) -> Option<&PlainCache> {
        match self {
            Self::Plain(cache) => Some(cache),
            Self::Fast(_) => None,
        }
    }

    /// Bytes that these caches take; a buffer that several of them share counts once.
    pub(crate) fn bytes_of<'a>(caches: impl Iterator<Item = &'a Self>) -> usize {
        let mut seen = BTreeSet::new();
        let bytes = |cache: &Self| match cache {
            Self::Plain(cache) if seen.insert(cache.buffer_id()) => cache.buffer().bytes(),
            Self::Plain(_) => 0,
            Self::Fast(buffers) => buffers.bytes(),
        };
        caches.map(bytes).sum()
    }

    /// The first positions as stored: the keys of every head, then the values. Rounded up to whole groups of [`LANES`]
    /// positions, as the fast kernels store keys.
    pub(crate) fn export(&self, positions: usize) -> Result<Vec<u8>, ComputeError> {
        let (arrays, heads, capacity) = match self {
            Self::Plain(cache) => {
                let rows = cache.own_rows()?;
                let (heads, capacity) = (rows[0].dim(1), rows[0].dim(2) as usize);
                (rows, heads, capacity)
            }
            Self::Fast(buffers) => (buffers.arrays().map(Array::clone), buffers.arrays()[1].dim(0), buffers.capacity()),
        };
        let mut bytes = Vec::new();
        for array in &arrays {
            let all = hive_kernels::array_bytes(array)?;
            let head_bytes = all.len() / heads as usize;
            let wanted_bytes = head_bytes / capacity * positions.next_multiple_of(LANES);
            for head in all.chunks_exact(head_bytes) {
                bytes.extend_from_slice(&head[..wanted_bytes]);
            }
        }
        Ok(bytes)
    }

    /// Restores a cache of this many positions from the bytes of [`Self::export`].
    pub(crate) fn import(
        shape: &AttentionShape,
        layout: KvLayout,
        positions: usize,
        bytes: &[u8],
    ) -> Result<Self, ComputeError> {
        let AttentionShape { kv_heads, head_dim, .. } = *shape;
        let capacity = positions.div_ceil(KV_BLOCK).max(1) * KV_BLOCK;
        let (activation, shapes) = match layout {
            KvLayout::Fast => (ActivationType::F32, KvBuffers::shapes(shape, capacity)),
            KvLayout::Plain(activation) => {
                let shape = vec![1, kv_heads as i32, capacity as i32, head_dim as i32];
                (activation, [shape.clone(), shape])
            }
        };
        let row_bytes = head_dim * activation.bytes();
        let (head_bytes, wanted_bytes) = (capacity * row_bytes, positions.next_multiple_of(LANES) * row_bytes);
        if bytes.len() != shapes.len() * kv_heads * wanted_bytes {
            let why = format!("a cache of {positions} positions has another size than {} bytes", bytes.len());
            return Err(ComputeError::Mlx(why));
        }
        for (n, head) in bytes.chunks(wanted_bytes.max(1)).enumerate() {
            let in_lanes = layout == KvLayout::Fast && n < kv_heads;
            if !is_finite_up_to(positions, head, activation, head_dim, in_lanes) {
                return Err(ComputeError::Mlx("a cache holds numbers that are not finite".to_owned()));
            }
        }
        let mut rest = bytes;
        let mut array = |shape: &[i32]| {
            let mut all = vec![0; kv_heads * head_bytes];
            for head in all.chunks_exact_mut(head_bytes) {
                let (mine, others) = rest.split_at(wanted_bytes);
                head[..wanted_bytes].copy_from_slice(mine);
                rest = others;
            }
            hive_kernels::array_from_bytes(&all, shape, activation.mlx())
        };
        let (keys, values) = (array(&shapes[0])?, array(&shapes[1])?);
        Ok(match layout {
            KvLayout::Fast => Self::Fast(KvBuffers::from_arrays(shape, [keys, values])?),
            KvLayout::Plain(_) => Self::Plain(PlainCache::alone(keys, values, positions)),
        })
    }

    /// The arrays to evaluate so that the cache is up to date.
    pub(crate) fn pending(&self) -> Vec<Array> {
        match self {
            Self::Plain(cache) => cache.pending().into(),
            // The fast attention writes when its output is evaluated.
            Self::Fast(_) => Vec::new(),
        }
    }
}

/// Whether the numbers of one head's first positions are finite; those after them may be anything.
fn is_finite_up_to(positions: usize, head: &[u8], activation: ActivationType, head_dim: usize, in_lanes: bool) -> bool {
    // Nearly always, all of them are.
    if bytes_are_finite(activation, head) {
        return true;
    }
    let position_of = |at: usize| if in_lanes { at / (LANES * head_dim) * LANES + at % LANES } else { at / head_dim };
    let mut numbers = head.chunks_exact(activation.bytes()).enumerate();
    numbers.all(|(at, number)| position_of(at) >= positions || bytes_are_finite(activation, number))
}
