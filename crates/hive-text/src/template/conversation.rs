//! The input of a chat template.

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text, or a list of parts; null if a message only calls tools.
    #[serde(default)]
    pub content: Value,
    /// Other fields that a template may use (`tool_calls`, `name`, …), in their original order.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A text message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: Value::String(content.into()), more: Map::new() }
    }

    /// The text, if the content is just text.
    pub fn text(&self) -> Option<&str> {
        self.content.as_str()
    }
}

/// A conversation, and everything else that a template may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The messages so far.
    pub messages: Vec<Message>,
    /// Functions that the model may call, in the form of the `OpenAI` API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// The template's options by name: `enable_thinking`, `reasoning_effort`, …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Value>,
    /// When it began, in local time. Templates that state the date state this one, so that a conversation keeps its
    /// prompt after midnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<DateTime>,
}

/// Names that are not options, because a template gets other values under them.
pub const RESERVED_VARIABLES: [&str; 4] = ["messages", "tools", "add_generation_prompt", "strftime_now"];

/// Why an option is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// It is not `NAME=VALUE`.
    #[error("\"{0}\" is not an option of a chat template; write it as NAME=VALUE, as in enable_thinking=false")]
    Form(String),
    /// The name is reserved.
    #[error("\"{0}\" is not an option of a chat template: HiveMind sets it itself")]
    Reserved(String),
}

/// Parses an option as a person writes it, `NAME=VALUE`. A value that is JSON or a Python constant is parsed; any other
/// is text.
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
    /// A conversation without tools, options or time.
    pub fn new(messages: impl Into<Vec<Message>>) -> Self {
        Self { messages: messages.into(), ..Self::default() }
    }

    /// Every value from outside.
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
    /// Parsed from a program's request, and passed on to the process that renders.
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
