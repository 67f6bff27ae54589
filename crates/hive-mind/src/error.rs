//! Why something could not be done to a conversation.

use crate::store::StoreError;

/// Why something could not be done to a conversation.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// It cannot be stored or read, or does not exist.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An answer is in progress in this conversation.
    #[error("an answer is in progress in this conversation; stop it first")]
    Answering,
    /// There is nothing to answer.
    #[error("there is no question to answer")]
    NoQuestion,
    /// The answer is complete.
    #[error("this answer is complete; there is nothing to continue")]
    NothingToContinue,
    /// The node is stopping.
    #[error("HiveMind is stopping")]
    Stopping,
}
