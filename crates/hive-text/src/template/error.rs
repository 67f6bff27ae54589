//! Why a conversation cannot be turned into a prompt.

use super::values::MAX_DEPTH;
use crate::tokenizer::TokenizerError;

/// Why a conversation cannot be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has none.
    #[error("the model has no chat template; it was not made for conversations")]
    Missing,
    /// It is not a valid template.
    #[error("the model's chat template does not parse: {0}")]
    Parse(String),
    /// It refused the conversation, by its own words.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// It did not end.
    #[error("the model's chat template did not finish: it loops too long")]
    TooLong,
    /// It wrote more than any model reads.
    #[error("the model's chat template writes without end")]
    TooMuch,
    /// The conversation is not what any template takes.
    #[error("the conversation's tools or calls nest more than {MAX_DEPTH} deep")]
    TooDeep,
    /// It failed.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
    /// The result could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
