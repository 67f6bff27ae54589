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
