//! A batch on its way through the layers, and each session's part of it.

use std::ops::Range;

use mlx_rs::Array;

use crate::adapter::LayerAdapter;
use crate::kv::LayerCache;
use crate::kv::shared::{SharedCaches, SharedStep};

/// One session's part of a batch.
pub(crate) struct Span<'a> {
    /// The rows of its tokens.
    pub(crate) rows: Range<usize>,
    /// The position of its first token: the number of tokens already in the cache.
    pub(crate) offset: usize,
    /// One cache per layer of the stage.
    pub(crate) caches: &'a mut [LayerCache],
}

/// The sessions of a batch that share buffers, one token each, and those beside them.
pub(crate) struct Together<'a> {
    pub(crate) step: SharedStep<'a>,
    /// Which spans they are, in the order of their rows in the buffers.
    pub(crate) members: Vec<usize>,
    /// The same as an array, unless the batch is the members, in order.
    pub(crate) picked: Option<Array>,
    /// Those beside them.
    pub(crate) others: Option<Others>,
    /// Where each span's output is among those of the members and then of the others; `None` if they are in order.
    pub(crate) order: Option<Array>,
}

/// Sessions with a token each and buffers of their own.
pub(crate) struct Others {
    /// Which spans they are.
    pub(crate) picked: Array,
    /// Their positions, `[n]`.
    pub(crate) offsets: Array,
}

impl<'a> Together<'a> {
    /// The members of a batch whose spans have one token each, at these positions.
    pub(crate) fn new(caches: &'a mut SharedCaches, members: Vec<usize>, positions: &[usize]) -> Self {
        let indices = |numbers: &[usize]| {
            let numbers: Vec<i32> = numbers.iter().map(|number| *number as i32).collect();
            Array::from_slice(&numbers, &[numbers.len() as i32])
        };
        let others: Vec<usize> = (0..positions.len()).filter(|span| !members.contains(span)).collect();
        let all: Vec<usize> = members.iter().chain(&others).copied().collect();
        let mut order = vec![0; all.len()];
        for (place, span) in all.iter().enumerate() {
            order[*span] = place;
        }
        let is_in_order = all.iter().copied().eq(0..all.len());
        Self {
            step: caches.step(members.iter().map(|span| positions[*span]).collect()),
            picked: (!is_in_order || !others.is_empty()).then(|| indices(&members)),
            others: (!others.is_empty()).then(|| Others {
                picked: indices(&others),
                offsets: indices(&others.iter().map(|span| positions[*span]).collect::<Vec<_>>()),
            }),
            order: (!is_in_order).then(|| indices(&order)),
            members,
        }
    }
}

/// A batch at one layer.
pub(crate) struct Batch<'a, 'c> {
    pub(crate) spans: &'a mut [Span<'c>],
    /// The positions of several sessions with a token each, for the plain kernels.
    pub(crate) offsets: Option<&'a Array>,
    /// Those of them that share buffers.
    pub(crate) together: Option<&'a mut Together<'c>>,
    /// What is added to the layer; the same for all sessions.
    pub(crate) adapter: Option<&'a LayerAdapter>,
}
