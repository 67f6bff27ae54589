//! Which sessions of a batch go through attention together, and the indices for it.
//!
//! On MLX's kernels every operation costs time to build and to launch, whatever its size. So the sessions that decode,
//! with one token each, share one buffer per layer, and rotation, write and attention are a fixed number of operations
//! for all of them. Each session keeps its own row and its own columns, from 0 on: a mask hides what is past the
//! shorter ones' ends. A row's numbers are thus in the same places as alone, and no other row matters to it.
//!
//! A gang is formed when a batch first comes, by copying its members into one buffer. It serves every later batch of
//! members, all of them or some, in any order. Members that decode with somebody outside form a new gang. Those that
//! stay behind keep their places until at most half of the rows are taken; then [`release`] gives them buffers of their
//! own. A member that does something else works in its row as long as there is room.
//!
//! Nothing here waits for the device: lengths are numbers on the host.

use std::collections::BTreeMap;

use hive_kernels::KV_BLOCK;
use mlx_rs::Array;

use crate::error::ComputeError;
use crate::kv::{LayerCache, PlainCache};
use crate::span::Span;

/// Reading a row costs as much for a session that waits as for a member; copying a member's row first costs as much as
/// reading this many.
const ROWS_PER_PICKED: usize = 3;

/// How a batch goes through attention.
pub(crate) struct Gangs {
    pub(crate) parts: Vec<Part>,
    /// The row of the parts' outputs, one after another, for each row of the batch; `None` if they are in order.
    pub(crate) order: Option<Array>,
}

/// What goes through attention together.
pub(crate) enum Part {
    /// This span.
    Alone(usize),
    /// Spans of one row each.
    Gang(Gang),
}

/// The indices for a step of a gang. A member's number is its place among the gang's spans.
pub(crate) struct Gang {
    /// The span of a member, whose caches lead to the buffers.
    pub(crate) span: usize,
    /// The members' rows in the batch; `None` if the batch is the gang.
    pub(crate) batch_rows: Option<Array>,
    /// The positions of the members' tokens, `[members]`.
    pub(crate) offsets: Array,
    /// The column of each row of the buffer that is written, `[rows, 1, 1, 1]`: the last one if nobody reads the row.
    pub(crate) columns: Array,
    /// The number of columns that attention reads.
    pub(crate) length: i32,
    /// Those that count, `[rows, 1, 1, length]`; `None` if all do.
    pub(crate) mask: Option<Array>,
    /// `None` if the rows of the buffer are the members, in order.
    pub(crate) seats: Option<Seats>,
}

/// Where the members are in a buffer that has other rows, too, or another order.
pub(crate) struct Seats {
    /// The member for each row of the buffer; any for a row of another session.
    pub(crate) members: Array,
    /// The row of each member.
    pub(crate) rows: Array,
    /// Whether attention reads copies of the members' rows instead of all rows.
    pub(crate) are_picked: bool,
}

impl Gangs {
    /// Every span alone.
    pub(crate) fn none(spans: &[Span]) -> Self {
        Self { parts: (0..spans.len()).map(Part::Alone).collect(), order: None }
    }

    /// Gangs of the spans with one row, whose caches may move into shared buffers; the others alone.
    pub(crate) fn form(spans: &mut [Span]) -> Result<Self, ComputeError> {
        let (single, several): (Vec<usize>, Vec<usize>) =
            (0..spans.len()).partition(|&span| spans[span].rows.len() == 1);
        let positions: Vec<usize> = single.iter().map(|&span| spans[span].offset).collect();
        let gangs = groups(&positions).into_iter().map(|group| group.into_iter().map(|n| single[n]).collect());
        let groups: Vec<Vec<usize>> = several.into_iter().map(|span| vec![span]).chain(gangs).collect();
        let mut parts = Vec::with_capacity(groups.len());
        for group in &groups {
            parts.push(match **group {
                [span] => Part::Alone(span),
                _ => Part::Gang(Gang::form(group, spans)?),
            });
        }
        let rows: Vec<usize> = groups.iter().flatten().flat_map(|&span| spans[span].rows.clone()).collect();
        Ok(Self { parts, order: inverse(&rows) })
    }
}

impl Gang {
    fn form(members: &[usize], spans: &mut [Span]) -> Result<Self, ComputeError> {
        if !have_one_buffer(members, spans) {
            move_into_one_buffer(members, spans)?;
        }
        for &member in members {
            let end = spans[member].offset + 1;
            plain(spans[member].caches).for_each(|cache| cache.has_written(end));
        }
        let rows: Vec<usize> = members.iter().filter_map(|&m| Some(first(&spans[m])?.row())).collect();
        let offsets: Vec<i32> = members.iter().map(|&member| spans[member].offset as i32).collect();
        let batch: Vec<usize> = members.iter().map(|&member| spans[member].rows.start).collect();
        let all: usize = spans.iter().map(|span| span.rows.len()).sum();
        let (count, capacity) = members
            .first()
            .and_then(|&member| first(&spans[member]))
            .map_or((0, 0), |cache| (cache.seats().0, cache.buffer().capacity()));
        let length = offsets.iter().max().map_or(0, |offset| offset + 1);

        let (mut member_of, mut columns) = (vec![0; count], vec![capacity as i32 - 1; count]);
        for (member, (&row, &offset)) in rows.iter().zip(&offsets).enumerate() {
            (member_of[row], columns[row]) = (member as i32, offset);
        }
        let is_in_order = rows.iter().copied().eq(0..count);
        let are_picked = rows.len() * ROWS_PER_PICKED < count;
        let last = if are_picked { &offsets } else { &columns };
        let mask = if offsets.iter().all(|offset| offset + 1 == length) { None } else { Some(mask(last, length)?) };
        Ok(Self {
            span: members.first().copied().unwrap_or_default(),
            batch_rows: (!batch.iter().copied().eq(0..all)).then(|| indices(&batch)),
            offsets: Array::from_slice(&offsets, &[offsets.len() as i32]),
            columns: Array::from_slice(&columns, &[count as i32, 1, 1, 1]),
            length,
            mask,
            seats: (!is_in_order).then(|| Seats {
                members: Array::from_slice(&member_of, &[count as i32]),
                rows: indices(&rows),
                are_picked,
            }),
        })
    }
}

/// Gives the sessions in buffers of which they take at most half a buffer each, so that those that left or ended do not
/// hold memory through those that stayed.
pub(crate) fn release<'a>(sessions: impl Iterator<Item = &'a mut Vec<LayerCache>>) -> Result<(), ComputeError> {
    let mut moved = Vec::new();
    for caches in sessions {
        let Some(LayerCache::Plain(cache)) = caches.first() else { continue };
        let (rows, taken) = cache.seats();
        if rows == 1 || taken * 2 > rows {
            continue;
        }
        for cache in plain(caches) {
            cache.leave()?;
        }
        moved.extend(caches.iter().flat_map(LayerCache::pending));
    }
    Ok(mlx_rs::transforms::async_eval(&moved)?)
}

/// Sorts the sessions of a batch, by their positions, into those that may share a buffer: all of them, unless more than
/// half of it would be padding; then those of like length.
fn groups(positions: &[usize]) -> Vec<Vec<usize>> {
    let blocks: Vec<usize> = positions.iter().map(|&position| blocks(position)).collect();
    let largest = blocks.iter().max().copied().unwrap_or_default();
    let is_even = blocks.len() * largest <= 2 * blocks.iter().sum::<usize>();
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (session, blocks) in blocks.iter().enumerate() {
        groups.entry(if is_even { 0 } else { blocks.next_power_of_two() }).or_default().push(session);
    }
    groups.into_values().collect()
}

/// Blocks for a token at this position and a spare column.
fn blocks(position: usize) -> usize {
    (position + 2).div_ceil(KV_BLOCK)
}

fn plain(caches: &mut [LayerCache]) -> impl Iterator<Item = &mut PlainCache> {
    caches.iter_mut().filter_map(|cache| match cache {
        LayerCache::Plain(cache) => Some(cache),
        LayerCache::Fast(_) => None,
    })
}

fn first<'a>(span: &'a Span) -> Option<&'a PlainCache> {
    span.caches.first()?.as_plain()
}

/// Whether the members are in one buffer per layer already, with room for the next token.
fn have_one_buffer(members: &[usize], spans: &[Span]) -> bool {
    let Some(leader) = members.first().map(|&member| &spans[member]) else { return false };
    members.iter().map(|&member| &spans[member]).all(|span| {
        span.caches.iter().zip(leader.caches.iter()).all(|(cache, other)| match (cache, other) {
            (LayerCache::Plain(cache), LayerCache::Plain(other)) => {
                cache.seats().0 > 1
                    && cache.buffer_id() == other.buffer_id()
                    && cache.has_room(span.offset + 1)
                    && cache.is_clean_from(span.offset)
            }
            _ => false,
        })
    })
}

fn move_into_one_buffer(members: &[usize], spans: &mut [Span]) -> Result<(), ComputeError> {
    let capacity = members.iter().map(|&member| blocks(spans[member].offset)).max().unwrap_or_default() * KV_BLOCK;
    let layers = members.first().map_or(0, |&member| spans[member].caches.len());
    for layer in 0..layers {
        let caches: Vec<(&PlainCache, usize)> = members
            .iter()
            .filter_map(|&member| Some((spans[member].caches[layer].as_plain()?, spans[member].offset)))
            .collect();
        for (cache, &member) in PlainCache::stacked(&caches, capacity)?.into_iter().zip(members) {
            spans[member].caches[layer] = LayerCache::Plain(cache);
        }
    }
    Ok(())
}

/// Which of the first columns count, if each row's last one is this.
fn mask(last: &[i32], length: i32) -> Result<Array, ComputeError> {
    let last = Array::from_slice(last, &[last.len() as i32, 1, 1, 1]);
    Ok(Array::arange::<i32, i32>(None, length, None)?.le(&last)?)
}

fn indices(rows: &[usize]) -> Array {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Array::from_slice(&rows, &[rows.len() as i32])
}

/// Where each row is in a list of all rows; `None` if the list is in order.
fn inverse(rows: &[usize]) -> Option<Array> {
    if rows.iter().copied().eq(0..rows.len()) {
        return None;
    }
    let mut places = vec![0; rows.len()];
    for (place, &row) in rows.iter().enumerate() {
        places[row] = place;
    }
    Some(indices(&places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_half_of_a_buffer_is_padding() {
        assert!(groups(&[]).is_empty());
        assert_eq!(groups(&[3000]), [[0]]);
        assert_eq!(groups(&[10, 254, 255, 40]), [[0, 1, 2, 3]]);
        // A block and its double: half at most.
        assert_eq!(groups(&[1500, 700, 600]), [[0, 1, 2]]);
        // Blocks 1, 12, 2, 1, 9: those of like length.
        assert_eq!(groups(&[5, 3000, 300, 90, 2200]), [vec![0, 3], vec![2], vec![1, 4]]);
        for lengths in [[1, 1, 1, 8000, 1, 1], [100, 5000, 9000, 200, 700, 80]] {
            for group in groups(&lengths) {
                let blocks: Vec<usize> = group.iter().map(|&session| blocks(lengths[session])).collect();
                let buffer = blocks.len() * blocks.iter().max().unwrap();
                assert!(buffer <= 2 * blocks.iter().sum::<usize>(), "{lengths:?}");
            }
        }
    }

    #[test]
    fn a_row_is_rotated_to_its_own_position_with_the_bits_of_a_rotation_alone() {
        let (rows, heads, head_dim) = (4, 3, 16);
        let numbers: Vec<f32> = (0..rows * heads * head_dim).map(|n| (n * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let x = Array::from_slice(&numbers, &[rows, heads, 1, head_dim]);
        let offsets = [0, 7, 4095, 300];
        let periods = Array::from_slice(&(0..8).map(|n| 1.5 + n as f32).collect::<Vec<f32>>(), &[8]);
        for dtype in [mlx_rs::Dtype::Float32, mlx_rs::Dtype::Float16, mlx_rs::Dtype::Bfloat16] {
            let x = x.as_dtype(dtype).unwrap();
            for (base, periods) in [(Some(10_000.0), None), (None, Some(&periods))] {
                let all = Array::from_slice(&offsets, &[rows]);
                let all = mlx_rs::fast::rope_dynamic(&x, head_dim, false, base, 0.5, &all, periods).unwrap();
                for (row, offset) in (0..rows).zip(offsets) {
                    let at = Array::from_slice(&[row], &[1]);
                    let alone = x.take_axis(&at, 0).unwrap();
                    let alone = mlx_rs::fast::rope(&alone, head_dim, false, base, 0.5, offset, periods).unwrap();
                    let bits = |array: &Array| hive_kernels::array_bytes(array).unwrap();
                    assert_eq!(bits(&all.take_axis(&at, 0).unwrap()), bits(&alone), "{dtype:?} at {offset}");
                }
            }
        }
    }
}
