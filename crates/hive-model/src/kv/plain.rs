//! A session's cache in one layer for MLX's kernels: a row of a buffer `[rows, kv_heads, capacity, head_dim]` for keys
//! and one for values.
//!
//! A session has a buffer to itself, or shares one with the sessions that it decodes with (`gang.rs`). Position `p` is
//! in column `p` of the row in either case, so a row can be read and written alone, and a session that goes back, waits
//! or ends does not concern the others. A shared buffer lives until the last of its sessions has left it.
//!
//! Nobody keeps an array from before a step: MLX writes in place only what has no other owner, and would copy the whole
//! buffer otherwise.

use std::cell::{Ref, RefCell};
use std::rc::Rc;

use hive_kernels::{AttentionShape, KV_BLOCK};
use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};
use mlx_rs::{Array, Dtype, ops};

use crate::error::ComputeError;

/// One row of a buffer.
#[derive(Debug)]
pub(crate) struct PlainCache {
    buffer: Rc<RefCell<Buffer>>,
    row: usize,
    /// Columns before this one were written by the session, even if it has gone back since.
    written: usize,
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) keys: Array,
    pub(crate) values: Array,
}

impl Buffer {
    fn rows(&self) -> usize {
        self.keys.dim(0) as usize
    }

    pub(crate) fn capacity(&self) -> usize {
        self.keys.dim(2) as usize
    }

    pub(crate) fn bytes(&self) -> usize {
        self.keys.nbytes() + self.values.nbytes()
    }
}

impl PlainCache {
    /// An empty cache, alone in its buffer.
    pub(crate) fn new(shape: &AttentionShape, dtype: Dtype) -> Result<Self, ComputeError> {
        let zeros = || {
            let zeros = zeros(shape.kv_heads, KV_BLOCK, shape.head_dim, dtype)?;
            zeros.eval()?;
            Ok::<_, ComputeError>(zeros)
        };
        Ok(Self::alone(zeros()?, zeros()?, 0))
    }

    /// A cache of this many positions, alone in its buffer.
    pub(crate) fn alone(keys: Array, values: Array, positions: usize) -> Self {
        Self::seated(&Rc::new(RefCell::new(Buffer { keys, values })), 0, positions)
    }

    /// The row of a buffer as a cache of this many positions.
    pub(super) fn seated(buffer: &Rc<RefCell<Buffer>>, row: usize, positions: usize) -> Self {
        Self { buffer: Rc::clone(buffer), row, written: positions }
    }

    /// Caches of this many positions each in one buffer with this capacity, in order.
    pub(crate) fn stacked(caches: &[(&Self, usize)], capacity: usize) -> Result<Vec<Self>, ComputeError> {
        let stack = |array: &dyn Fn(&Buffer) -> Array| -> Result<Array, ComputeError> {
            let sample = caches.first().map(|(cache, _)| array(&cache.buffer()));
            let sample = sample.ok_or_else(|| ComputeError::Mlx("no caches to put into a buffer".to_owned()))?;
            let shape = [caches.len() as i32, sample.dim(1), capacity as i32, sample.dim(3)];
            let mut stacked = Array::zeros::<f32>(&shape)?.as_dtype(sample.dtype())?;
            for (row, (cache, positions)) in caches.iter().enumerate().filter(|(_, (_, positions))| *positions > 0) {
                let (row, end) = (row as i32, *positions as i32);
                // What is past the positions may be anything, and a longer session's attention reads the whole columns.
                let part = array(&cache.buffer()).index((cache.row_range(), .., ..end, ..));
                stacked.try_index_mut((row..row + 1, .., ..end, ..), &part)?;
            }
            Ok(stacked)
        };
        let (keys, values) = (stack(&|buffer| buffer.keys.clone())?, stack(&|buffer| buffer.values.clone())?);
        let buffer = Rc::new(RefCell::new(Buffer { keys, values }));
        Ok(caches.iter().enumerate().map(|(row, (_, positions))| Self::seated(&buffer, row, *positions)).collect())
    }

    pub(crate) fn buffer(&self) -> Ref<'_, Buffer> {
        self.buffer.borrow()
    }

    /// Identifies the buffer among those that are alive.
    pub(crate) fn buffer_id(&self) -> usize {
        Rc::as_ptr(&self.buffer).addr()
    }

    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// Rows of the buffer, and how many of them are sessions'.
    pub(crate) fn seats(&self) -> (usize, usize) {
        (self.buffer().rows(), Rc::strong_count(&self.buffer))
    }

    /// Whether the positions up to `end` fit into the row. The last column of a shared buffer is no session's.
    pub(crate) fn has_room(&self, end: usize) -> bool {
        let buffer = self.buffer();
        end <= if buffer.rows() > 1 { buffer.capacity() - 1 } else { buffer.capacity() }
    }

    /// Whether nothing lies past `position` but the column after it, which the next token overwrites.
    pub(crate) fn is_clean_from(&self, position: usize) -> bool {
        self.written <= position + 1
    }

    /// Counts the columns before `end` as written: a step of a gang writes all its rows at once.
    pub(crate) fn has_written(&mut self, end: usize) {
        self.written = self.written.max(end);
    }

    /// Moves the session's row into a buffer of its own.
    pub(crate) fn leave(&mut self) -> Result<(), ComputeError> {
        if self.buffer().rows() > 1 {
            let capacity = self.written.div_ceil(KV_BLOCK).max(1) * KV_BLOCK;
            let mut alone = Self::stacked(&[(self, self.written)], capacity)?;
            *self = alone.remove(0);
        }
        Ok(())
    }

    /// The session's keys and values, `[1, kv_heads, capacity, head_dim]`.
    pub(super) fn own_rows(&self) -> Result<[Array; 2], ComputeError> {
        let buffer = self.buffer();
        let row = |array: &Array| array.index((self.row_range(), .., .., ..)).contiguous();
        Ok([row(&buffer.keys)?, row(&buffer.values)?])
    }

    /// The arrays to evaluate so that the buffer is up to date.
    pub(super) fn pending(&self) -> [Array; 2] {
        let buffer = self.buffer();
        [buffer.keys.clone(), buffer.values.clone()]
    }

    /// Writes keys and values `[1, kv_heads, n, head_dim]` at `offset`; returns everything up to their end.
    pub(crate) fn update(
        &mut self,
        keys: &Array,
        values: &Array,
        offset: usize,
    ) -> Result<(Array, Array), ComputeError> {
        let end = offset + keys.dim(2) as usize;
        if !self.has_room(end) {
            self.leave()?;
        }
        self.has_written(end);
        let row = self.row_range();
        let mut buffer = self.buffer.borrow_mut();
        let missing = end.saturating_sub(buffer.capacity()).div_ceil(KV_BLOCK) * KV_BLOCK;
        let write = |buffer: &mut Array, new: &Array| -> Result<Array, ComputeError> {
            if missing > 0 {
                let more = zeros(buffer.dim(1) as usize, missing, buffer.dim(3) as usize, buffer.dtype())?;
                *buffer = ops::concatenate(&[&*buffer, &more], 2)?;
            }
            buffer.try_index_mut((row.clone(), .., offset as i32..end as i32, ..), new)?;
            Ok(buffer.index((row.clone(), .., ..end as i32, ..)))
        };
        let Buffer { keys: all_keys, values: all_values } = &mut *buffer;
        Ok((write(all_keys, keys)?, write(all_values, values)?))
    }

    /// Writes keys and values `[rows, kv_heads, 1, head_dim]`, each row at its own column of `[rows, 1, 1, 1]`.
    pub(crate) fn update_all(&self, keys: &Array, values: &Array, columns: &Array) -> Result<(), ComputeError> {
        let mut buffer = self.buffer.borrow_mut();
        buffer.keys = buffer.keys.put_along_axis(columns, keys, 2)?;
        buffer.values = buffer.values.put_along_axis(columns, values, 2)?;
        Ok(())
    }

    fn row_range(&self) -> std::ops::Range<i32> {
        self.row as i32..self.row as i32 + 1
    }
}

fn zeros(heads: usize, positions: usize, head_dim: usize, dtype: Dtype) -> Result<Array, ComputeError> {
    Ok(Array::zeros::<f32>(&[1, heads as i32, positions as i32, head_dim as i32])?.as_dtype(dtype)?)
}
