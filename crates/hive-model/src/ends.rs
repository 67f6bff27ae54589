//! Which tokens end an answer, beside those that the configuration names.
//!
//! A fine-tuned model's `config.json` often keeps the end of its base model. What its conversations end with stands in the
//! tokenizer's `eos_token`, in GGUF's `eot` and `eom`, or only among the special tokens, under a name that is known.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::regular;
use crate::tokenizer::{MAX_FILE_BYTES, is_marker};
use crate::weights::Gguf;

/// What ends a turn in well-known conversations. Each of them is a special token where it is one at all.
const TURN_ENDS: [&str; 14] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot|>",
    "<EOT>",
    "[EOT]",
    "<|end_of_sentence|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
];

/// Ends that a folder's tokenizer knows of.
pub(crate) fn of_folder(path: &Path, tokenizer_config: &Json) -> Vec<u32> {
    let added = added_tokens(path, tokenizer_config);
    let eos = &tokenizer_config["eos_token"];
    let eos = eos.as_str().or_else(|| eos["content"].as_str());
    let named = added.iter().filter(|token| Some(token.content.as_str()) == eos);
    let is_special = |token: &&Added| token.special || is_marker(&token.content);
    let known = added.iter().filter(is_special).filter(|token| TURN_ENDS.contains(&token.content.as_str()));
    named.chain(known).map(|token| token.id).collect()
}

/// Ends that a GGUF's vocabulary knows of.
pub(crate) fn of_gguf(gguf: &Gguf) -> impl Iterator<Item = u32> {
    let named = ["eos", "eot", "eom"].map(|name| gguf.number(&format!("tokenizer.ggml.{name}_token_id")));
    let named = named.into_iter().flatten().filter_map(|id| u32::try_from(id).ok());
    let tokens = gguf.strings("tokenizer.ggml.tokens").into_iter().flat_map(|tokens| tokens.iter().enumerate());
    let known = tokens.filter(|(_, text)| TURN_ENDS.contains(text)).filter_map(|(id, _)| u32::try_from(id).ok());
    named.chain(known)
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// The tokens that a tokenizer adds to its vocabulary. `tokenizer_config.json` lists them where it is new enough,
/// `tokenizer.json` always.
fn added_tokens(path: &Path, tokenizer_config: &Json) -> Vec<Added> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    let listed = tokenizer_config["added_tokens_decoder"].as_object().into_iter().flatten();
    let listed = listed.filter_map(|(id, token)| {
        let special = token["special"].as_bool().unwrap_or(false);
        Some(Added { id: id.parse().ok()?, content: token["content"].as_str()?.to_owned(), special })
    });
    let added: Vec<Added> = listed.collect();
    if !added.is_empty() {
        return added;
    }
    let file = regular::read(&path.join("tokenizer.json"), MAX_FILE_BYTES).ok();
    let file = file.and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
    file.map(|file| file.added_tokens).unwrap_or_default()
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
}
