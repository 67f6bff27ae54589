//! What one session keeps in one layer: its keys and values, or a recurrent state (`recurrent.rs`).
//!
//! Keys and values grow in blocks, and a session goes back to any position. There are two layouts of them: MLX's own for
//! the plain kernels, `[1, kv_heads, capacity, head_dim]` for keys and values each, and that of the fast kernels. In
//! both, the buffers may hold more than the session has; only rows before the shard's position count. Sessions that
//! decode together on the plain kernels have theirs in buffers that they share (`shared.rs`).

pub(crate) mod shared;

use hive_kernels::{AttentionShape, KV_BLOCK, KvBuffers, LANES};
use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, Dtype};

use crate::error::ComputeError;
use crate::footprint::StateBytes;
use crate::hidden::{ActivationType, bytes_are_finite};
use crate::linear::Arithmetic;
use crate::recurrent::{RecurrentCache, RecurrentShape};

/// The memory layout of a cache. Kernels cannot continue a cache of another layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum KvLayout {
    /// MLX's own.
    Plain(ActivationType),
    /// The fast kernels' own.
    Fast,
}

/// What a layer keeps for a session, as a shape.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CacheShape {
    /// Keys and values.
    Attention(AttentionShape),
    /// A recurrent state.
    Recurrent(RecurrentShape),
    /// Nothing: the layer attends to the keys and values of another one.
    Nothing,
}

#[derive(Debug)]
pub(crate) enum LayerCache {
    Plain(PlainCache),
    Fast(KvBuffers),
    Recurrent(RecurrentCache),
    /// In the session's row of the buffers that it shares with others.
    Shared,
    Nothing,
}

impl CacheShape {
    /// What a session takes in such a layer.
    pub(crate) fn bytes(&self, activation: ActivationType) -> StateBytes {
        match self {
            Self::Attention(AttentionShape { kv_heads, head_dim, .. }) => {
                StateBytes { per_token: (2 * kv_heads * head_dim * activation.bytes()) as u64, fixed: 0 }
            }
            Self::Recurrent(shape) => StateBytes { per_token: 0, fixed: shape.most_bytes(activation.bytes()) as u64 },
            Self::Nothing => StateBytes::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct PlainCache {
    keys: Array,
    values: Array,
}

impl LayerCache {
    /// An empty one.
    pub(crate) fn new(shape: &CacheShape, arithmetic: Arithmetic) -> Result<Self, ComputeError> {
        let dtype = arithmetic.activation.mlx();
        Ok(match shape {
            CacheShape::Attention(shape) if arithmetic.fast => Self::Fast(KvBuffers::new(shape)?),
            CacheShape::Attention(shape) => {
                let zeros = || PlainCache::zeros(shape.kv_heads, KV_BLOCK, shape.head_dim, dtype);
                Self::Plain(PlainCache { keys: zeros()?, values: zeros()? })
            }
            CacheShape::Recurrent(shape) => Self::Recurrent(RecurrentCache::new(*shape, dtype)),
            CacheShape::Nothing => Self::Nothing,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Plain(cache) => cache.keys.nbytes() + cache.values.nbytes(),
            Self::Fast(buffers) => buffers.bytes(),
            Self::Recurrent(states) => states.bytes(),
            Self::Shared | Self::Nothing => 0,
        }
    }

    /// The last position up to this one that the session can go back to.
    pub(crate) fn reachable(&self, position: usize) -> usize {
        match self {
            Self::Plain(_) | Self::Fast(_) | Self::Shared | Self::Nothing => position,
            Self::Recurrent(states) => states.reachable(position),
        }
    }

    /// What is kept of the first positions, as stored: the keys of every head, then the values, rounded up to whole
    /// groups of [`LANES`] positions, as the fast kernels store keys; or the state after them.
    pub(crate) fn export(&self, positions: usize) -> Result<Vec<u8>, ComputeError> {
        let (arrays, heads, capacity) = match self {
            Self::Plain(cache) => ([&cache.keys, &cache.values], cache.keys.dim(1), cache.keys.dim(2) as usize),
            Self::Fast(buffers) => (buffers.arrays(), buffers.arrays()[1].dim(0), buffers.capacity()),
            Self::Recurrent(states) => return states.export(positions),
            Self::Shared => return Err(ComputeError::Mlx("a cache in buffers that others share".to_owned())),
            Self::Nothing => return Ok(Vec::new()),
        };
        let mut bytes = Vec::new();
        for array in arrays {
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
        shape: &CacheShape,
        layout: KvLayout,
        positions: usize,
        bytes: &[u8],
    ) -> Result<Self, ComputeError> {
        let activation = match layout {
            KvLayout::Fast => ActivationType::F32,
            KvLayout::Plain(activation) => activation,
        };
        let shape = match shape {
            CacheShape::Attention(shape) => shape,
            CacheShape::Recurrent(shape) => {
                return Ok(Self::Recurrent(RecurrentCache::import(*shape, activation, positions, bytes)?));
            }
            CacheShape::Nothing if bytes.is_empty() => return Ok(Self::Nothing),
            CacheShape::Nothing => {
                return Err(ComputeError::Mlx(format!("{} bytes for a layer that keeps nothing", bytes.len())));
            }
        };
        let AttentionShape { kv_heads, head_dim, .. } = *shape;
        let capacity = positions.div_ceil(KV_BLOCK).max(1) * KV_BLOCK;
        let shapes = match layout {
            KvLayout::Fast => KvBuffers::shapes(shape, capacity),
            KvLayout::Plain(_) => {
                let shape = vec![1, kv_heads as i32, capacity as i32, head_dim as i32];
                [shape.clone(), shape]
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
            KvLayout::Plain(_) => Self::Plain(PlainCache { keys, values }),
        })
    }

    /// The arrays to evaluate so that the cache is up to date.
    pub(crate) fn pending(&self) -> Vec<&Array> {
        match self {
            Self::Plain(cache) => vec![&cache.keys, &cache.values],
            // The fast attention writes when its output is evaluated.
            Self::Fast(_) | Self::Shared | Self::Nothing => Vec::new(),
            Self::Recurrent(states) => states.pending(),
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

impl PlainCache {
    fn zeros(heads: usize, positions: usize, head_dim: usize, dtype: Dtype) -> Result<Array, ComputeError> {
        Ok(mlx_rs::ops::zeros_dtype(&[1, heads as i32, positions as i32, head_dim as i32], dtype)?)
    }

    /// The keys and values of the first positions.
    pub(crate) fn up_to(&self, end: usize) -> (Array, Array) {
        let of = |buffer: &Array| buffer.index((.., .., ..end as i32, ..));
        (of(&self.keys), of(&self.values))
    }

    /// Writes keys and values `[1, kv_heads, n, head_dim]` at `offset`; returns everything up to their end.
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
