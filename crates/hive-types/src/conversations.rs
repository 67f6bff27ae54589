//! Requests and replies about conversations that `hive-mind` has no types for.

use serde::{Deserialize, Serialize};

/// Filter for a list of conversations: `GET /hive/v1/conversations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationQuery {
    /// Words in a title or a message; empty matches all.
    #[serde(default)]
    pub words: String,
}

/// A conversation as a Markdown document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationMarkdown {
    /// Suggested file name.
    pub file_name: String,
    /// The document.
    pub markdown: String,
}

/// A new title: `POST /hive/v1/conversations/{id}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationTitle {
    /// The title.
    pub title: String,
}

/// A new conversation: `POST /hive/v1/conversations`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewConversation {
    /// Whether it is new in any case; by default, one that has no message yet is continued.
    #[serde(default)]
    pub fresh: bool,
}

/// A question: `POST /hive/v1/conversations/{id}/ask`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskInConversation {
    /// The question.
    pub text: String,
    /// The message of which it is another version; by default it follows the last message shown.
    #[serde(default)]
    pub edited: Option<String>,
}

/// A message of a conversation, for `again` and `choose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationMessage {
    /// Its ID.
    pub message: String,
}

/// Text typed but not sent: `POST /hive/v1/conversations/{id}/draft`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationDraft {
    /// The text.
    pub draft: String,
    /// The question that it changes; by default it is the next question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A system prompt: `POST /hive/v1/conversations/{id}/instructions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationInstructions {
    /// The prompt.
    pub instructions: String,
}

/// A switch: `POST /hive/v1/conversations/{id}/pin` and `archive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationSwitch {
    /// Whether it is on.
    pub on: bool,
}
