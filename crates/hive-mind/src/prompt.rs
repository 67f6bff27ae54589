//! Prompts: texts under a name, and those that come with HiveMind.

use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};

/// A text under a name. `{{words}}` in it are fields, which a window asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Prompt {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Whether it came with HiveMind and was never changed; windows show it in their own language.
    pub starter: bool,
}

/// The prompts that come with HiveMind: ID, name and text.
const STARTERS: [[&str; 3]; 4] = [
    [
        "summarise",
        "Summarise",
        "Summarise the following text in a few sentences, then list its main points:\n\n{{text}}",
    ],
    ["explain", "Explain simply", "Explain {{subject}} in simple words, with an example from everyday life."],
    [
        "review",
        "Review this code",
        "Review this code. Name mistakes first, then what could be simpler. Show each change as code:\n\n{{code}}",
    ],
    ["translate", "Translate", "Translate the following text into {{language}}. Keep its tone:\n\n{{text}}"],
];

/// Writes a prompt, in place of one with the same ID.
pub(crate) fn put(transaction: &Transaction<'_>, Prompt { id, name, text, starter }: &Prompt) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO prompt (id, name, text, starter) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![id, name, text, starter]).map(|_| ())
}

/// Adds the prompts that come with HiveMind. Once, so that deleted ones stay away.
pub(crate) fn begin(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for [id, name, text] in STARTERS.map(|starter| starter.map(str::to_owned)) {
        put(transaction, &Prompt { id, name, text, starter: true })?;
    }
    Ok(())
}
