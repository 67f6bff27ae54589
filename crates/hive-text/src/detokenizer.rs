//! Text of a growing answer, never half a character.
//!
//! A character may be spread over several tokens, and a tokenizer may drop or add a space depending on what stands
//! before. So each new token is decoded together with the few before it, and what is new is what comes after the text
//! of those few; it is held back while it ends in an incomplete character.

use crate::tokenizer::{Tokenizer, TokenizerError};

/// What decoders write in place of incomplete bytes.
const INCOMPLETE: char = '\u{FFFD}';

/// Longest run of tokens without a complete character that is still waited for. UTF-8 needs four; a model that emits
/// broken bytes must not hold its answer back for ever.
const MAX_WAITING: usize = 16;

/// The decoder of one answer.
#[derive(Debug, Default)]
pub struct Detokenizer {
    tokens: Vec<u32>,
    /// Where the window begins that is decoded anew each time.
    start: usize,
    /// Up to where the window's text has been given out.
    read: usize,
}

impl Detokenizer {
    /// A decoder for an answer that begins now.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a token. The texts of the two runs of tokens are what [`Self::take`] wants: what has been given out of the
    /// window, and all of it.
    pub fn window_with(&mut self, token: u32) -> (&[u32], &[u32]) {
        self.tokens.push(token);
        self.window()
    }

    /// The window's tokens whose text has been given out, and all of them.
    pub fn window(&self) -> (&[u32], &[u32]) {
        (&self.tokens[self.start..self.read], &self.tokens[self.start..])
    }

    /// The text that has become certain, which may be empty.
    pub fn take(&mut self, given: &str, all: &str) -> String {
        let waiting = self.tokens.len() - self.read;
        if all.ends_with(INCOMPLETE) && waiting < MAX_WAITING {
            return String::new();
        }
        self.take_all(given, all)
    }

    /// Whatever is still held back.
    pub fn take_all(&mut self, given: &str, all: &str) -> String {
        let new = all.get(given.len()..).unwrap_or_default().to_owned();
        self.start = self.read;
        self.read = self.tokens.len();
        new
    }

    /// Takes a token; gives the text that has become certain.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, TokenizerError> {
        let (given, all) = self.window_with(token);
        let (given, all) = (tokenizer.decode(given)?, tokenizer.decode(all)?);
        Ok(self.take(&given, &all))
    }

    /// Gives whatever is still held back.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let (given, all) = self.window();
        let (given, all) = (tokenizer.decode(given)?, tokenizer.decode(all)?);
        Ok(self.take_all(&given, &all))
    }
}
