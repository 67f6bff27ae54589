//! Generates a `tokenizer.json` from GGUF metadata.
//!
//! The families have three kinds: byte-level BPE (`gpt2`: Llama 3, Qwen) with merges and the name of a pre-tokenizer;
//! SentencePiece BPE (`llama`: Llama 2, Mistral) with scores, from which the merges follow; and the latter's form with
//! merges (`gemma4`).
//!
//! llama.cpp's `clean_spaces` has no equivalent: it drops blanks before punctuation when a whole text is decoded, which
//! neither its server nor this crate does.

use serde_json::{Value as Json, json};

use super::cuts::Cut;
use super::is_marker;
use super::limits::{MAX_ADDED, MAX_MERGES, MAX_TOKEN_BYTES, MAX_TOKENS};
use crate::Metadata;

/// Maximum number of bytes inspected when all tokens are split in two at each character: real vocabularies take about
/// ten million.
const MAX_CUT_BYTES: usize = 1 << 29;

/// Token types of the format.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

pub(super) fn tokenizer_json(gguf: &dyn Metadata) -> Result<Json, String> {
    let tokens = strings(gguf, "tokenizer.ggml.tokens").ok_or("it has no tokenizer.ggml.tokens")?;
    let merges = strings(gguf, "tokenizer.ggml.merges");
    if tokens.len() > MAX_TOKENS || merges.as_ref().is_some_and(|merges| merges.len() > MAX_MERGES) {
        return Err(format!("it has more than {MAX_TOKENS} tokens, or {MAX_MERGES} merges"));
    }
    let types: Vec<i64> = gguf.integers("tokenizer.ggml.token_type").into_iter().flatten().collect();
    // Some converters write markers as ordinary tokens, which a person's text could then become. `<s>` and `</s>` may
    // be ordinary tokens for HTML.
    let type_of = |id: usize| match types.get(id).copied().unwrap_or(NORMAL) {
        NORMAL if is_marker(tokens[id]) && !["<s>", "</s>"].contains(&tokens[id]) => CONTROL,
        USER_DEFINED if is_marker(tokens[id]) => CONTROL,
        kind => kind,
    };
    let takes_blanks = takes_blanks_behind(gguf.string("general.name").unwrap_or_default());
    let added_ids = || (0..tokens.len()).filter(|&id| matches!(type_of(id), CONTROL | USER_DEFINED | UNKNOWN));
    // Each takes a kilobyte from here on.
    let count = added_ids().count();
    if count > MAX_ADDED {
        return Err(format!("it adds {count} tokens; more than {MAX_ADDED} are not accepted"));
    }
    let added: Vec<Json> = added_ids()
        .map(|id| {
            json!({
                "id": id, "content": tokens[id], "single_word": false, "lstrip": false,
                "rstrip": takes_blanks(tokens[id]), "normalized": false,
                "special": type_of(id) != USER_DEFINED
            })
        })
        .collect();
    let vocabulary: serde_json::Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let file_merges = || {
        let merges = merges.as_ref().ok_or("it has no tokenizer.ggml.merges")?;
        Ok::<_, String>(merges.iter().filter_map(|merge| merge.split_once(' ')).collect::<Vec<_>>())
    };
    let unknown = || (0..tokens.len()).find(|&id| type_of(id) == UNKNOWN).map_or("<unk>", |id| tokens[id]);
    match kind(gguf)? {
        Kind::Bytes(cut) => Ok(json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": cut.to_json(),
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "vocab": vocabulary, "merges": file_merges()?, "ignore_merges": cut.ignores_merges
            },
        })),
        Kind::Characters => Ok(sentencepiece(gguf, false, &added, vocabulary, &file_merges()?, unknown())),
        Kind::Scores => {
            let scores = gguf.reals("tokenizer.ggml.scores").ok_or("it has no tokenizer.ggml.scores")?;
            let merges = merges_by_score(&tokens, &scores, MAX_MERGES)?;
            Ok(sentencepiece(gguf, true, &added, vocabulary, &merges, unknown()))
        }
    }
}

/// The kinds of vocabulary.
#[derive(Clone, Copy)]
enum Kind {
    /// Pieces of bytes, merged within the pieces of a cut.
    Bytes(Cut),
    /// Pieces of characters with `▁` for a blank, merged over the whole text.
    Characters,
    /// The same, with scores in place of merges.
    Scores,
}

fn kind(gguf: &dyn Metadata) -> Result<Kind, String> {
    let pre = gguf.string("tokenizer.ggml.pre");
    match gguf.string("tokenizer.ggml.model") {
        Some("gemma4") => Ok(Kind::Characters),
        Some("gpt2") if pre.is_some_and(|pre| WITHOUT_CUTS.contains(&pre)) => Ok(Kind::Characters),
        Some("gpt2") => Cut::of(pre).map(Kind::Bytes).ok_or_else(|| {
            let mut known = [Cut::names(), WITHOUT_CUTS.to_vec()].concat();
            known.sort_unstable();
            let pre = pre.unwrap_or_default();
            format!("its pre-tokenizer \"{pre}\" is not supported; supported are {}", known.join(", "))
        }),
        Some("llama") => Ok(Kind::Scores),
        Some(other) => Err(format!("its kind \"{other}\" is not supported; \"gpt2\", \"llama\" and \"gemma4\" are")),
        None => Err("it has no tokenizer.ggml.model".to_owned()),
    }
}

/// Pre-tokenizers whose vocabularies are [`Kind::Characters`].
const WITHOUT_CUTS: [&str; 2] = ["gemma4", "sarvam-moe"];

/// A SentencePiece vocabulary. `prefixed` says whether a text begins with a blank if the file does not say.
fn sentencepiece(
    gguf: &dyn Metadata,
    prefixed: bool,
    added: &[Json],
    vocabulary: serde_json::Map<String, Json>,
    merges: &[(&str, &str)],
    unknown: &str,
) -> Json {
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if gguf.flag("tokenizer.ggml.add_space_prefix").unwrap_or(prefixed) {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE", "vocab": Json::Object(vocabulary), "merges": merges, "unk_token": unknown, "fuse_unk": true,
            "byte_fallback": true,
        },
    })
}

/// The added tokens that absorb the blanks after them. Those of Phi-3 do, and the format cannot express it; llama.cpp
/// goes by the model's name.
fn takes_blanks_behind(model: &str) -> impl Fn(&str) -> bool {
    let name = model.to_lowercase();
    let is_phi3 = name.contains("phi-3") || name.contains("phi3");
    move |token| is_phi3 && !matches!(token, "<unk>" | "<s>" | "<|endoftext|>")
}

/// The token at the beginning of every prompt, whether the chat template writes it or not, by llama.cpp's rule, for
/// which the files are made.
pub(super) fn leading(gguf: &dyn Metadata) -> Option<u32> {
    let kind = kind(gguf).ok()?;
    let is_added = match kind {
        // Early files of Gemma 4 deny it.
        Kind::Characters if is_gemma(gguf) => true,
        Kind::Bytes(cut) => gguf.flag(ADDS_BOS).unwrap_or(cut.adds_bos),
        Kind::Scores => gguf.flag(ADDS_BOS).unwrap_or(true),
        Kind::Characters => gguf.flag(ADDS_BOS).unwrap_or(false),
    };
    let usual = matches!(kind, Kind::Scores).then_some(1);
    let bos = gguf.number("tokenizer.ggml.bos_token_id").or(usual)?;
    let exists = gguf.strings("tokenizer.ggml.tokens")?.nth(usize::try_from(bos).ok()?).is_some();
    (is_added && exists).then(|| u32::try_from(bos).ok()).flatten()
}

const ADDS_BOS: &str = "tokenizer.ggml.add_bos_token";

fn is_gemma(gguf: &dyn Metadata) -> bool {
    ["tokenizer.ggml.model", "tokenizer.ggml.pre"].iter().any(|key| gguf.string(key) == Some("gemma4"))
}

/// SentencePiece merges the pair whose result has the best score; a list of merges in that order is equivalent. More
/// than `most` are refused: short tokens can be made in more ways than any real vocabulary has tokens.
fn merges_by_score<'a>(tokens: &[&'a str], scores: &[f64], most: usize) -> Result<Vec<(&'a str, &'a str)>, String> {
    if let Some(token) = tokens.iter().find(|token| token.len() > MAX_TOKEN_BYTES) {
        return Err(format!("a token has {} bytes; more than {MAX_TOKEN_BYTES} are not accepted", token.len()));
    }
    if tokens.iter().map(|token| token.len() * token.len()).sum::<usize>() > MAX_CUT_BYTES {
        return Err("its tokens are too many and too long for a vocabulary".to_owned());
    }
    let ids: std::collections::HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let mut merges = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                if merges.len() == most {
                    return Err(format!("its tokens can be merged in more than {most} ways"));
                }
                merges.push((scores.get(id).copied().unwrap_or(f64::MIN), id, l, r, left, right));
            }
        }
    }
    // Runs of spaces have equal scores; among those, SentencePiece takes the piece that comes first.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    Ok(merges.into_iter().map(|(.., left, right)| (left, right)).collect())
}

fn strings<'a>(gguf: &'a dyn Metadata, key: &str) -> Option<Vec<&'a str>> {
    Some(gguf.strings(key)?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_come_in_the_order_of_their_scores() {
        let merges = merges_by_score(&["a", "b", "ab", "aba"], &[0.0, 0.0, -1.0, -0.5], 2).unwrap();
        assert_eq!(merges, [("ab", "a"), ("a", "b")]);
        // With equal scores: `___` (3) before `____` (4), whatever the names of its halves.
        let spaces = ["_", "__", "x", "___", "____"];
        let scores = [0.0, -1.0, 0.0, -1.0, -1.0];
        let merges = merges_by_score(&spaces, &scores, 6).unwrap();
        assert_eq!(merges, [("_", "_"), ("_", "__"), ("__", "_"), ("_", "___"), ("__", "__"), ("___", "_")]);
        let why = merges_by_score(&spaces, &scores, 5).unwrap_err();
        assert!(why.contains("more than 5 ways"), "{why}");
    }

    /// A byte-level vocabulary whose tokens all have one type.
    struct Added(usize);

    impl Metadata for Added {
        fn string(&self, key: &str) -> Option<&str> {
            (key == "tokenizer.ggml.model").then_some("gpt2")
        }

        fn number(&self, _: &str) -> Option<u64> {
            None
        }

        fn flag(&self, _: &str) -> Option<bool> {
            None
        }

        fn strings(&self, key: &str) -> Option<crate::metadata::Items<'_, &str>> {
            let count = if key.ends_with("merges") { 0 } else { self.0 };
            Some(Box::new(std::iter::repeat_n("a", count)))
        }

        fn integers(&self, _: &str) -> Option<crate::metadata::Items<'_, i64>> {
            Some(Box::new(std::iter::repeat_n(CONTROL, self.0)))
        }

        fn reals(&self, _: &str) -> Option<Vec<f64>> {
            None
        }
    }

    #[test]
    fn added_tokens_are_counted_before_anything_is_made_of_them() {
        assert!(tokenizer_json(&Added(100)).is_ok());
        let why = tokenizer_json(&Added(MAX_ADDED + 1)).unwrap_err();
        assert!(why.contains("it adds 65537 tokens; more than 65536 are not accepted"), "{why}");
    }

    #[test]
    fn tokens_that_would_be_cut_for_ever_are_refused() {
        let long = "a".repeat(400_000);
        let why = merges_by_score(&["a", &long], &[0.0, 0.0], 9).unwrap_err();
        assert!(why.contains("400000 bytes"), "{why}");
        let many: Vec<String> = (0..1000).map(|n| format!("{n:01000}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(merges_by_score(&many, &[], 9).is_err());
    }
}
