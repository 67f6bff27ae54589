//! What a chat template turns into a prompt.

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text, or a list of parts; null where a message only calls tools.
    #[serde(default)]
    pub content: Value,
    /// Anything else a template may look at (`tool_calls`, `name`, …), in the order it came in.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: Value::String(content.into()), more: Map::new() }
    }

    /// The text, where the content is nothing else.
    pub fn text(&self) -> Option<&str> {
        self.content.as_str()
    }
}

/// A conversation, and what else a template may be told about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The messages so far.
    pub messages: Vec<Message>,
    /// Functions that the model may call, as the `OpenAI` API describes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// What a model's template calls its options: `enable_thinking`, `reasoning_effort`, …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
    /// When it began, in local time. Templates that write a date write this one, so that a conversation keeps its
    /// prompt after midnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<DateTime>,
}

/// What a template gets under these names is not a variable's to say.
pub const RESERVED_VARIABLES: [&str; 4] = ["messages", "tools", "add_generation_prompt", "strftime_now"];

/// Why an option of a template is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// It is not `NAME=VALUE`.
    #[error("\"{0}\" is not an option of a chat template; write it as NAME=VALUE, as in enable_thinking=false")]
    Form(String),
    /// The name stands for something else.
    #[error("\"{0}\" is not an option of a chat template: HiveMind says what that is")]
    Reserved(String),
}

/// An option of a template as a person writes it, `NAME=VALUE`: a value that is JSON or one of Python's constants is
/// that, and any other is text.
pub fn variable(written: &str) -> Result<(String, Value), VariableError> {
    let (name, value) = written.split_once('=').ok_or_else(|| VariableError::Form(written.to_owned()))?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_name {
        return Err(VariableError::Form(written.to_owned()));
    }
    if RESERVED_VARIABLES.contains(&name) {
        return Err(VariableError::Reserved(name.to_owned()));
    }
    let value = match value {
        "True" => true.into(),
        "False" => false.into(),
        "None" => Value::Null,
        value => serde_json::from_str(value).unwrap_or_else(|_| value.into()),
    };
    Ok((name.to_owned(), value))
}

impl Conversation {
    /// A conversation without tools or options, at no particular time.
    pub fn new(messages: impl Into<Vec<Message>>) -> Self {
        Self { messages: messages.into(), ..Self::default() }
    }

    /// Every value that comes from outside.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        let messages = self.messages.iter().flat_map(|message| message.more.values().chain([&message.content]));
        messages.chain(&self.tools).chain(self.variables.values())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_option_is_json_a_constant_or_text() {
        for (written, name, value) in [
            ("enable_thinking=false", "enable_thinking", json!(false)),
            ("enable_thinking = False", "enable_thinking", json!(false)),
            ("reasoning_effort=high", "reasoning_effort", json!("high")),
            ("x=", "x", json!("")),
            ("budget=100", "budget", json!(100)),
            ("list=[\"a\", 1]", "list", json!(["a", 1])),
            ("equation=a=b", "equation", json!("a=b")),
            ("x=None", "x", json!(null)),
        ] {
            assert_eq!(variable(written).unwrap(), (name.to_owned(), value), "{written}");
        }
        for written in ["enable_thinking", "=x", "a b=c", ""] {
            assert!(matches!(variable(written), Err(VariableError::Form(_))), "{written}");
        }
        assert_eq!(variable("messages=[]"), Err(VariableError::Reserved("messages".to_owned())));
    }
    /// Read as a program sends it, and passed on to the process that renders.
    #[test]
    fn tools_and_calls_reach_a_template_in_the_order_they_were_written_in() {
        let parameters = r#"{"type": "object", "properties": {"z": {}, "a": {}}, "required": ["z"]}"#;
        let tools = format!(r#"[{{"type": "function", "function": {{"name": "f", "parameters": {parameters}}}}}]"#);
        let calls = r#"[{"name": "f", "arguments": {"z": 1, "a": 2}}]"#;
        let message = format!(r#"{{"role": "assistant", "content": null, "tool_calls": {calls}, "b": 1}}"#);
        let conversation = format!(r#"{{"messages": [{message}], "tools": {tools}}}"#);
        let conversation: Conversation = serde_json::from_str(&conversation).unwrap();
        let passed_on = serde_json::from_slice(&serde_json::to_vec(&conversation).unwrap()).unwrap();
        let source = "{{ tools | tojson }}{{ messages[0].tool_calls | tojson }}{% for name in messages[0] %} {{ name }}{% endfor %}";
        let template = super::super::ChatTemplate::new(source, []).unwrap();
        let expected = format!("{tools}{calls} role content tool_calls b");
        for conversation in [conversation, passed_on] {
            assert_eq!(template.render(&conversation).unwrap(), expected);
        }
    }
}
