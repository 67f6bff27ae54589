//! Reads and writes text: tokenizers, chat templates, detokenizer, stop texts.
//!
//! A [`template::ChatTemplate`] makes a prompt of a conversation, a [`Tokenizer`] makes tokens of it, a
//! [`detokenizer::Detokenizer`] makes text of the answer's tokens, and [`stop::StopStrings`] says where that text ends;
//! [`ends`] says which tokens end it. Nothing here computes, and nothing here knows weights: what a GGUF says of its
//! text comes as [`Metadata`] from whoever opened it.
//!
//! What holds:
//! - Templates and tokenizers come from strangers. What they may take is limited before other people's code reads them,
//!   and a panic of that code is an error.
//! - Prompts are what models were trained on: templates render as in Hugging Face's `transformers`, tokens are those of
//!   its `tokenizers`.
//! - What a person or a tool wrote is text, even where it looks like a special token.
//! - Text of an answer never holds half a character.

pub mod detokenizer;
pub mod ends;
pub mod metadata;
pub mod regular;
pub mod stop;
pub mod template;
pub mod tokenizer;

mod deep;

pub use metadata::Metadata;
pub use tokenizer::Tokenizer;
