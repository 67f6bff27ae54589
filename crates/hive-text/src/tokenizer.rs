//! Encodes and decodes text with Hugging Face's `tokenizers`.
//!
//! A GGUF has a vocabulary and merges but no `tokenizer.json`. One is generated from its metadata, so that both kinds
//! of model use the same code.
//!
//! Tokenizer files are untrusted, and the library was written for trusted ones. So sizes are limited before it reads a
//! file (`limits`), and its panics are errors.

mod cuts;
mod from_gguf;
mod limits;
mod markers;
pub mod special;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

use crate::deep::{on_deep_stack, quietly};
use crate::json::without_mark;
use crate::reasoning::is_mark;
use crate::{Metadata, regular};
pub(crate) use limits::{MAX_FILE_BYTES, check};
pub(crate) use markers::is_marker;
use special::SpecialTokens;

/// A loaded tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, but text that looks like a special token stays text.
    literal: tokenizers::Tokenizer,
    /// The same for text that does not begin a prompt, if that makes a difference.
    inside: Option<tokenizers::Tokenizer>,
    special: SpecialTokens,
    /// Special tokens that absorb the blanks before or after them.
    greedy: BTreeMap<u32, Greedy>,
    /// The tokens at the beginning of every prompt.
    leading: Option<u32>,
}

/// Whether a special token absorbs the blanks before it, and those after it.
#[derive(Debug, Clone, Copy)]
struct Greedy {
    left: bool,
    right: bool,
}

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read or parsed.
    #[error("cannot load {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// The library's message.
        why: String,
    },
    /// A GGUF without a vocabulary, or with one of an unknown kind.
    #[error("the file's tokenizer cannot be used: {0}")]
    Gguf(String),
    /// The text cannot be encoded, or the tokens cannot be decoded.
    #[error("the tokenizer failed: {0}")]
    Failed(String),
}

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let refuse = |why: String| TokenizerError::File { path: path.to_owned(), why };
        let bytes = regular::read(path, limits::MAX_FILE_BYTES).map_err(|error| refuse(error.to_string()))?;
        if regular::is_lfs_pointer(path) {
            return Err(refuse(regular::IS_LFS_POINTER.to_owned()));
        }
        Self::from_json(without_mark(&bytes)).map_err(refuse)
    }

    /// Builds the tokenizer described by a GGUF's metadata.
    pub fn from_gguf(gguf: &dyn Metadata) -> Result<Self, TokenizerError> {
        let json = from_gguf::tokenizer_json(gguf).map_err(TokenizerError::Gguf)?;
        let tokenizer = Self::from_json(json.to_string().as_bytes()).map_err(TokenizerError::Gguf)?;
        Ok(Self { leading: from_gguf::leading(gguf), ..tokenizer })
    }

    /// Builds a tokenizer from the bytes of a `tokenizer.json`. The error describes the fault.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        on_deep_stack(|| {
            limits::check(json)?;
            Self::from_checked_json(json)
        })
        .unwrap_or_else(|_| Err("tokenizer.json is damaged".to_owned()))
    }

    fn from_checked_json(json: &[u8]) -> Result<Self, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        // Some files contain the padding and truncation of their training.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        // Some files do not flag chat markers as special; typed text could then be encoded as one.
        let markers = inner.get_added_tokens_decoder().into_values();
        let markers = markers.filter(|token| !token.special && is_marker(&token.content));
        let markers: Vec<_> = markers.map(|token| tokenizers::AddedToken { special: true, ..token }).collect();
        inner.add_special_tokens(&markers);
        let mut literal = inner.clone();
        literal.set_encode_special_tokens(true);
        let inside = without_beginning(&literal);
        let (mut special, mut greedy) = (Vec::new(), BTreeMap::new());
        for (id, token) in inner.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special) {
            if token.lstrip || token.rstrip {
                greedy.insert(id, Greedy { left: token.lstrip, right: token.rstrip });
            }
            special.push((token.content, id));
        }
        Ok(Self { special: SpecialTokens::new(special)?, greedy, inner, literal, inside, leading: None })
    }

    /// Encodes text whose special tokens count as such.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode(&self.inner, text)
    }

    /// Encodes text as plain text, without special tokens.
    pub fn encode_literal(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_by(&self.literal, text)
    }

    /// Encodes part of a prompt as plain text, between two special tokens. `None` is the beginning or the end of the
    /// prompt.
    pub(crate) fn encode_between(
        &self,
        before: Option<u32>,
        text: &str,
        after: Option<u32>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let greedy = |id: Option<u32>| id.and_then(|id| self.greedy.get(&id));
        let text = if greedy(before).is_some_and(|token| token.right) { text.trim_start() } else { text };
        let text = if greedy(after).is_some_and(|token| token.left) { text.trim_end() } else { text };
        let inside = self.inside.as_ref().filter(|_| before.is_some());
        if text.is_empty() { Ok(Vec::new()) } else { self.encode_by(inside.unwrap_or(&self.literal), text) }
    }

    fn encode_by(&self, tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = library(|| tokenizer.encode(text, false))?;
        let mut tokens = Vec::with_capacity(encoding.len());
        for (&id, &(from, to)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let typed = text.get(from..to).unwrap_or_default();
            match typed.char_indices().nth(1) {
                // Some vocabularies have their special tokens among the pieces of ordinary text. Split in two, it is
                // none.
                Some((at, _)) if self.is_marker(id) => {
                    let inside = self.inside.as_ref().unwrap_or(tokenizer);
                    tokens.extend(self.encode_by(if from == 0 { tokenizer } else { inside }, &typed[..at])?);
                    tokens.extend(self.encode_by(inside, &typed[at..])?);
                }
                _ => tokens.push(id),
            }
        }
        Ok(tokens)
    }

    /// Whether a token would mark a place in a prompt. The token for unknown text marks nothing.
    fn is_marker(&self, id: u32) -> bool {
        self.special.text(id).is_some_and(|text| !["<unk>", "[UNK]", "<|unk|>"].contains(&text))
    }

    /// Decodes tokens to text, without special tokens but those that mark thinking: without them, nobody could tell it
    /// from the answer.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        let mark = |token: &u32| self.special.text(*token).filter(|text| is_mark(text));
        let mut text = String::new();
        for run in tokens.split_inclusive(|token| mark(token).is_some()) {
            let mark = run.last().and_then(mark);
            let words = &run[..run.len() - usize::from(mark.is_some())];
            text += &library(|| self.inner.decode(words, true))?;
            text += mark.unwrap_or_default();
        }
        Ok(text)
    }

    /// Special tokens with their ids.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The token at the beginning of every prompt, even if the chat template does not write it. Only GGUF files specify
    /// it.
    pub fn leading(&self) -> Option<u32> {
        self.leading
    }

    /// Whether a text is one token, special or not.
    pub(crate) fn has_token(&self, text: &str) -> bool {
        self.inner.token_to_id(text).is_some()
    }
}

/// The same tokenizer for text in the middle of a prompt; `None` if that is encoded like the beginning.
fn without_beginning(tokenizer: &tokenizers::Tokenizer) -> Option<tokenizers::Tokenizer> {
    fn begins_nowhere(part: &mut PreTokenizerWrapper) -> bool {
        match part {
            PreTokenizerWrapper::Metaspace(blanks) if blanks.get_prepend_scheme() == PrependScheme::First => {
                blanks.set_prepend_scheme(PrependScheme::Never);
                true
            }
            PreTokenizerWrapper::Sequence(parts) => {
                parts.as_mut().iter_mut().map(begins_nowhere).filter(|changed| *changed).count() > 0
            }
            _ => false,
        }
    }
    let mut parts = tokenizer.get_pre_tokenizer()?.clone();
    begins_nowhere(&mut parts).then(|| {
        let mut inside = tokenizer.clone();
        inside.with_pre_tokenizer(Some(parts));
        inside
    })
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    Ok(library(|| tokenizer.encode(text, false))?.get_ids().to_vec())
}

/// Calls the library on a file that it may not be made for; a panic becomes an error.
fn library<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    let done = quietly(work).map_err(|_| TokenizerError::Failed("tokenizer.json is damaged".to_owned()))?;
    done.map_err(|error| TokenizerError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_of_git_lfs_is_called_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n").unwrap();
        let message = Tokenizer::from_file(file.path()).unwrap_err().to_string();
        assert!(message.contains("Git LFS pointer") && message.contains("git lfs pull"), "{message}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let json = r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}"#;
        std::fs::write(file.path(), "\u{feff}".to_owned() + json).unwrap();
        assert_eq!(Tokenizer::from_file(file.path()).unwrap().encode("ba").unwrap(), [1, 0]);
    }

    #[test]
    fn special_tokens_are_no_text_unless_they_mark_thinking() {
        let special = ["<s>", "[THINK]", "[/THINK]", "<|channel>", "<channel|>"];
        let added = special.iter().enumerate().map(|(at, token)| {
            serde_json::json!({
                "id": at + 2, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            })
        });
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": { "type": "Fuse" }, "added_tokens": added.collect::<Vec<_>>(),
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] }
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.decode(&[2, 3, 0, 0, 4, 1, 2]).unwrap(), "[THINK]aa[/THINK]b");
        assert_eq!(tokenizer.decode(&[5, 0, 6, 1]).unwrap(), "<|channel>a<channel|>b");
        assert_eq!(tokenizer.decode(&[]).unwrap(), "");
    }

    #[test]
    fn typed_text_is_no_marker_where_the_vocabulary_has_markers_among_its_pieces() {
        let pieces = ["<unk>", "</s>", "x", "<", "/", "s", ">"];
        let vocabulary: Vec<_> = pieces.iter().map(|piece| serde_json::json!([piece, -1.0])).collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null,
            "added_tokens": [{
                "id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true
            }],
            "model": { "type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": false }
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.encode("x</s>x").unwrap(), [2, 1, 2]);
        assert_eq!(tokenizer.encode_literal("x</s>x").unwrap(), [2, 3, 4, 5, 6, 2]);
    }
}
