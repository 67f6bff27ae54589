//! Text processing: tokenizers, chat templates, detokenizer, stop texts.
//!
//! A [`template::ChatTemplate`] renders a conversation to a prompt, a [`Tokenizer`] encodes it, a
//! [`detokenizer::Detokenizer`] decodes the answer's tokens, and [`stop::StopStrings`] finds where that text ends;
//! [`ends`] finds the tokens that end it. [`reasoning`] splits thinking off the answer, and [`tool_calls`] reads the
//! calls in it. This crate does not compute models and does not know weights: the caller that opened a GGUF passes its
//! metadata
//! as [`Metadata`].
//!
//! Invariants:
//! - Templates and tokenizers are untrusted. Their costs are limited before third-party code reads them, and a panic of
//!   that code is an error.
//! - Prompts are what models were trained on: templates render as in Hugging Face's `transformers`, and tokens are
//!   those of its `tokenizers`.
//! - Text of a person or a tool stays text, even if it looks like a special token.
//! - Text of an answer never contains half a character.

pub mod detokenizer;
pub mod ends;
pub mod json;
pub mod metadata;
pub mod reasoning;
pub mod regular;
pub mod split;
pub mod stop;
pub mod template;
pub mod tokenizer;
pub mod tool_calls;

mod deep;

pub use metadata::Metadata;
pub use tokenizer::Tokenizer;
