//! A session's part of a batch on its way through the layers.

use std::ops::Range;

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
