//! Decodes a growing answer to text, and never outputs half a character.
//!
//! A character may span several tokens, and a tokenizer may drop or add a space depending on the preceding text. So
//! each new token is decoded together with the few before it, and the new text is what follows theirs. It is held back
//! while it ends in an incomplete character.

use crate::tokenizer::{Tokenizer, TokenizerError};

/// What decoders write for incomplete bytes.
const INCOMPLETE: char = '\u{FFFD}';

/// Maximum number of tokens held back without a complete character. UTF-8 needs four; a model that emits broken bytes
/// must not hold its answer back for ever.
const MAX_WAITING: usize = 16;

/// The decoder of one answer.
#[derive(Debug, Default)]
pub struct Detokenizer {
    tokens: Vec<u32>,
    /// The start of the window that is decoded again for each token.
    start: usize,
    /// The end of the window's part whose text has been returned.
    read: usize,
}

impl Detokenizer {
    /// A decoder for a new answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token. [`Self::take`] needs the texts of the two returned runs of tokens: the part of the window that has
    /// been returned, and the whole window.
    pub fn window_with(&mut self, token: u32) -> (&[u32], &[u32]) {
        self.tokens.push(token);
        self.window()
    }

    /// The window's tokens whose text has been returned, and all of its tokens.
    pub fn window(&self) -> (&[u32], &[u32]) {
        (&self.tokens[self.start..self.read], &self.tokens[self.start..])
    }

    /// The text that is now certain; may be empty.
    pub fn take(&mut self, given: &str, all: &str) -> String {
        let waiting = self.tokens.len() - self.read;
        if all.ends_with(INCOMPLETE) && waiting < MAX_WAITING {
            return String::new();
        }
        self.take_all(given, all)
    }

    /// The text that is still held back.
    pub fn take_all(&mut self, given: &str, all: &str) -> String {
        let new = all.get(given.len()..).unwrap_or_default().to_owned();
        self.start = self.read;
        self.read = self.tokens.len();
        new
    }

    /// Adds a token; returns the text that is now certain; may be empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, TokenizerError> {
        let (given, all) = self.window_with(token);
        let (given, all) = (tokenizer.decode(given)?, tokenizer.decode(all)?);
        Ok(self.take(&given, &all))
    }

    /// Returns the text that is still held back.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let (given, all) = self.window();
        let (given, all) = (tokenizer.decode(given)?, tokenizer.decode(all)?);
        Ok(self.take_all(&given, &all))
    }
}
