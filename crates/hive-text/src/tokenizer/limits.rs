//! Limits on a `tokenizer.json`, checked before the library reads it.
//!
//! The library builds tables from every entry, unrolls repetitions of regular expressions, and runs one normalizer
//! after the other over every text, however much each expands it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

/// The largest vocabularies (262,144 tokens with their merges) take 33 MB.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;
/// Numbers, strings and brackets in the file; the largest has two million.
const MAX_VALUES: usize = 8_000_000;
/// Entries of the vocabulary.
pub(super) const MAX_TOKENS: usize = 1 << 20;
/// The largest vocabularies have half a million.
pub(super) const MAX_MERGES: usize = 4 * MAX_TOKENS;
/// The longest real ones are runs of 128 spaces or hyphens.
pub(super) const MAX_TOKEN_BYTES: usize = 1 << 10;
/// Tokens added to the vocabulary; real files have a few thousand at most.
const MAX_ADDED: usize = 1 << 16;
/// The longest real one has 400.
const MAX_PATTERN_BYTES: usize = 4 << 10;
/// How often a part of a pattern may be repeated by number; nested repetitions multiply.
const MAX_REPEATS: usize = 1000;
/// The factor by which all normalizers, or all decoders, may expand a text.
const MAX_GROWTH: usize = 64;
/// Steps of a normalizer, a pre-tokenizer or a decoder.
const MAX_STEPS: usize = 64;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Model<'a>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    post_processor: Json,
    #[serde(default)]
    decoder: Json,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(default, rename = "type", borrow)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    vocab: Option<Vocabulary>,
    #[serde(default)]
    merges: Option<Merges>,
}

#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    content: String,
}

/// Checks a file. The error says what is wrong with it.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    if json.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has {} bytes; more than {MAX_FILE_BYTES} are not accepted", json.len()));
    }
    if json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MAX_VALUES {
        return Err(format!("it has more than {MAX_VALUES} values"));
    }
    let file: File = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let kind = file.model.kind.as_deref();
    if let Some(kind @ ("WordPiece" | "WordLevel")) = kind {
        return Err(format!("its kind {kind} is not one of models that write"));
    }
    // Parsed only to be counted.
    let (_, _) = (file.model.vocab, file.model.merges);
    if file.added_tokens.len() > MAX_ADDED {
        return Err(format!("it adds {} tokens; more than {MAX_ADDED} are not accepted", file.added_tokens.len()));
    }
    if file.added_tokens.iter().any(|token| token.content.len() > MAX_TOKEN_BYTES) {
        return Err(format!("a token has more than {MAX_TOKEN_BYTES} bytes"));
    }
    for (what, steps) in [
        ("normalizer", &file.normalizer),
        ("pre-tokenizer", &file.pre_tokenizer),
        ("post-processor", &file.post_processor),
        ("decoder", &file.decoder),
    ] {
        let mut seen = Steps::default();
        seen.visit(steps)?;
        if seen.steps > MAX_STEPS {
            return Err(format!("its {what} has {} steps; more than {MAX_STEPS} are not accepted", seen.steps));
        }
        if seen.growth > MAX_GROWTH {
            return Err(format!("its {what} makes texts more than {MAX_GROWTH} times longer"));
        }
    }
    Ok(())
}

/// Counts steps, and how much they expand a text together.
struct Steps {
    steps: usize,
    growth: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self { steps: 0, growth: 1 }
    }
}

impl Steps {
    fn visit(&mut self, json: &Json) -> Result<(), String> {
        match json {
            Json::Array(items) => items.iter().try_for_each(|item| self.visit(item)),
            Json::Object(step) => {
                self.steps += usize::from(step.contains_key("type"));
                if let Some(pattern) = step.get("Regex").and_then(Json::as_str) {
                    check_pattern(pattern)?;
                }
                // A pattern may match the empty string between any two characters.
                let content = ["content", "prepend", "replacement"].iter().find_map(|key| step.get(*key)?.as_str());
                if let Some(content) = content.filter(|content| !content.is_empty()) {
                    let replaced = step.get("pattern").and_then(|pattern| pattern.get("String")?.as_str());
                    let by = content.len().div_ceil(replaced.map_or(1, |text| text.len().max(1))).max(1);
                    self.growth = self.growth.saturating_mul(by);
                }
                step.values().try_for_each(|item| self.visit(item))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses patterns whose numbered repetitions unroll to more than any real one.
fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("a pattern has {} bytes; more than {MAX_PATTERN_BYTES} are not accepted", pattern.len()));
    }
    // Repetitions inside a character class count too, which can only overestimate.
    let mut product = 1usize;
    let mut rest = pattern;
    while let Some(at) = rest.find(['\\', '{']) {
        let (is_escape, after) = (rest.as_bytes()[at] == b'\\', &rest[at + 1..]);
        if is_escape {
            rest = behind_escape(after);
            continue;
        }
        let bounds = after.split('}').next().unwrap_or_default();
        let most = bounds.split(',').filter_map(|bound| bound.trim().parse::<usize>().ok()).max();
        product = product.saturating_mul(most.unwrap_or(1).max(1));
        rest = after;
    }
    if product > MAX_REPEATS {
        return Err(format!("a pattern repeats a part more than {MAX_REPEATS} times"));
    }
    Ok(())
}

/// The rest of an escape: a character, and its code if that is in braces. `\x{3000}` repeats nothing.
fn behind_escape(after: &str) -> &str {
    let mut characters = after.chars();
    let Some(escaped) = characters.next() else { return "" };
    let rest = characters.as_str();
    let code = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    match code {
        Some((code, behind)) if escaped == 'x' && code.bytes().all(|digit| digit.is_ascii_hexdigit()) => behind,
        _ => rest,
    }
}

/// A vocabulary that is counted but not stored: strings with their numbers, or pairs of both.
struct Vocabulary;
/// Merges that are counted but not stored: pairs, or strings of two.
struct Merges;

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Counted { most: MAX_TOKENS }).map(|()| Self)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Counted { most: MAX_MERGES }).map(|()| Self)
    }
}

/// Counts entries, and checks the length of every string in them.
struct Counted {
    most: usize,
}

impl<'de> Visitor<'de> for Counted {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} tokens", self.most)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut count = 0;
        while map.next_key_seed(Text)?.is_some() {
            map.next_value::<IgnoredAny>()?;
            count += 1;
            self.within(count)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut count = 0;
        while items.next_element_seed(Text)?.is_some() {
            count += 1;
            self.within(count)?;
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

impl Counted {
    fn within<E: Error>(&self, count: usize) -> Result<(), E> {
        if count > self.most { Err(E::custom(format!("it has more than {} tokens", self.most))) } else { Ok(()) }
    }
}

/// A string of limited length, alone or in a short list with anything else.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token of at most {MAX_TOKEN_BYTES} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        // A merge is written as its two halves with a space between.
        if text.len() <= MAX_TOKEN_BYTES + 1 {
            return Ok(());
        }
        Err(E::custom(format!("a token has {} bytes; more than {MAX_TOKEN_BYTES} are not accepted", text.len())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for _ in 0..3 {
            if items.next_element_seed(Self)?.is_none() {
                return Ok(());
            }
        }
        Err(A::Error::custom("an entry of its vocabulary has more than two parts"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(key: &str, value: Json) -> Vec<u8> {
        let mut file = json!({
            "version": "1.0", "added_tokens": [], "model": { "type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]] }
        });
        file[key] = value;
        file.to_string().into_bytes()
    }

    fn refused(key: &str, value: Json) -> String {
        check(&file(key, value)).unwrap_err()
    }

    #[test]
    fn an_honest_file_passes_however_its_merges_are_written() {
        check(&file("normalizer", json!(null))).unwrap();
        check(&file("model", json!({ "vocab": {"a": 0}, "merges": ["a b"] }))).unwrap();
        check(&file("model", json!({ "type": "Unigram", "vocab": [["a", -1.5], ["b", 0]] }))).unwrap();
        let steps = json!({ "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }
        ]});
        check(&file("normalizer", steps)).unwrap();
        for pattern in [r"[\x{3000}-\x{9999}]+", r"\p{L}{1,3}", r"\\{2}\{5000\"] {
            let split = json!({ "type": "Split", "pattern": { "Regex": pattern } });
            check(&file("pre_tokenizer", split)).unwrap();
        }
    }

    #[test]
    fn each_limit_says_which_it_is() {
        let long = "a".repeat(MAX_TOKEN_BYTES + 2);
        let vocabulary = json!({ "type": "BPE", "vocab": { &long: 0 }, "merges": [] });
        assert!(refused("model", vocabulary).contains("a token has 1026 bytes"));
        let merges = json!({ "type": "BPE", "vocab": {}, "merges": [[long, "b"]] });
        assert!(refused("model", merges).contains("a token has 1026 bytes"));
        assert!(refused("model", json!({ "type": "WordPiece" })).contains("WordPiece"));
        let nine = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aaaaaaaaa" });
        assert!(refused("normalizer", json!([nine, nine])).contains("times longer"));
        assert!(refused("decoder", json!([nine, nine])).contains("times longer"));
        let nothing = json!({ "type": "Replace", "pattern": { "Regex": "" }, "content": "a".repeat(65) });
        assert!(refused("normalizer", nothing).contains("times longer"));
        let step = json!({ "type": "Lowercase" });
        assert!(refused("normalizer", json!(vec![step; MAX_STEPS + 1])).contains("steps"));
        for pattern in [
            "(?:a{40}){40}(?!b)",
            "a{1,5000}",
            "(?:(?:(?:a{100}){100}){100})",
            r"\\x{5000}",
            r"\x41{5000}",
            r"\w{5000}",
        ] {
            let split = json!({ "type": "Split", "pattern": { "Regex": pattern } });
            assert!(refused("pre_tokenizer", split).contains("repeats a part"), "{pattern}");
        }
        let long = json!({ "type": "Split", "pattern": { "Regex": "a".repeat(MAX_PATTERN_BYTES + 1) } });
        assert!(refused("pre_tokenizer", long).contains("a pattern has"));
        let added = json!([{ "id": 3, "content": "b".repeat(MAX_TOKEN_BYTES + 1) }]);
        assert!(refused("added_tokens", added).contains("a token has more"));
    }
}
