//! Why a conversation cannot be turned into a prompt.

use super::values::MAX_DEPTH;
use crate::tokenizer::TokenizerError;

/// Why a conversation cannot be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has no template.
    #[error("the model has no chat template; it was not made for conversations")]
    Missing,
    /// The template is invalid.
    #[error("the model's chat template does not parse: {0}")]
    Parse(String),
    /// The template refused the conversation, with this message.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template did not finish.
    #[error("the model's chat template did not finish: it loops too long")]
    TooLong,
    /// The output is longer than any model reads.
    #[error("the model's chat template writes without end")]
    TooMuch,
    /// The conversation is nested too deeply.
    #[error("the conversation's tools or calls nest more than {MAX_DEPTH} deep")]
    TooDeep,
    /// The template failed.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
    /// The output could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
