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
/// The largest vocabularies have half a million. Twice as many as here would be more values than a file may have.
pub(super) const MAX_MERGES: usize = 2 * MAX_TOKENS;
/// The longest real ones are runs of 128 spaces or hyphens.
pub(super) const MAX_TOKEN_BYTES: usize = 1 << 10;
/// Tokens added to the vocabulary; real files have a few thousand at most.
pub(super) const MAX_ADDED: usize = 1 << 16;
/// The longest real one has 400.
const MAX_PATTERN_BYTES: usize = 4 << 10;
/// How often a part of a pattern may be repeated by number; nested repetitions multiply.
const MAX_REPEATS: usize = 1000;
/// The factor by which normalizer and pre-tokenizer together, or the decoder, may expand a text.
const MAX_GROWTH: usize = 64;
/// The longest text that a table of SentencePiece may put in place of a few characters; the real one has 33 bytes.
const MAX_REPLACEMENT_BYTES: usize = 64;
/// Steps of a normalizer, a pre-tokenizer or a decoder.
const MAX_STEPS: usize = 64;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default, borrow)]
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

#[derive(Default, Deserialize)]
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

/// Checks a file. The error describes the fault.
pub(crate) fn check(json: &[u8]) -> Result<(), String> {
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
    // One after the other, they expand the same text.
    let mut before = 1usize;
    for (what, steps) in [
        ("normalizer", &file.normalizer),
        ("pre-tokenizer", &file.pre_tokenizer),
        ("post-processor", &file.post_processor),
        ("decoder", &file.decoder),
    ] {
        let mut seen = Steps::default();
        seen.visit(steps)?;
        if seen.count > MAX_STEPS {
            return Err(format!("its {what} has {} steps; more than {MAX_STEPS} are not accepted", seen.count));
        }
        let is_before = matches!(what, "normalizer" | "pre-tokenizer");
        let growth = seen.growth.saturating_mul(if is_before { before } else { 1 });
        if growth > MAX_GROWTH {
            return Err(format!("its {what} makes texts more than {MAX_GROWTH} times longer"));
        }
        if seen.tables > 1 {
            return Err(format!("its {what} replaces characters by more than one table"));
        }
        before = growth;
    }
    Ok(())
}

/// Counts steps, and how much they expand a text together.
struct Steps {
    count: usize,
    growth: usize,
    /// Tables of SentencePiece. Their expansion is limited separately.
    tables: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self { count: 0, growth: 1, tables: 0 }
    }
}

impl Steps {
    fn visit(&mut self, json: &Json) -> Result<(), String> {
        match json {
            Json::Array(items) => items.iter().try_for_each(|item| self.visit(item)),
            Json::Object(step) => {
                self.count += usize::from(step.contains_key("type"));
                match step.get("type").and_then(Json::as_str) {
                    // Every byte of a character beyond ASCII becomes a character of two bytes.
                    Some("ByteLevel") => self.growth = self.growth.saturating_mul(2),
                    Some("Precompiled") => {
                        self.tables += 1;
                        check_table(step.get("precompiled_charsmap").and_then(Json::as_str).unwrap_or_default())?;
                    }
                    _ => {}
                }
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

/// Refuses a table of SentencePiece, in base 64, that is not one or has long texts: the size of a trie, the trie, and the
/// texts that it points to, each with a zero at its end.
fn check_table(text: &str) -> Result<(), String> {
    let damaged = || "a table of its normalizer is damaged".to_owned();
    let bytes = from_base64(text).ok_or_else(damaged)?;
    let (size, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    let texts = rest.get(u32::from_le_bytes(*size) as usize..).ok_or_else(damaged)?;
    if texts.split(|byte| *byte == 0).any(|text| text.len() > MAX_REPLACEMENT_BYTES) {
        return Err(format!("a table of its normalizer has a text of more than {MAX_REPLACEMENT_BYTES} bytes"));
    }
    Ok(())
}

/// Decodes base 64 with padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    let (mut word, mut bits) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (word, bits) = (word << 6 | u32::from(value), bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    Some(bytes)
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

    /// Digits of base 64, without padding.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits = |at: usize| {
            (0..6).fold(0, |bits, bit| {
                let at = at * 6 + bit;
                bits << 1 | bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1)
            })
        };
        (0..(bytes.len() * 8).div_ceil(6)).map(|at| DIGITS[bits(at) as usize] as char).collect()
    }

    #[test]
    fn every_step_over_bytes_counts_and_all_before_the_model_together() {
        let bytes =
            || json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let replace = |content: &str| json!({ "type": "Replace", "pattern": { "String": " " }, "content": content });
        // As Llama 2's normalizer with steps as in DeepSeek's pre-tokenizer, and twice.
        let both = |normalizer: Json, pre_tokenizer: Json| {
            let file = json!({ "model": { "vocab": {} }, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
                "post_processor": bytes(), "decoder": bytes() });
            check(file.to_string().as_bytes())
        };
        let prepend = json!({ "type": "Prepend", "prepend": "▁" });
        assert_eq!(both(json!([prepend, replace("▁")]), json!([bytes(), bytes()])), Ok(()));
        assert_eq!(both(json!(null), json!(vec![bytes(); 6])), Ok(()));
        for (normalizer, pre_tokenizer, what) in [
            (json!(vec![bytes(); 7]), json!(null), "normalizer"),
            (json!(null), json!(vec![bytes(); 7]), "pre-tokenizer"),
            (json!(vec![bytes(); 4]), json!(vec![bytes(); 3]), "pre-tokenizer"),
            (replace("aaaaaaaaaaaaaaaa"), replace("aaaaaaaa"), "pre-tokenizer"),
        ] {
            let why = both(normalizer, pre_tokenizer).unwrap_err();
            assert!(why.contains(&format!("its {what} makes texts more than 64 times longer")), "{why}");
        }
    }

    #[test]
    fn a_table_of_sentencepiece_puts_no_long_text_in_place_of_a_character() {
        let table = |trie: u32, texts: &[u8]| {
            let bytes = [&trie.to_le_bytes()[..], &[9; 8], texts].concat();
            json!({ "type": "Precompiled", "precompiled_charsmap": base64(&bytes) })
        };
        let longest = [[b'b'; MAX_REPLACEMENT_BYTES].as_slice(), b"\0c\0"].concat();
        for (trie, texts) in [(8, &b""[..]), (8, b"a\0bc\0"), (8, &longest), (12, b"abcd")] {
            check(&file("normalizer", table(trie, texts))).unwrap();
        }
        assert!(refused("normalizer", table(8, &[b'b'; 65])).contains("a text of more than 64 bytes"));
        assert!(refused("normalizer", table(u32::MAX, b"")).contains("a table of its normalizer is damaged"));
        assert!(refused("normalizer", json!([table(8, b""), table(8, b"")])).contains("more than one table"));
        for damaged in ["", "AAA", "AAAA*AAA"] {
            let table = json!({ "type": "Precompiled", "precompiled_charsmap": damaged });
            assert!(refused("normalizer", table).contains("damaged"), "{damaged}");
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
