//! Where an answer gets its model from again, when the stages it had are lost for good.

use std::pin::Pin;
use std::time::Duration;

use crate::ring::Ring;

/// Why there is no model again, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// A future of a source.
pub type Loading<'a> = Pin<Box<dyn Future<Output = Result<Ring, SourceError>> + Send + 'a>>;

/// Whoever had the model loaded that an answer comes from.
pub trait Source: Send + Sync {
    /// The model on the machines that are there, loaded again where it is not.
    fn ring(&self) -> Loading<'_>;

    /// Hears of an answer that had its stages to itself: so many tokens after the first, in so much time.
    fn finished(&self, ring: Ring, tokens: usize, time: Duration);
}
