//! The database's tables, and how a file of an older version is brought up to date.

use rusqlite::{Connection, Transaction};
use serde::Deserialize;

use crate::conversation::{Conversation, Message, Role};
use crate::{prompt, rows};

/// The version of the tables written here.
pub(crate) const VERSION: i64 = 4;

/// Conversations and their messages, since version 2.
const CONVERSATIONS: &str = "CREATE TABLE conversation (
         id TEXT PRIMARY KEY, title TEXT NOT NULL DEFAULT '', system TEXT NOT NULL DEFAULT '',
         draft TEXT NOT NULL DEFAULT '', choices TEXT NOT NULL, leaf TEXT, began_s REAL, updated_s REAL NOT NULL,
         pinned INTEGER NOT NULL DEFAULT 0, archived INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     CREATE INDEX by_time ON conversation (updated_s DESC);
     CREATE TABLE message (
         number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
         conversation TEXT NOT NULL REFERENCES conversation (id) ON DELETE CASCADE, parent TEXT,
         role TEXT NOT NULL, text TEXT NOT NULL, tokens BLOB NOT NULL, seed INTEGER NOT NULL,
         complete INTEGER NOT NULL, note TEXT, computed TEXT
     ) STRICT;
     CREATE INDEX by_conversation ON message (conversation, number);
     CREATE INDEX by_parent ON message (parent);";

/// Presets, prompts and settings, and whether a title is more than the start of the question, since version 3.
const SHELF: &str = "ALTER TABLE conversation ADD COLUMN named INTEGER NOT NULL DEFAULT 0;
     UPDATE conversation SET named = title <> '';
     CREATE TABLE preset (
         id TEXT PRIMARY KEY, name TEXT NOT NULL, system TEXT NOT NULL, choices TEXT NOT NULL, for_new INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE prompt (id TEXT PRIMARY KEY, name TEXT NOT NULL, text TEXT NOT NULL, starter INTEGER NOT NULL) STRICT;
     CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;";

/// Edited questions that are not sent yet, since version 4.
const EDITS: &str = "ALTER TABLE message ADD COLUMN edit TEXT";

/// The version that a file has; 0 for a new one.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Creates the tables, or brings those of an older version up to date, in one transaction.
pub(crate) fn update(connection: &mut Connection) -> rusqlite::Result<()> {
    let before = version(connection)?;
    if before == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    if before == 1 {
        transaction.execute_batch("DROP INDEX by_time; ALTER TABLE conversation RENAME TO old")?;
    }
    if before < 2 {
        transaction.execute_batch(CONVERSATIONS)?;
    }
    if before < 3 {
        transaction.execute_batch(SHELF)?;
        prompt::begin(&transaction)?;
    }
    transaction.execute_batch(EDITS)?;
    if before == 1 {
        take_over(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// A message of version 1.
#[derive(Deserialize)]
struct OldMessage {
    role: String,
    text: String,
    #[serde(default)]
    tokens: Vec<u32>,
    #[serde(default)]
    seed: u32,
    #[serde(default)]
    note: Option<String>,
    complete: bool,
}

/// A conversation of version 1, which was one JSON document.
#[derive(Deserialize)]
struct OldConversation {
    id: String,
    title: String,
    #[serde(default)]
    system: String,
    #[serde(default)]
    draft: String,
    messages: Vec<OldMessage>,
    updated_s: f64,
    #[serde(default)]
    began_s: Option<f64>,
}

/// Takes the conversations of version 1 over. One that cannot be read keeps its text: as a conversation with one message.
fn take_over(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let bodies: Vec<(String, String, f64, String)> = {
        let mut query = transaction.prepare("SELECT id, title, updated_s, body FROM old ORDER BY updated_s")?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        query.query_map([], row)?.collect::<rusqlite::Result<_>>()?
    };
    for (id, title, updated_s, body) in bodies {
        let unreadable = |_| {
            let message = Message { role: Role::User, text: body.clone(), complete: true, ..Message::default() };
            Conversation { id, title, updated_s, messages: vec![message], ..Conversation::default() }
        };
        let conversation = serde_json::from_str(&body).map_or_else(unreadable, renewed);
        rows::import(transaction, &conversation)?;
    }
    transaction.execute_batch("DROP TABLE old")
}

fn renewed(old: OldConversation) -> Conversation {
    let OldConversation { id, title, system, draft, messages, updated_s, began_s } = old;
    let message = |OldMessage { role, text, tokens, seed, note, complete }| {
        let role = if role == Role::User.name() { Role::User } else { Role::Assistant };
        Message { role, text, tokens, seed, complete, note, ..Message::default() }
    };
    let messages = messages.into_iter().map(message).collect();
    Conversation { id, title, system, draft, messages, updated_s, began_s, ..Conversation::default() }
}
