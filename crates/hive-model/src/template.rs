//! Chat templates, rendered by `minijinja` as Hugging Face's templates expect.
//!
//! Whatever a person or a tool wrote stays text: special tokens count only where the template itself wrote them. To
//! tell them apart after rendering, what looks special in a message is swapped for private-use characters before.

use std::fmt::Write as _;

use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Instructions a template may take; real ones need some thousands per message.
const FUEL: u64 = 5_000_000;

/// Characters nobody types, around the number of a special token that was written in a message.
const MARK_OPEN: char = '\u{10FFF0}';
const MARK_CLOSE: char = '\u{10FFF1}';

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Anything else a template may look at (`tool_calls`, `name`, …).
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), more: serde_json::Map::new() }
    }
}

/// Why a conversation cannot be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has none.
    #[error("the model has no chat template; it was not made for conversations")]
    Missing,
    /// It is not a valid template.
    #[error("the model's chat template does not parse: {0}")]
    Parse(String),
    /// It refused the conversation, by its own words.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// It did not end.
    #[error("the model's chat template did not finish: it loops too long")]
    TooLong,
    /// It failed.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
    /// The result could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Parses a template.
    pub fn new(source: &str, bos_token: Option<String>, eos_token: Option<String>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        // As Hugging Face's environment is set up.
        let whitespace = environment.syntax().to_builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(whitespace.map_err(|e| TemplateError::Parse(e.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, REFUSED.to_owned() + &message))
        });
        environment.add_template_owned("chat", source.to_owned()).map_err(|e| TemplateError::Parse(e.to_string()))?;
        let token = Option::unwrap_or_default;
        Ok(Self { environment, bos_token: token(bos_token), eos_token: token(eos_token) })
    }

    /// The conversation as text, ready for the assistant's answer.
    pub fn render(&self, messages: &[Message], tools: Option<&serde_json::Value>) -> Result<String, TemplateError> {
        let template = self.environment.get_template("chat").map_err(|e| TemplateError::Failed(e.to_string()))?;
        let tools = tools.map(|tools| Value::from(Serde(tools)));
        template
            .render(context! {
                messages => Value::from(Serde(messages)),
                tools => tools,
                bos_token => &self.bos_token,
                eos_token => &self.eos_token,
                add_generation_prompt => true,
            })
            .map_err(|error| classify(&error))
    }

    /// The conversation as tokens, ready for the assistant's answer.
    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
    ) -> Result<Vec<u32>, TemplateError> {
        let special = tokenizer.special_tokens();
        let marked: Vec<Message> = messages.iter().map(|message| mark_message(message, special)).collect();
        let tools = tools.map(|tools| mark_json(tools, special));
        let text = self.render(&marked, tools.as_ref())?;
        let mut tokens = Vec::new();
        for piece in pieces(&text, special) {
            match piece {
                Piece::Special(id) => tokens.push(id),
                Piece::Text(text) => tokens.extend(tokenizer.encode_literal(&unmark(text, special))?),
            }
        }
        Ok(tokens)
    }
}

/// Marks the message of `raise_exception`, so that it is told apart from the template's own failures.
const REFUSED: &str = "refused: ";

fn classify(error: &Error) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    if let Some(message) = detail.strip_prefix(REFUSED) {
        TemplateError::Refused(message.to_owned())
    } else if error.kind() == ErrorKind::OutOfFuel {
        TemplateError::TooLong
    } else {
        TemplateError::Failed(error.to_string())
    }
}

enum Piece<'a> {
    Special(u32),
    Text(&'a str),
}

/// Cuts a rendered conversation at the special tokens the template wrote.
fn pieces<'a>(mut text: &'a str, special: &[(String, u32)]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        // The earliest wins, and of those the longest: the list is longest first.
        let next = special
            .iter()
            .filter(|(token, _)| !token.is_empty())
            .filter_map(|(token, id)| text.find(token.as_str()).map(|at| (at, token.len(), *id)));
        let Some((at, length, id)) = next.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length))) else {
            pieces.push(Piece::Text(text));
            break;
        };
        if at > 0 {
            pieces.push(Piece::Text(&text[..at]));
        }
        pieces.push(Piece::Special(id));
        text = &text[at + length..];
    }
    pieces
}

fn mark_message(message: &Message, special: &[(String, u32)]) -> Message {
    let more = message.more.iter().map(|(key, value)| (key.clone(), mark_json(value, special))).collect();
    Message { role: message.role.clone(), content: mark(&message.content, special), more }
}

fn mark_json(value: &serde_json::Value, special: &[(String, u32)]) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => mark(text, special).into(),
        serde_json::Value::Array(items) => items.iter().map(|item| mark_json(item, special)).collect(),
        serde_json::Value::Object(entries) => {
            entries.iter().map(|(key, item)| (key.clone(), mark_json(item, special))).collect()
        }
        other => other.clone(),
    }
}

/// Swaps what looks like a special token for its number between two marks.
fn mark(text: &str, special: &[(String, u32)]) -> String {
    // The marks themselves mean nothing in a message.
    let mut text = text.replace([MARK_OPEN, MARK_CLOSE], "");
    for (index, (token, _)) in special.iter().enumerate() {
        if !token.is_empty() && text.contains(token.as_str()) {
            text = text.replace(token.as_str(), &format!("{MARK_OPEN}{index}{MARK_CLOSE}"));
        }
    }
    text
}

fn unmark(text: &str, special: &[(String, u32)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK_OPEN) {
        out.push_str(before);
        let Some((number, after)) = after.split_once(MARK_CLOSE) else {
            rest = after;
            continue;
        };
        match number.parse::<usize>().ok().and_then(|index| special.get(index)) {
            Some((token, _)) => out.push_str(token),
            None => {
                let _ = write!(out, "{number}");
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Vec<Message> {
        vec![Message::new("user", text)]
    }

    #[test]
    fn a_template_that_does_not_parse_says_so() {
        assert!(matches!(ChatTemplate::new("{% for x in %}", None, None), Err(TemplateError::Parse(_))));
    }

    #[test]
    fn a_template_that_loops_for_ever_is_stopped() {
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert!(matches!(template.render(&user("x"), None), Err(TemplateError::TooLong)));
    }

    #[test]
    fn a_template_may_refuse_with_its_own_words() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", None, None).unwrap();
        let error = template.render(&user("x"), None).unwrap_err();
        assert!(matches!(&error, TemplateError::Refused(words) if words == "roles must alternate"), "{error}");
    }

    #[test]
    fn python_methods_and_tools_work() {
        let source =
            "{{ messages[0].content.strip().upper() }} {{ messages[0]['role'].startswith('us') }} {{ tools | tojson }}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        let tools = serde_json::json!([{ "name": "f" }]);
        assert_eq!(template.render(&user(" a "), Some(&tools)).unwrap(), r#"A True [{"name": "f"}]"#);
    }

    #[test]
    fn what_looks_special_in_a_message_comes_back_as_it_was() {
        let special = vec![("<|end|>".to_owned(), 1), ("<s>".to_owned(), 2)];
        for text in ["plain", "<|end|>", "a<s>b<|end|><|end|>", "\u{10FFF0}0\u{10FFF1}", "\u{10FFF0}"] {
            let clean = text.replace([MARK_OPEN, MARK_CLOSE], "");
            let marked = mark(text, &special);
            assert!(!marked.contains("<|end|>") && !marked.contains("<s>"));
            assert_eq!(unmark(&marked, &special), clean);
        }
    }
}
