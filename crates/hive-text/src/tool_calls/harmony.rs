//! Calls of gpt-oss: messages to `functions.NAME`, with JSON as their text.

use super::call::Call;
use super::json;

pub(super) fn call(message: &str) -> Option<Call> {
    let (header, text) = message.split_once("<|message|>")?;
    let (_, recipient) = header.split_once("to=functions.")?;
    let name = recipient.split(|c: char| c.is_whitespace() || c == '<').next().filter(|name| !name.is_empty())?;
    let text = text.strip_suffix("<|call|>").unwrap_or(text);
    Some(Call { name: name.to_owned(), arguments: json::object(text)? })
}
