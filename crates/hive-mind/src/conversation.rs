//! A conversation: its messages with their branches, its settings, and how it appears in a list.

use hive_types::{Trouble, if_known};
use serde::{Deserialize, Serialize};

/// A conversation's entry in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Entry {
    /// Its ID.
    pub id: String,
    /// Its title.
    pub title: String,
    /// When it last changed, in seconds since 1970.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub updated_s: f64,
    /// The passage that matched the search, or the start of the last message.
    #[serde(default)]
    pub snippet: String,
    /// The message that matched the search.
    #[serde(default)]
    pub found: Option<String>,
    /// Whether it stays at the top of the list.
    #[serde(default)]
    pub pinned: bool,
    /// Whether it is kept out of the list.
    #[serde(default)]
    pub archived: bool,
    /// Whether an answer is in progress.
    #[serde(default)]
    pub answering: bool,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The owner.
    #[default]
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in chat templates and on disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Message {
    /// Its ID.
    pub id: String,
    /// Who wrote it.
    pub role: Role,
    /// Its text.
    pub text: String,
    /// An answer's tokens, from which an interrupted answer is resumed.
    pub tokens: Vec<u32>,
    /// An answer's sampling seed, so that a resumed answer continues exactly as it would have.
    pub seed: u32,
    /// Whether it is complete; a stopped or interrupted answer can be resumed.
    pub complete: bool,
    /// How an answer was computed, in words.
    pub note: Option<String>,
    /// How an answer was computed; none for messages of older versions.
    pub computed: Option<Computed>,
    /// What its owner is changing a question to, and has not sent yet.
    pub edit: Option<String>,
    /// All versions of this message, oldest first, this one among them: an edited question or another answer is a branch.
    pub branches: Vec<String>,
}

/// How an answer was computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Computed {
    /// Speed after the first token, in tokens per second; none if it was stopped or interrupted.
    #[cfg_attr(feature = "specta", specta(type = Option<i32>))]
    pub tokens_per_s: Option<f64>,
    /// Time to first token, in seconds.
    #[cfg_attr(feature = "specta", specta(type = Option<i32>))]
    pub first_s: Option<f64>,
    /// Tokens of the conversation up to its end.
    pub context_tokens: Option<u32>,
    /// Tokens that the model can read.
    pub context_limit: Option<u32>,
    /// Which machines computed which part of it, in order.
    pub parts: Vec<Part>,
    /// Options that the model's chat template does not use.
    pub unknown_options: Vec<String>,
}

/// A part of an answer that one set of machines computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Part {
    /// The number of its tokens.
    pub tokens: u32,
    /// The machines, in the order of their layers.
    pub machines: Vec<String>,
    /// Why the part before it ended, such as a machine that left; none for the first.
    pub after: Option<Interruption>,
}

/// What interrupted the computation of an answer, without a loss of words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Interruption {
    /// What happened, in words.
    pub why: String,
    /// The same, as a value; none if an older version wrote it.
    #[cfg_attr(feature = "specta", specta(type = Option<Trouble>))]
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// How long no token came, in seconds.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub pause_s: f64,
}

/// A conversation's settings for sampling and for the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Choices {
    /// The model; none selects the default.
    pub model: Option<String>,
    /// Sampling temperature; 0 is greedy.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub temperature: f32,
    /// Nucleus sampling: the share of probability to sample from.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub top_p: f32,
    /// Maximum length of an answer, in tokens.
    pub max_tokens: Option<u32>,
    /// Options of the model's chat template, each as `NAME=VALUE`.
    pub options: Vec<String>,
}

impl Default for Choices {
    fn default() -> Self {
        Self { model: None, temperature: 0.3, top_p: 0.95, max_tokens: None, options: Vec::new() }
    }
}

/// A conversation, as its owner sees it now: the messages of the chosen branch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Conversation {
    /// Its ID.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its system prompt.
    pub system: String,
    /// Text typed but not yet sent.
    pub draft: String,
    /// Model and sampling.
    pub choices: Choices,
    /// The messages of the chosen branch, oldest first.
    pub messages: Vec<Message>,
    /// When it last changed, in seconds since 1970.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub updated_s: f64,
    /// When it began, in seconds since 1970; unknown for conversations of older versions.
    #[cfg_attr(feature = "specta", specta(type = Option<i32>))]
    pub began_s: Option<f64>,
    /// Whether it stays at the top of the list.
    pub pinned: bool,
    /// Whether it is kept out of the list.
    pub archived: bool,
}
