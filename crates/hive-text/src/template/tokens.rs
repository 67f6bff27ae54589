//! Encodes a prompt: the template's text as the model was trained on it, typed text as plain text.

use std::ops::Range;

use super::marks::{is_marked, unmark};
use crate::tokenizer::special::SpecialTokens;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The tokens of a rendered text with marks.
pub(super) fn tokens(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    let special = tokenizer.special_tokens();
    let (mut tokens, mut run, mut piece, mut before) = (Vec::new(), 0, 0, None);
    // Typed text is cut out where it looks special; the rest is the template's own.
    for (range, id) in pieces(special, text) {
        let typed = &text[piece..range.start];
        if is_marked(typed) {
            tokens.extend(encode_own(tokenizer, &text[run..piece])?);
            tokens.extend(tokenizer.encode_between(before, &unmark(typed, special), id)?);
            run = range.start;
        }
        (piece, before) = (range.end, id);
    }
    tokens.extend(encode_own(tokenizer, &text[run..])?);
    if let Some(leading) = tokenizer.leading()
        && tokens.first() != Some(&leading)
    {
        tokens.insert(0, leading);
    }
    Ok(tokens)
}

/// The positions of special tokens in a text, and finally its end: each ends a piece without special tokens.
fn pieces<'a>(special: &'a SpecialTokens, text: &'a str) -> impl Iterator<Item = (Range<usize>, Option<u32>)> + 'a {
    special.find(text).map(|(range, id)| (range, Some(id))).chain([(text.len()..text.len(), None)])
}

/// Encodes a text whose only special tokens are the template's own. It is encoded in one piece, as in training, because
/// a tokenizer may look across special tokens.
fn encode_own(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let special = tokenizer.special_tokens();
    let whole = tokenizer.encode(text)?;
    let meant = special.find(text).map(|(_, id)| id);
    if whole.iter().copied().filter(|id| special.text(*id).is_some()).eq(meant) {
        return Ok(whole);
    }
    // A normalizer has created special tokens: from text that looks like one only in lower case.
    let (mut tokens, mut from, mut before) = (Vec::new(), 0, None);
    for (range, id) in pieces(special, text) {
        tokens.extend(tokenizer.encode_between(before, &text[from..range.start], id)?);
        tokens.extend(id);
        (from, before) = (range.end, id);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{ChatTemplate, Conversation, Message};

    /// Encodes letter by letter, with `▁` before the first piece of a text, like tokenizers made from SentencePiece.
    fn metaspace_first(rstrip: bool, markers_are_special: bool) -> Tokenizer {
        with_normalizer(&serde_json::Value::Null, rstrip, markers_are_special)
    }

    fn with_normalizer(normalizer: &serde_json::Value, rstrip: bool, markers_are_special: bool) -> Tokenizer {
        let is_normalized = !normalizer.is_null();
        let letters = ["▁", "u", "s", "e", "r", "x", "<", "|", ">", "i", "m", "_", "t", "a", "\n"];
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            letters.iter().enumerate().map(|(id, letter)| ((*letter).to_owned(), id.into())).collect();
        let added = |id: usize, content: &str, special: bool, rstrip: bool| {
            serde_json::json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": rstrip,
                "normalized": is_normalized, "special": special
            })
        };
        let mut begin = added(15, "<s>", true, false);
        begin["lstrip"] = rstrip.into();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "post_processor": null, "decoder": null,
            "added_tokens": [begin, added(16, "<|im_start|>", markers_are_special, rstrip)],
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
            }
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    }

    fn with_bos(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, [("bos_token".to_owned(), "<s>".to_owned())]).unwrap()
    }

    fn tokens(tokenizer: &Tokenizer, source: &str, message: &Message) -> Vec<u32> {
        with_bos(source).tokenize(tokenizer, &Conversation::new([message.clone()])).unwrap()
    }

    #[test]
    fn a_prompt_without_typed_markers_is_encoded_whole() {
        let source = "{{ bos_token }}<|im_start|>  {{ messages[0].role }}";
        let user = Message::new("user", "");
        // No `▁` after a special token, unlike at the beginning of a text; blanks are `▁`.
        assert_eq!(tokens(&metaspace_first(false, true), source, &user), [15, 16, 0, 0, 1, 2, 3, 4]);
        // A marker that takes the blanks beside it still does.
        assert_eq!(tokens(&metaspace_first(true, true), source, &user), [15, 16, 1, 2, 3, 4]);
        let behind = "{{ bos_token }}{{ messages[0].role }}  \n<s>  x";
        assert_eq!(tokens(&metaspace_first(true, true), behind, &user), [15, 1, 2, 3, 4, 15, 0, 0, 5]);
    }

    #[test]
    fn what_a_person_types_is_no_marker_whatever_the_file_calls_its_markers() {
        let source = "<|im_start|>{{ messages[0].role }}\n{{ messages[0].content }}{{ messages[0].name }}";
        for markers_are_special in [true, false] {
            let tokenizer = metaspace_first(false, markers_are_special);
            let mut message = Message::new("user<|im_start|>", "x<|im_start|>x<s>");
            message.more.insert("name".to_owned(), "<|im_start|>".into());
            let found = tokens(&tokenizer, source, &message);
            assert_eq!(found.iter().filter(|token| **token >= 15).collect::<Vec<_>>(), [&16], "{found:?}");
        }
    }

    #[test]
    fn a_typed_marker_changes_no_token_before_it() {
        let source = "{{ bos_token }}{% for m in messages %}<|im_start|>  {{ m.role }}{{ m.content }}{% endfor %}";
        let tokenizer = metaspace_first(true, true);
        let template = with_bos(source);
        let tokens = |typed: &str| {
            let messages = [Message::new("user", "x"), Message::new("user", typed)];
            template.tokenize(&tokenizer, &Conversation::new(messages)).unwrap()
        };
        let (plain, typed) = (tokens("x"), tokens("<|im_start|>"));
        let first = 1 + 1 + "userx".len();
        assert_eq!(plain[..first], [15, 16, 1, 2, 3, 4, 5]);
        assert_eq!(typed[..first], plain[..first]);
        // Text around it is encoded as it would be without it: no `▁` at its beginning, and no blanks beside a greedy
        // marker.
        let letters = ["<", "|", "i", "m", "_", "s", "t", "a", "r", "t", "|", ">"];
        let spelled: Vec<u32> = letters.iter().map(|letter| tokenizer.encode_literal(letter).unwrap()[1]).collect();
        assert_eq!(typed[first..], [&[16, 1, 2, 3, 4][..], &spelled].concat());
        let (behind, message) =
            ("{{ bos_token }}{{ messages[0].content }}\n<s>", Message::new("user", "x<|im_start|>"));
        let typed = with_bos(behind).tokenize(&tokenizer, &Conversation::new([message])).unwrap();
        assert_eq!(typed, [&[15, 5][..], &spelled, &[15]].concat());
    }

    #[test]
    fn text_that_becomes_a_marker_in_small_letters_stays_text() {
        let tokenizer = with_normalizer(&serde_json::json!({ "type": "Lowercase" }), true, true);
        let found =
            tokens(&tokenizer, "<|im_start|>{{ messages[0].content }}", &Message::new("user", "x<|IM_START|>x"));
        assert_eq!(found.iter().filter(|token| **token >= 15).collect::<Vec<_>>(), [&16], "{found:?}");
    }
}
