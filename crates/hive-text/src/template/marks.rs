//! Keeps text of a person or a tool as text, whatever it looks like.
//!
//! Before a template sees a text, everything that looks like a special token is replaced by the token's number between
//! two private-use characters; afterwards it is restored. So all special tokens in the rendered text are the template's
//! own.

use std::fmt::Write as _;

use serde_json::Value;

use super::conversation::{Conversation, Message};
use crate::tokenizer::special::SpecialTokens;

/// Characters that nobody types, placed around the number of a special token found in a message.
const OPEN: char = '\u{10FFF0}';
const CLOSE: char = '\u{10FFF1}';

/// Whether a rendered text contains a mark.
pub(super) fn is_marked(text: &str) -> bool {
    text.contains(OPEN)
}

/// Marks everything in the conversation that looks special.
pub(super) fn mark_conversation(conversation: &Conversation, special: &SpecialTokens) -> Conversation {
    Conversation {
        messages: conversation.messages.iter().map(|message| mark_message(message, special)).collect(),
        tools: conversation.tools.as_ref().map(|tools| mark_json(tools, special)),
        variables: mark_entries(&conversation.variables, special),
        began: conversation.began,
    }
}

fn mark_message(message: &Message, special: &SpecialTokens) -> Message {
    Message {
        role: mark(&message.role, special),
        content: mark_json(&message.content, special),
        more: mark_entries(&message.more, special),
    }
}

fn mark_entries(entries: &serde_json::Map<String, Value>, special: &SpecialTokens) -> serde_json::Map<String, Value> {
    entries.iter().map(|(key, value)| (mark(key, special), mark_json(value, special))).collect()
}

fn mark_json(value: &Value, special: &SpecialTokens) -> Value {
    match value {
        Value::String(text) => mark(text, special).into(),
        Value::Array(items) => items.iter().map(|item| mark_json(item, special)).collect(),
        Value::Object(entries) => mark_entries(entries, special).into(),
        other => other.clone(),
    }
}

/// Replaces what looks like a special token by its number between two marks.
pub(super) fn mark(text: &str, special: &SpecialTokens) -> String {
    // Mark characters in a message are removed.
    let text = text.replace([OPEN, CLOSE], "");
    let (mut marked, mut from) = (String::with_capacity(text.len()), 0);
    for (range, id) in special.find(&text) {
        marked.push_str(&text[from..range.start]);
        let _ = write!(marked, "{OPEN}{id}{CLOSE}");
        from = range.end;
    }
    marked.push_str(&text[from..]);
    marked
}

/// Restores the original text.
pub(super) fn unmark(text: &str, special: &SpecialTokens) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        out.push_str(before);
        let Some((number, after)) = after.split_once(CLOSE) else {
            rest = after;
            continue;
        };
        match number.parse().ok().and_then(|id| special.text(id)) {
            Some(token) => out.push_str(token),
            None => out.push_str(number),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_special_in_a_message_comes_back_as_it_was() {
        let special = SpecialTokens::new(vec![("<|end|>".to_owned(), 1), ("<s>".to_owned(), 2)]).unwrap();
        for text in ["plain", "<|end|>", "a<s>b<|end|><|end|>", "\u{10FFF0}0\u{10FFF1}", "\u{10FFF0}"] {
            let clean = text.replace([OPEN, CLOSE], "");
            let marked = mark(text, &special);
            assert!(!marked.contains("<|end|>") && !marked.contains("<s>"));
            assert_eq!(unmark(&marked, &special), clean);
        }
    }
}
