//! Messages and conversations as rows of the database.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::conversation::{Choices, Conversation, Message};

/// A new ID: 128 random bits as hex.
pub(crate) fn new_id() -> String {
    let mut bytes = [0; 16];
    #[allow(clippy::expect_used, reason = "without the system's random numbers, the node has no keys either")]
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Seconds since 1970.
pub(crate) fn now_s() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

pub(crate) fn new_message() -> Message {
    Message { id: new_id(), ..Message::default() }
}

/// Adds a message after `parent`.
pub(crate) fn add(
    transaction: &Transaction<'_>,
    id: &str,
    parent: Option<&str>,
    message: &Message,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO message (id, conversation, parent, role, text, tokens, seed, complete, note, computed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            message.id,
            id,
            parent,
            message.role.name(),
            message.text,
            bytes(&message.tokens),
            message.seed,
            message.complete,
            message.note,
            message.computed.as_ref().map(json).transpose()?
        ],
    )?;
    Ok(())
}

/// Writes a conversation with one branch; messages without an ID get one.
pub(crate) fn import(transaction: &Transaction<'_>, conversation: &Conversation) -> rusqlite::Result<()> {
    let Conversation { id, title, system, draft, choices, messages, updated_s, began_s, pinned, archived } =
        conversation;
    transaction.execute("DELETE FROM conversation WHERE id = ?1", [id])?;
    transaction.execute(
        "INSERT INTO conversation (id, title, system, draft, choices, updated_s, began_s, pinned, archived, named)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![id, title, system, draft, json(choices)?, updated_s, began_s, pinned, archived, !title.is_empty()],
    )?;
    let mut parent: Option<String> = None;
    for message in messages {
        let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE id = ?1)";
        let taken: bool = transaction.query_row(sql, [&message.id], |row| row.get(0))?;
        let own = if taken || message.id.is_empty() { new_id() } else { message.id.clone() };
        let message = Message { id: own, ..message.clone() };
        add(transaction, id, parent.as_deref(), &message)?;
        parent = Some(message.id);
    }
    transaction.execute("UPDATE conversation SET leaf = ?2 WHERE id = ?1", params![id, parent]).map(|_| ())
}

pub(crate) fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

pub(crate) fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// The instructions and choices of a new chat, as they are written.
pub(crate) fn for_new(transaction: &Transaction<'_>) -> rusqlite::Result<(String, String)> {
    let sql = "SELECT system, choices FROM preset WHERE for_new";
    let chosen = transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    chosen.map_or_else(|| Ok((String::new(), json(&Choices::default())?)), Ok)
}
