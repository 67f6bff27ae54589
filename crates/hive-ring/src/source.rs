//! Where an answer gets its model after its ring was abandoned or has migrated.

use std::pin::Pin;
use std::time::Duration;

use crate::ring::Ring;

/// Why the model could not be loaded again, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// The future that a source returns.
pub type Loading<'a> = Pin<Box<dyn Future<Output = Result<Ring, SourceError>> + Send + 'a>>;

/// The caller that had the model loaded for an answer.
pub trait Source: Send + Sync {
    /// The ring of the model on the machines that are present; loads the model if necessary.
    fn ring(&self) -> Loading<'_>;

    /// Called after an answer that had its ring to itself, with the number of tokens after the first and the time they
    /// took.
    fn finished(&self, ring: Ring, tokens: usize, time: Duration);
}
