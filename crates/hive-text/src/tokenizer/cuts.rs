//! Pre-tokenization of GGUF files: how text is split before merging, by llama.cpp's names.
//!
//! The patterns are those of the original tokenizers; llama.cpp writes some differently for its own regex engine, with
//! the same meaning. `default` is llama.cpp's own, for files that name none.

use serde_json::{Value as Json, json};

/// GPT-2's words.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's words, numbers of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words end where small letters are followed by capitals.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with contractions at the end of a word, and numbers of up to three digits.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Signs at the beginning of a word belong to it.
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// Words are cased letters, by the Unicode version of the original tokenizer.
const DEEPSEEK1_WORDS: &str = r"\s?[\p{Lu}\p{Ll}\p{Lt}&&[^\x{560}-\x{588}\x{10C7}-\x{10FF}\x{1C80}-\x{1C88}\x{2D00}-\x{2D2D}\x{A790}-\x{A7FF}\x{AB30}-\x{AB68}\x{10570}-\x{105BB}\x{16E40}-\x{16E7F}\x{1D400}-\x{1D7CB}\x{1DF00}-\x{1DF1E}]]+";
/// CJK characters, and everything else between the first and the last of them.
const DEEPSEEK_CJK: &str = "[一-龥ࠀ-一가-퟿]+";

/// A way to split text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Applied in order: each match is a piece, and so is each text between matches.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token stays that token, regardless of the merges.
    pub(super) ignores_merges: bool,
    /// Whether a text begins with BOS if the file does not say.
    pub(super) adds_bos: bool,
}

impl Cut {
    const fn new(patterns: &'static [&'static str]) -> Self {
        Self { patterns, ignores_merges: false, adds_bos: false }
    }

    /// The way with this name; a file without one means `default`.
    pub(super) fn of(name: Option<&str>) -> Option<Self> {
        let llama3 = Self { ignores_merges: true, adds_bos: true, ..Self::new(&[LLAMA3]) };
        Some(match name.unwrap_or_default() {
            "" | "default" => Self::new(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]),
            "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jais" | "exaone4" | "trillion" => Self::new(&[GPT2]),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
                Self::new(&[r"\p{N}", GPT2])
            }
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "lfm2" => llama3,
            "smaug-bpe" | "dbrx" => Self::new(&[LLAMA3]),
            "qwen2" | "stablelm2" | "deepseek-r1-qwen" | "megrez" => Self::new(&[QWEN2]),
            "tekken" => Self { patterns: &[TEKKEN], ..llama3 },
            "gpt-4o" | "llama4" => Self::new(&[GPT4O]),
            "falcon" => Self::new(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"]),
            "deepseek-coder" => Self::new(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"]),
            "deepseek-llm" => Self::new(&[
                r"[\r\n]",
                DEEPSEEK1_WORDS,
                r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+",
                r"\s+$",
                DEEPSEEK_CJK,
                r"\p{N}+",
            ]),
            "deepseek-v3" | "hunyuan-dense" => Self::new(&[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3]),
            _ => return None,
        })
    }

    /// In the format of `tokenizer.json`.
    pub(super) fn to_json(self) -> Json {
        let split = |pattern: &&str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let all: Vec<Json> = self.patterns.iter().map(split).chain([bytes]).collect();
        json!({ "type": "Sequence", "pretokenizers": all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a text into pieces.
    fn cut(name: Option<&str>, text: &str) -> Vec<String> {
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};
        let cut: PreTokenizerWrapper = serde_json::from_value(Cut::of(name).unwrap().to_json()).unwrap();
        let mut pieces = PreTokenizedString::from(text);
        cut.pre_tokenize(&mut pieces).unwrap();
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(piece, ..)| piece.replace('Ġ', " ").replace('Ċ', "\n")).collect()
    }

    #[test]
    fn a_file_that_does_not_say_how_is_cut_as_llama_cpp_cuts_it() {
        let text = "don't pay $1234.5 (x<=y)";
        let expected = ["don", "'", "t", " pay", " ", "$", "123", "4", ".", "5", " ", "(", "x", "<=", "y", ")"];
        assert_eq!(cut(None, text), expected);
        assert_eq!(cut(Some("default"), text), expected);
        // Unlike GPT-2's own.
        assert_eq!(cut(Some("gpt-2"), text), ["don", "'t", " pay", " $", "1234", ".", "5", " (", "x", "<=", "y", ")"]);
    }

    #[test]
    fn each_kind_cuts_words_and_numbers_its_own_way() {
        for (name, expected) in [
            ("smollm", vec!["I", "'", "M", " camelCase", " ", "1", "2", "3", "4", "\n\n", " x"]),
            ("llama-bpe", vec!["I", "'M", " camelCase", " ", "123", "4", "\n\n", " x"]),
            ("falcon3", vec!["I", "'M", " camelCase", " ", "123", "4", "\n\n", " x"]),
            ("qwen2", vec!["I", "'M", " camelCase", " ", "1", "2", "3", "4", "\n\n", " x"]),
            ("tekken", vec!["I", "'M", " camel", "Case", " ", "1", "2", "3", "4", "\n\n", " x"]),
            ("llama4", vec!["I'M", " camel", "Case", " ", "123", "4", "\n\n", " x"]),
            ("deepseek-llm", vec!["I", "'", "M", " camelCase", " ", "1234", "\n", "\n", " x"]),
        ] {
            assert_eq!(cut(Some(name), "I'M camelCase 1234\n\n x"), expected, "{name}");
        }
    }

    #[test]
    fn every_way_is_one_that_the_library_reads() {
        let names = [
            "default",
            "gpt-2",
            "smollm",
            "llama-bpe",
            "smaug-bpe",
            "qwen2",
            "tekken",
            "gpt-4o",
            "falcon",
            "deepseek-llm",
            "deepseek-coder",
            "deepseek-v3",
        ];
        for name in names {
            assert!(cut(Some(name), "Ünïcode 漢字 123, ok?\r\n  y").len() > 5, "{name}");
        }
        assert_eq!(Cut::of(Some("bloom")), None);
    }
}
