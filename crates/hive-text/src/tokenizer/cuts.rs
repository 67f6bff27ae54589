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
/// The same with combining marks inside words.
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's, but signs end before a line break.
const SEED: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's, but words with single spaces between them are one piece.
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
/// Words end where small letters are followed by capitals.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with contractions at the end of a word, and numbers of up to three digits.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits, after a cut at changes of script and at full-width signs.
const YOUTU: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const YOUTU_SCRIPTS: &str = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
/// GPT-4o's, but Chinese characters are words of their own, and a slash does not continue signs.
const KIMI: &str = r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Signs at the beginning of a word belong to it.
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// The same, but each line break is a piece of its own.
const SPARK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##;
/// Chinese characters and kana.
const DEEPSEEK3_CJK: &str = "[一-龥぀-ゟ゠-ヿ]+";

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

/// Every way, with its names.
const CUTS: &[(&[&str], Cut)] = &[
    (&["default", ""], Cut::new(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"])),
    (
        &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "trillion",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "granite-docling",
        ],
        Cut::new(&[GPT2]),
    ),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        Cut::new(&[r"\p{N}", GPT2]),
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        Cut::new(&[LLAMA3]).ignoring_merges().adding_bos(),
    ),
    (&["smaug-bpe", "dbrx", "chatglm-bpe"], Cut::new(&[LLAMA3])),
    (&["glm4", "glm5"], Cut::new(&[LLAMA3]).ignoring_merges()),
    (
        &[
            "qwen2",
            "stablelm2",
            "deepseek-r1-qwen",
            "megrez",
            "kormo",
            "hunyuan",
            "solar-open",
            "grok-2",
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        Cut::new(&[QWEN2]),
    ),
    (&["qwen35"], Cut::new(&[QWEN35])),
    (&["seed-coder"], Cut::new(&[SEED])),
    (&["laguna"], Cut::new(&[r"[^\n]+|[\n]+", QWEN2])),
    (&["minicpm5"], Cut::new(&[r"\p{N}{1,3}", LLAMA3]).ignoring_merges()),
    (&["exaone-moe"], Cut::new(&[EXAONE_MOE])),
    (&["tekken"], Cut::new(&[TEKKEN]).ignoring_merges().adding_bos()),
    (&["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"], Cut::new(&[GPT4O])),
    (&["tiny_aya", "cohere2moe"], Cut::new(&[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O])),
    (&["youtu"], Cut::new(&[YOUTU_SCRIPTS, YOUTU]).ignoring_merges()),
    (&["kimi-k2"], Cut::new(&[KIMI])),
    (&["falcon"], Cut::new(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"])),
    (&["deepseek-coder"], Cut::new(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"])),
    (
        &["deepseek-llm"],
        Cut::new(&[
            r"[\r\n]",
            DEEPSEEK1_WORDS,
            r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ]),
    ),
    (&["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"], Cut::new(&[r"\p{N}{1,3}", DEEPSEEK3_CJK, DEEPSEEK3])),
    (&["spark2_5"], Cut::new(&[r"\p{N}{1,3}", DEEPSEEK3_CJK, SPARK, r"\p{N}"])),
];

impl Cut {
    const fn new(patterns: &'static [&'static str]) -> Self {
        Self { patterns, ignores_merges: false, adds_bos: false }
    }

    const fn ignoring_merges(self) -> Self {
        Self { ignores_merges: true, ..self }
    }

    const fn adding_bos(self) -> Self {
        Self { adds_bos: true, ..self }
    }

    /// The way with this name; a file without one means `default`.
    pub(super) fn of(name: Option<&str>) -> Option<Self> {
        let name = name.unwrap_or_default();
        CUTS.iter().find(|(names, _)| names.contains(&name)).map(|(_, cut)| *cut)
    }

    /// All names, in alphabetical order.
    pub(super) fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = CUTS.iter().flat_map(|(names, _)| *names).copied().collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names
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

    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

    /// As the library reads it.
    fn read(cut: Cut) -> PreTokenizerWrapper {
        serde_json::from_value(cut.to_json()).unwrap()
    }

    /// Splits a text into pieces.
    fn split(cut: &PreTokenizerWrapper, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        cut.pre_tokenize(&mut pieces).unwrap();
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(_, (from, to), _)| text[from..to].to_owned()).collect()
    }

    fn cut(name: Option<&str>, text: &str) -> Vec<String> {
        split(&read(Cut::of(name).unwrap()), text)
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

    /// `tests/oracle/cuts.py` made the reference: Hugging Face's library on the patterns in llama.cpp's source.
    #[test]
    fn every_way_cuts_as_hugging_faces_library_does() {
        #[derive(serde::Deserialize)]
        struct Reference {
            corpus: Vec<String>,
            cuts: Vec<Expected>,
        }
        #[derive(serde::Deserialize)]
        struct Expected {
            names: Vec<String>,
            ignores_merges: bool,
            adds_bos: bool,
            /// For each text of the corpus, the number of characters of each piece.
            pieces: Vec<String>,
        }
        let reference: Reference = serde_json::from_str(include_str!("../../../../tests/oracle/cuts.json")).unwrap();
        let mut checked = Vec::new();
        for expected in &reference.cuts {
            let mut known: Vec<(Cut, PreTokenizerWrapper)> = Vec::new();
            for name in &expected.names {
                let cut = Cut::of(Some(name)).unwrap_or_else(|| panic!("{name} is not known"));
                assert_eq!((cut.ignores_merges, cut.adds_bos), (expected.ignores_merges, expected.adds_bos), "{name}");
                checked.push(name.as_str());
                if known.iter().all(|(one, _)| *one != cut) {
                    known.push((cut, read(cut)));
                }
            }
            for (_, cut) in &known {
                for (text, pieces) in reference.corpus.iter().zip(&expected.pieces) {
                    let mut rest = text.chars();
                    let lengths = pieces.split_whitespace().map(|length| length.parse::<usize>().unwrap());
                    let pieces: Vec<String> = lengths.map(|length| rest.by_ref().take(length).collect()).collect();
                    assert_eq!(split(cut, text), pieces, "{:?}", expected.names);
                }
            }
        }
        checked.push("gpt2");
        checked.sort_unstable();
        assert_eq!(checked, Cut::names());
    }
}
