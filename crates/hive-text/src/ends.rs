//! Finds tokens that end an answer, in addition to those in the model's configuration.
//!
//! A fine-tuned model's `config.json` often keeps the end token of its base model. The token that ends its turns may be
//! the tokenizer's `eos_token`, GGUF's `eot` or `eom`, or just a special token with a known name.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::json::without_mark;
use crate::tokenizer::{MAX_FILE_BYTES, check, is_marker};
use crate::{Metadata, regular};

/// Tokens that end a turn in well-known chat formats. In a vocabulary that has them, they are special tokens.
const TURN_ENDS: [&str; 14] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot|>",
    "<EOT>",
    "[EOT]",
    "<|end_of_sentence|>",
    "<｜end▁of▁sentence｜>",
];

/// The end of an answer in harmony, the format of gpt-oss, and of a message to a tool. There, `<|end|>` ends each of an
/// answer's messages, the first of which is what the model thinks.
const HARMONY_ENDS: [&str; 2] = ["<|return|>", "<|call|>"];

/// The tokens that end a turn in a format with these special tokens.
fn turn_ends<'a>(mut tokens: impl Iterator<Item = &'a str>) -> &'static [&'static str] {
    if tokens.any(|token| token == HARMONY_ENDS[0]) { &HARMONY_ENDS } else { &TURN_ENDS }
}

/// End tokens from a folder's tokenizer: the parsed `tokenizer_config.json`, and `tokenizer.json` beside it.
pub fn of_folder(path: &Path, tokenizer_config: &Json) -> Vec<u32> {
    let listed = listed_tokens(tokenizer_config);
    let eos = &tokenizer_config["eos_token"];
    let eos = eos.as_str().or_else(|| eos["content"].as_str());
    let is_eos = |token: &&Added| Some(token.content.as_str()) == eos;
    let is_listed = !listed.is_empty() && (eos.is_none() || listed.iter().any(|token| is_eos(&token)));
    let (added, of_vocabulary) = if is_listed { (listed, None) } else { added_tokens(path, listed, eos) };
    let named = added.iter().filter(is_eos).map(|token| token.id);
    let is_special = |token: &&Added| token.special || is_marker(&token.content);
    let ends = turn_ends(added.iter().map(|token| token.content.as_str()));
    let known = added.iter().filter(is_special).filter(|token| ends.contains(&token.content.as_str()));
    named.chain(of_vocabulary).chain(known.map(|token| token.id)).collect()
}

/// End tokens from a GGUF's vocabulary.
pub fn of_gguf(gguf: &dyn Metadata) -> impl Iterator<Item = u32> {
    let id = |name: &str| gguf.number(&format!("tokenizer.ggml.{name}_token_id"));
    // SentencePiece's default, if the file names none.
    let usual = (gguf.string("tokenizer.ggml.model") == Some("llama")).then_some(2);
    let named = [id("eos").or(usual), id("eot"), id("eom")];
    let named = named.into_iter().flatten().filter_map(|id| u32::try_from(id).ok());
    let tokens = || gguf.strings("tokenizer.ggml.tokens").into_iter().flat_map(Iterator::enumerate);
    let ends = turn_ends(tokens().map(|(_, text)| text));
    let known = tokens().filter(move |(_, text)| ends.contains(text)).filter_map(|(id, _)| u32::try_from(id).ok());
    named.chain(known)
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// The added tokens in `tokenizer_config.json`, in its newer format.
fn listed_tokens(tokenizer_config: &Json) -> Vec<Added> {
    let listed = tokenizer_config["added_tokens_decoder"].as_object().into_iter().flatten();
    let listed = listed.filter_map(|(id, token)| {
        let special = token["special"].as_bool().unwrap_or(false);
        Some(Added { id: id.parse().ok()?, content: token["content"].as_str()?.to_owned(), special })
    });
    listed.collect()
}

/// The same, plus those in `tokenizer.json` if it is one, and the token whose text is `eos` if it is in the vocabulary.
fn added_tokens(path: &Path, mut listed: Vec<Added>, eos: Option<&str>) -> (Vec<Added>, Option<u32>) {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
        #[serde(default)]
        model: Model,
    }
    #[derive(Default, Deserialize)]
    struct Model {
        #[serde(default)]
        vocab: Json,
    }
    let file = regular::read(&path.join("tokenizer.json"), MAX_FILE_BYTES).ok();
    let file = file.and_then(|bytes| {
        let json = without_mark(&bytes);
        // A file that is no tokenizer would only fill the memory.
        check(json).ok()?;
        serde_json::from_slice::<File>(json).ok()
    });
    let Some(File { added_tokens, model: Model { vocab } }) = file else { return (listed, None) };
    listed.extend(added_tokens);
    let of_vocabulary = eos.and_then(|eos| match &vocab {
        Json::Object(ids) => ids.get(eos)?.as_u64(),
        // A list of pairs with the text first.
        Json::Array(pieces) => pieces.iter().position(|piece| piece[0] == eos).map(|id| id as u64),
        _ => None,
    });
    (listed, of_vocabulary.and_then(|id| u32::try_from(id).ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_ends_at_what_the_tokenizer_calls_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let eos = |config: Json| of_folder(folder.path(), &config);
        assert_eq!(eos(json!({ "eos_token": "</s>" })), Vec::<u32>::new(), "nobody says which token that is");
        let decoder =
            json!({ "2": { "content": "</s>", "special": true }, "7": { "content": "word", "special": false } });
        assert_eq!(eos(json!({ "eos_token": "</s>", "added_tokens_decoder": decoder })), [2]);
        let as_object = json!({ "eos_token": { "content": "</s>" }, "added_tokens_decoder": decoder });
        assert_eq!(eos(as_object), [2]);
        assert_eq!(eos(json!({ "eos_token": "word", "added_tokens_decoder": decoder })), [7]);
        assert_eq!(eos(json!({ "added_tokens_decoder": decoder })), Vec::<u32>::new(), "an ordinary word ends nothing");
    }

    #[test]
    fn the_end_of_a_turn_is_known_by_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = json!({ "added_tokens": [
            { "id": 5, "content": "<|im_start|>", "special": true },
            { "id": 6, "content": "<|im_end|>", "special": false },
            { "id": 7, "content": "</s>", "special": true },
        ] });
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        assert_eq!(of_folder(folder.path(), &json!({ "eos_token": "</s>" })), [7, 6]);
    }

    #[test]
    fn an_answer_of_gpt_oss_does_not_end_with_its_thinking() {
        let folder = tempfile::tempdir().unwrap();
        let token = |id: u32, content: &str| json!({ "id": id, "content": content, "special": true });
        let ends = |tokens: Vec<Json>| {
            let tokenizer = json!({ "added_tokens": tokens }).to_string();
            std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
            of_folder(folder.path(), &json!({}))
        };
        let phi = vec![token(1, "<|end|>"), token(2, "<|endoftext|>")];
        assert_eq!(ends(phi.clone()), [1, 2]);
        assert_eq!(ends([phi, vec![token(3, "<|return|>"), token(4, "<|call|>")]].concat()), [3, 4]);
    }

    #[test]
    fn an_end_that_is_an_ordinary_piece_of_the_vocabulary_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let decoder = json!({ "7": { "content": "<pad>", "special": true } });
        let config = json!({ "eos_token": "</s>", "added_tokens_decoder": decoder });
        for vocabulary in [json!({ "a": 0, "</s>": 2 }), json!([["a", 0.0], ["b", 0.0], ["</s>", 0.0]])] {
            let tokenizer = json!({ "added_tokens": [], "model": { "vocab": vocabulary } });
            std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
            assert_eq!(of_folder(folder.path(), &config), [2], "{vocabulary}");
            assert_eq!(of_folder(folder.path(), &json!({})), Vec::<u32>::new());
        }
    }

    #[test]
    fn what_is_beyond_the_limits_of_a_tokenizer_is_not_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let ends = |count: usize| {
            let added = json!([{ "id": 5, "content": "</s>", "special": true }]);
            let tokenizer = json!({ "added_tokens": added, "model": { "vocab": vec!["a"; count] } });
            std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
            of_folder(folder.path(), &json!({ "eos_token": "</s>" }))
        };
        assert_eq!(ends(10), [5]);
        assert_eq!(ends((1 << 20) + 1), Vec::<u32>::new());
    }
}
