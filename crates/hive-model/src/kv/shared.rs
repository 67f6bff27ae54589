//! The keys and values of sessions that decode together, in one buffer per layer.
//!
//! On a GPU, preparing a small operation takes longer than computing it, and sessions with buffers of their own need
//! several operations each in every layer. Here each session has a row, `[rows, kv_heads, capacity, head_dim]`, so a step
//! has as many operations for 32 sessions as for one. Position `p` is in column `p` of the row, as in a buffer alone; a
//! mask hides the columns past the shorter sessions' ends. All numbers in a row are finite, also those behind its session's
//! end: a mask hides numbers, but not NaN.

use std::collections::BTreeMap;

use hive_kernels::KV_BLOCK;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::{LayerCache, PlainCache};
use crate::device::is_gpu;
use crate::error::ComputeError;

/// The buffers of all layers.
#[derive(Debug, Default)]
pub(crate) struct SharedCaches {
    /// Keys and values by layer; `None` for a layer that keeps something else, or nothing.
    layers: Vec<Option<[Array; 2]>>,
    rows: usize,
    capacity: usize,
}

/// Where a row of new buffers comes from.
pub(crate) enum Row<'a> {
    /// A row of the buffers before.
    Kept(usize),
    /// The caches of a session that joins, and its position.
    Joining(&'a mut [LayerCache], usize),
}

/// A step of the sessions with a row, in the order of the rows.
#[derive(Debug)]
pub(crate) struct SharedStep<'a> {
    caches: &'a mut SharedCaches,
    /// The positions of the tokens.
    positions: Vec<usize>,
    /// The same, `[rows]`.
    offsets: Array,
    /// The same as columns, `[rows, 1, 1, 1]`.
    columns: Array,
    /// By window: the first column that is read, and which of those from there on count in each row,
    /// `[rows, 1, 1, columns]`; `None` if all do.
    masks: BTreeMap<Option<usize>, (usize, Option<Array>)>,
}

impl SharedCaches {
    /// Positions that a row has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn bytes(&self) -> usize {
        self.layers.iter().flatten().flatten().map(Array::nbytes).sum()
    }

    /// The arrays to evaluate so that the buffers are up to date.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Array> {
        self.layers.iter().flatten().flatten()
    }

    /// Replaces the buffers by some with these rows and at least this capacity. A session that joins leaves its keys and
    /// values here. One layer after the other, so that no more than a layer is in memory twice.
    pub(crate) fn rebuild(&mut self, mut rows: Vec<Row<'_>>, positions: usize) -> Result<(), ComputeError> {
        let capacity = positions.div_ceil(KV_BLOCK) * KV_BLOCK;
        let kept: Vec<i32> =
            rows.iter().filter_map(|row| if let Row::Kept(row) = row { Some(*row as i32) } else { None }).collect();
        let are_all_kept = kept.iter().copied().eq(0..self.rows as i32);
        let count = rows.iter().map(|row| if let Row::Joining(caches, _) = row { caches.len() } else { 0 }).max();
        self.layers.resize(self.layers.len().max(count.unwrap_or(0)), None);
        // The rows that are kept come first; this is where each row is then.
        let (mut next_kept, mut next_joining) = (0, kept.len() as i32);
        let place = |row: &Row<'_>| {
            let next = if matches!(row, Row::Kept(_)) { &mut next_kept } else { &mut next_joining };
            *next += 1;
            *next - 1
        };
        let places: Vec<i32> = rows.iter().map(place).collect();
        let order = (!places.iter().copied().eq(0..places.len() as i32))
            .then(|| Array::from_slice(&places, &[places.len() as i32]));
        let kept = Array::from_slice(&kept, &[kept.len() as i32]);
        for layer in 0..self.layers.len() {
            let mut parts: [Vec<Array>; 2] = [Vec::new(), Vec::new()];
            if let Some(buffers) = self.layers[layer].take().filter(|_| kept.size() > 0) {
                for (parts, buffer) in parts.iter_mut().zip(buffers) {
                    let buffer = if are_all_kept { buffer } else { buffer.take_axis(&kept, 0)? };
                    parts.push(widened(&buffer, capacity)?);
                }
            }
            for row in &mut rows {
                let Row::Joining(caches, positions) = row else { continue };
                let cache = match &caches[layer] {
                    LayerCache::Plain(cache) => cache,
                    LayerCache::Shared => return Err(ComputeError::Mlx("a row of buffers that are gone".to_owned())),
                    _ => continue,
                };
                let (keys, values) = cache.up_to(*positions);
                for (parts, own) in parts.iter_mut().zip([keys, values]) {
                    parts.push(widened(&own, capacity)?);
                }
                caches[layer] = LayerCache::Shared;
            }
            let [keys, values] = &parts;
            if keys.is_empty() {
                continue;
            }
            let joined = |parts: &[Array]| -> Result<Array, ComputeError> {
                let all = if let [one] = parts { one.clone() } else { ops::concatenate(parts, 0)? };
                Ok(match &order {
                    Some(order) => all.take_axis(order, 0)?,
                    None => all,
                })
            };
            let buffers = [joined(keys)?, joined(values)?];
            drop(parts);
            mlx_rs::transforms::eval(&buffers)?;
            self.layers[layer] = Some(buffers);
        }
        (self.rows, self.capacity) = (rows.len(), capacity);
        Ok(())
    }

    /// A cache of its own with the first positions of a row; `None` for a layer without keys and values.
    pub(crate) fn copied(
        &self,
        layer: usize,
        row: usize,
        positions: usize,
    ) -> Result<Option<LayerCache>, ComputeError> {
        let Some(buffers) = self.layers.get(layer).and_then(Option::as_ref) else { return Ok(None) };
        let capacity = (positions.div_ceil(KV_BLOCK).max(1) * KV_BLOCK).min(self.capacity);
        let row = row as i32..row as i32 + 1;
        let copy = |buffer: &Array| buffer.index((row.clone(), .., ..capacity as i32, ..)).contiguous();
        Ok(Some(LayerCache::Plain(PlainCache { keys: copy(&buffers[0])?, values: copy(&buffers[1])? })))
    }

    /// Takes rows out of a layer's buffers, as caches of their own with these numbers of positions; only the rows that
    /// stay are left. `None` for a layer without keys and values.
    pub(crate) fn part(
        &mut self,
        layer: usize,
        leaving: &[(usize, usize)],
        staying: &[usize],
    ) -> Result<Option<Vec<LayerCache>>, ComputeError> {
        let copied = leaving.iter().map(|(row, positions)| self.copied(layer, *row, *positions));
        let copied: Option<Vec<LayerCache>> = copied.collect::<Result<_, _>>()?;
        mlx_rs::transforms::eval(copied.iter().flatten().flat_map(LayerCache::pending))?;
        let Some(buffers) = self.layers[layer].take().filter(|_| !staying.is_empty()) else { return Ok(copied) };
        let rows: Vec<i32> = staying.iter().map(|row| *row as i32).collect();
        let rows = Array::from_slice(&rows, &[rows.len() as i32]);
        let kept = [buffers[0].take_axis(&rows, 0)?, buffers[1].take_axis(&rows, 0)?];
        mlx_rs::transforms::eval(&kept)?;
        self.layers[layer] = Some(kept);
        Ok(copied)
    }

    /// The number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Sets the number of rows, after [`Self::part`] of every layer.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// A step at these positions, one for each row.
    pub(crate) fn step(&mut self, positions: Vec<usize>) -> SharedStep<'_> {
        let numbers: Vec<i32> = positions.iter().map(|position| *position as i32).collect();
        let rows = numbers.len() as i32;
        SharedStep {
            offsets: Array::from_slice(&numbers, &[rows]),
            columns: Array::from_slice(&numbers, &[rows, 1, 1, 1]),
            masks: BTreeMap::new(),
            positions,
            caches: self,
        }
    }
}

impl SharedStep<'_> {
    pub(crate) fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// The positions, `[rows]`.
    pub(crate) fn offsets(&self) -> &Array {
        &self.offsets
    }

    /// Writes keys and values `[rows, kv_heads, 1, head_dim]`, each row at its position.
    pub(crate) fn write(&mut self, layer: usize, keys: &Array, values: &Array) -> Result<(), ComputeError> {
        for (buffer, new) in self.caches.layers[layer].iter_mut().flatten().zip([keys, values]) {
            *buffer = buffer.put_along_axis(&self.columns, new, 2)?;
        }
        Ok(())
    }

    /// Keys and values `[rows, kv_heads, columns, head_dim]` that the tokens attend to, and a mask of those that count.
    pub(crate) fn read(
        &mut self,
        layer: usize,
        window: Option<usize>,
    ) -> Result<([Array; 2], Option<Array>), ComputeError> {
        let Some([keys, values]) = &self.caches.layers[layer] else {
            return Err(ComputeError::Mlx("a layer without keys and values".to_owned()));
        };
        let end = self.positions.iter().max().map_or(0, |position| position + 1);
        let window = window.filter(|window| *window < end);
        let (start, mask) = if let Some(known) = self.masks.get(&window) {
            known.clone()
        } else {
            let made = mask(&self.positions, window)?;
            self.masks.insert(window, made.clone());
            made
        };
        let of = |buffer: &Array| -> Result<Array, ComputeError> {
            let read = buffer.index((.., .., start as i32..end as i32, ..));
            // For one token, CUDA's attention takes what begins within a larger array to begin with it.
            if start > 0 && is_gpu() { Ok(read.contiguous()?) } else { Ok(read) }
        };
        Ok(([of(keys)?, of(values)?], mask))
    }
}

/// The first column that tokens at these positions attend to, and which of those up to the last one count for each.
fn mask(positions: &[usize], window: Option<usize>) -> Result<(usize, Option<Array>), ComputeError> {
    let (least, most) = (positions.iter().min().copied().unwrap_or(0), positions.iter().max().copied().unwrap_or(0));
    let first = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
    let start = first(least);
    if least == most {
        return Ok((start, None));
    }
    let rows = [positions.len() as i32, 1, 1, 1];
    let column = |numbers: Vec<i32>| Array::from_slice(&numbers, &rows);
    let columns = Array::arange::<i32, i32>(start as i32, most as i32 + 1, None)?;
    let mut counts = columns.le(column(positions.iter().map(|position| *position as i32).collect()))?;
    if window.is_some() {
        let firsts = column(positions.iter().map(|position| first(*position) as i32).collect());
        counts = counts.logical_and(columns.ge(firsts)?)?;
    }
    Ok((start, Some(counts)))
}

/// With zeros behind its columns, or without what is past `capacity`.
fn widened(buffer: &Array, capacity: usize) -> Result<Array, ComputeError> {
    let [rows, heads, columns, width] = [0, 1, 2, 3].map(|axis| buffer.dim(axis));
    let missing = capacity as i32 - columns;
    if missing <= 0 {
        return Ok(if missing == 0 { buffer.clone() } else { buffer.index((.., .., ..capacity as i32, ..)) });
    }
    let zeros = ops::zeros_dtype(&[rows, heads, missing, width], buffer.dtype())?;
    Ok(if columns == 0 { zeros } else { ops::concatenate(&[buffer, &zeros], 2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(positions: &[usize], window: Option<usize>) -> (usize, Option<Vec<Vec<bool>>>) {
        let (start, mask) = mask(positions, window).unwrap();
        let rows = |mask: Array| {
            mask.eval().unwrap();
            mask.as_slice::<bool>().chunks(mask.dim(3) as usize).map(<[bool]>::to_vec).collect()
        };
        (start, mask.map(rows))
    }

    #[test]
    fn each_row_attends_to_its_own_positions() {
        assert_eq!(counted(&[5, 5], None), (0, None));
        let (no, yes) = (false, true);
        assert_eq!(counted(&[1, 3], None), (0, Some(vec![vec![yes, yes, no, no], vec![yes; 4]])));
    }

    #[test]
    fn each_row_attends_to_its_own_window() {
        let (no, yes) = (false, true);
        assert_eq!(counted(&[9, 9], Some(4)), (6, None));
        assert_eq!(counted(&[1, 3], Some(3)), (0, Some(vec![vec![yes, yes, no, no], vec![no, yes, yes, yes]])));
        assert_eq!(counted(&[5, 6], Some(2)), (4, Some(vec![vec![yes, yes, no], vec![no, yes, yes]])));
    }
}
