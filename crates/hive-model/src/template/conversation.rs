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
    /// When it began, in local time. Templates that write a date write this one, so that a conversation keeps its prompt
    /// after midnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<DateTime>,
}

/// What a template gets under these names is not a variable's to say.
pub const RESERVED_VARIABLES: [&str; 4] = ["messages", "tools", "add_generation_prompt", "strftime_now"];

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
