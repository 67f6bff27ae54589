//! Conversations, as far as they are not `hive-mind`'s own values.

use serde::{Deserialize, Serialize};

/// Which conversations are listed: `GET /hive/v1/conversations`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationQuery {
    /// Words of a title or a message; none is all.
    #[serde(default)]
    pub words: String,
}

/// A conversation as a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationMarkdown {
    /// What its file is called.
    pub file_name: String,
    /// Its text.
    pub markdown: String,
}

/// Another title: `POST /hive/v1/conversations/{id}/rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationTitle {
    /// The title.
    pub title: String,
}
