//! Finds all special tokens of a vocabulary in a text, in one pass.

use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

/// The largest vocabularies have a thousand special tokens of twenty bytes.
const MAX_BYTES: usize = 1 << 20;

/// Special tokens with their ids.
#[derive(Debug, Clone)]
pub struct SpecialTokens {
    /// Longest first.
    tokens: Vec<(String, u32)>,
    texts: BTreeMap<u32, usize>,
    /// Builds the search for their texts.
    matcher: AhoCorasick,
}

impl SpecialTokens {
    /// # Errors
    /// They are larger in total than those of any real vocabulary.
    pub(crate) fn new(mut tokens: Vec<(String, u32)>) -> Result<Self, String> {
        tokens.retain(|(text, _)| !text.is_empty());
        let bytes: usize = tokens.iter().map(|(text, _)| text.len()).sum();
        if bytes > MAX_BYTES {
            return Err(format!("its special tokens have {bytes} bytes; more than {MAX_BYTES} are not accepted"));
        }
        tokens.sort_by(|(a, id_a), (b, id_b)| b.len().cmp(&a.len()).then(id_a.cmp(id_b)));
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(text, _)| text))
            .map_err(|error| error.to_string())?;
        let texts = tokens.iter().enumerate().map(|(at, (_, id))| (*id, at)).collect();
        Ok(Self { tokens, texts, matcher })
    }

    /// All of them, longest first.
    pub fn all(&self) -> &[(String, u32)] {
        &self.tokens
    }

    /// The text of one.
    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(&id).map(|at| self.tokens[*at].0.as_str())
    }

    /// Their positions in a text: leftmost first, and the longest of those at one position.
    pub fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (Range<usize>, u32)> + 'a {
        self.matcher.find_iter(text).map(|found| (found.range(), self.tokens[found.pattern().as_usize()].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_found_and_of_those_the_longest() {
        let tokens = [("<|a|>", 1), ("<|a|>b", 2), ("|>", 3), ("", 4)].map(|(text, id)| (text.to_owned(), id));
        let special = SpecialTokens::new(tokens.to_vec()).unwrap();
        assert_eq!(special.find("x<|a|>b<|a|>|>").collect::<Vec<_>>(), [(1..7, 2), (7..12, 1), (12..14, 3)]);
        assert_eq!((special.text(2), special.text(4)), (Some("<|a|>b"), None));
    }

    #[test]
    fn more_of_them_than_any_vocabulary_has_are_refused() {
        assert!(SpecialTokens::new(vec![("a".repeat(MAX_BYTES + 1), 1)]).is_err());
    }
}
