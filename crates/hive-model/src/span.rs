//! A batch on its way through the layers, and each session's part of it.

use std::ops::Range;

use mlx_rs::Array;

use crate::adapter::LayerAdapter;
use crate::kv::LayerCache;

/// One session's part of a batch.
pub(crate) struct Span<'a> {
    /// The rows of its tokens.
    pub(crate) rows: Range<usize>,
    /// The position of its first token: the number of tokens already in the cache.
    pub(crate) offset: usize,
    /// One cache per layer of the stage.
    pub(crate) caches: &'a mut [LayerCache],
}

/// A batch at one layer.
pub(crate) struct Batch<'a, 'c> {
    pub(crate) spans: &'a mut [Span<'c>],
    /// The positions of several sessions with a token each, for the plain kernels.
    pub(crate) offsets: Option<&'a Array>,
    /// What is added to the layer; the same for all sessions.
    pub(crate) adapter: Option<&'a LayerAdapter>,
}
