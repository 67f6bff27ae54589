//! Stores conversations on this machine, in one `SQLite` file.
//!
//! Each change is a write of its own, so that none undoes another, and is on the disk when it returns: neither `kill -9`
//! nor a power cut loses it. Deleted conversations stay until the next start, so that deleting can be undone.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::branches::{Branches, Place};
use crate::conversation::{Choices, Computed, Conversation, Entry, Message, Role};
use crate::layout;
use crate::rows::{add, bytes, for_new, import, json, new_id, new_message, now_s};

/// File name in the data folder.
pub const FILE: &str = "conversations.sqlite";

/// Maximum number of conversations in a list.
const LISTED: u32 = 2000;

/// Length of a passage in a list, in characters.
const SNIPPET: usize = 160;

/// How much of a passage comes before the words that were searched, in characters.
const SNIPPET_LEAD: usize = 40;

/// Why conversations cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the conversations in {path} cannot be used: {error}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// `SQLite`'s error.
        error: rusqlite::Error,
    },
    /// The file could not be created.
    #[error("cannot write {path}: {error}")]
    Folder {
        /// The database file.
        path: PathBuf,
        /// The operating system's error.
        error: std::io::Error,
    },
    /// A newer version wrote the file.
    #[error("{path} was written by a newer HiveMind; update this one, or move the file away")]
    Newer {
        /// The database file.
        path: PathBuf,
    },
    /// There is no such conversation.
    #[error("there is no conversation \"{0}\"")]
    NoConversation(String),
    /// There is no such message in the conversation.
    #[error("there is no message \"{0}\" in this conversation")]
    NoMessage(String),
}

/// The conversations stored in a data folder.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens a folder's conversations; creates the file if there is none, and brings one of an older version up to date.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.exists() {
            // Created before `SQLite` opens it, so that it is private from the start.
            hive_host::folders::write_private(&path, b"")
                .map_err(|error| StoreError::Folder { path: path.clone(), error })?;
        }
        let fail = |error| StoreError::Database { path: path.clone(), error };
        let mut connection = Connection::open(&path).map_err(fail)?;
        // Before anything is read. Locked by this process, the log needs no index in a file of its own, for which a full disk
        // has no room.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(fail)?;
        if layout::version(&connection).map_err(fail)? > layout::VERSION {
            return Err(StoreError::Newer { path });
        }
        let prepare = |connection: &mut Connection| -> rusqlite::Result<()> {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA secure_delete = ON;",
            )?;
            let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
            // `SQLite`'s own lower() knows ASCII only.
            connection
                .create_scalar_function("folded", 1, flags, |context| Ok(context.get::<String>(0)?.to_lowercase()))?;
            connection.create_scalar_function("holds", 2, flags, |context| {
                let (text, words): (String, String) = (context.get(0)?, context.get(1)?);
                let text = text.to_lowercase();
                Ok(words.split_whitespace().all(|word| text.contains(word)))
            })?;
            layout::update(connection)?;
            clean(connection)
        };
        prepare(&mut connection).map_err(fail)?;
        Ok(Self { connection: Mutex::new(connection), path })
    }

    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failed(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), error }
    }

    /// Runs `change` in a transaction of its own.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let changed = || -> rusqlite::Result<T> {
            let transaction = connection.transaction()?;
            let made = change(&transaction)?;
            transaction.commit()?;
            Ok(made)
        };
        changed().map_err(|error| self.failed(error))
    }

    /// See [`Chats::list`](crate::Chats::list).
    pub(crate) fn list(&self, words: &str) -> Result<Vec<Entry>> {
        let words = words.trim().to_lowercase();
        let connection = self.connection();
        let listed = || -> rusqlite::Result<Vec<Entry>> {
            let mut query = connection.prepare_cached(
                "WITH found AS (
                     SELECT id, title, updated_s, pinned, archived, leaf,
                         (SELECT max(number) FROM message
                          WHERE ?1 <> '' AND conversation = conversation.id AND holds(text, ?1)) AS hit
                     FROM conversation
                     WHERE NOT deleted AND EXISTS (SELECT 1 FROM message WHERE conversation = conversation.id)
                 )
                 SELECT found.id, title, updated_s, pinned, archived, hit IS NOT NULL, message.id, message.text
                 FROM found LEFT JOIN message ON message.number = coalesce(hit,
                     (SELECT number FROM message WHERE message.id = leaf),
                     (SELECT max(number) FROM message WHERE conversation = found.id))
                 WHERE ?1 = '' OR hit IS NOT NULL OR holds(title, ?1)
                 ORDER BY pinned DESC, updated_s DESC LIMIT ?2",
            )?;
            let entry = |row: &Row<'_>| {
                let (is_hit, message, text): (bool, Option<String>, Option<String>) =
                    (row.get(5)?, row.get(6)?, row.get(7)?);
                Ok(Entry {
                    id: row.get(0)?,
                    title: row.get(1)?,
                    updated_s: row.get(2)?,
                    pinned: row.get(3)?,
                    archived: row.get(4)?,
                    snippet: snippet(&text.unwrap_or_default(), &words),
                    found: message.filter(|_| is_hit),
                    answering: false,
                })
            };
            query.query_map(params![words, LISTED], entry)?.collect()
        };
        listed().map_err(|error| self.failed(error))
    }

    /// Reads a conversation, if it exists.
    pub(crate) fn get(&self, id: &str) -> Result<Option<Conversation>> {
        let connection = self.connection();
        read(&connection, id).map_err(|error| self.failed(error))
    }

    /// The conversation that was begun and has no message yet, with its draft; a new one if there is none.
    pub(crate) fn begin(&self) -> Result<Conversation> {
        let begun = self.change(|transaction| {
            let unsent = "SELECT id FROM conversation WHERE NOT deleted
                          AND NOT EXISTS (SELECT 1 FROM message WHERE conversation = conversation.id)
                          ORDER BY began_s DESC LIMIT 1";
            let found: Option<String> = transaction.query_row(unsent, [], |row| row.get(0)).optional()?;
            let id = found.map_or_else(|| create(transaction), Ok)?;
            // Begun now, and not when its draft was written.
            transaction.execute("UPDATE conversation SET began_s = ?2 WHERE id = ?1", params![id, now_s()])?;
            read(transaction, &id)
        })?;
        begun.ok_or_else(|| StoreError::NoConversation(String::new()))
    }

    /// A new conversation, whatever else was begun.
    pub(crate) fn create(&self) -> Result<Conversation> {
        let created = self.change(|transaction| read(transaction, &create(transaction)?))?;
        created.ok_or_else(|| StoreError::NoConversation(String::new()))
    }

    /// Sets one column of a conversation.
    fn set(&self, id: &str, update: &'static str, value: impl rusqlite::ToSql) -> Result<()> {
        let sql = format!("UPDATE conversation SET {update} WHERE id = ?1 AND NOT deleted");
        let changed = self.change(|transaction| transaction.execute(&sql, params![id, value]))?;
        if changed == 0 { Err(StoreError::NoConversation(id.to_owned())) } else { Ok(()) }
    }

    /// Renames a conversation.
    pub(crate) fn rename(&self, id: &str, title: &str) -> Result<()> {
        self.set(id, "title = ?2, named = 1", title)
    }

    /// Sets the system prompt.
    pub(crate) fn instruct(&self, id: &str, system: &str) -> Result<()> {
        self.set(id, "system = ?2", system)
    }

    /// Keeps text that was typed but not sent.
    pub(crate) fn draft(&self, id: &str, draft: &str) -> Result<()> {
        self.set(id, "draft = ?2", draft)
    }

    /// Keeps an edited question that was not sent; an empty one ends the edit.
    pub(crate) fn edit(&self, id: &str, message: &str, text: &str) -> Result<()> {
        let sql = "UPDATE message SET edit = NULLIF(?3, '') WHERE id = ?2 AND conversation = ?1";
        let changed = self.change(|transaction| transaction.execute(sql, [id, message, text]))?;
        if changed == 0 { Err(StoreError::NoMessage(message.to_owned())) } else { Ok(()) }
    }

    /// Sets model and sampling.
    pub(crate) fn set_choices(&self, id: &str, choices: &Choices) -> Result<()> {
        let choices = json(choices).map_err(|error| self.failed(error))?;
        self.set(id, "choices = ?2", choices)
    }

    /// Pins a conversation to the top of the list, or unpins it.
    pub(crate) fn pin(&self, id: &str, pinned: bool) -> Result<()> {
        self.set(id, "pinned = ?2", pinned)
    }

    /// Archives a conversation, or takes it back from the archive.
    pub(crate) fn archive(&self, id: &str, archived: bool) -> Result<()> {
        self.set(id, "archived = ?2", archived)
    }

    /// Deletes a conversation; [`Store::restore`] brings it back until the next start.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        self.set(id, "deleted = ?2", true)
    }

    /// Brings a deleted conversation back.
    pub(crate) fn restore(&self, id: &str) -> Result<()> {
        let sql = "UPDATE conversation SET deleted = 0 WHERE id = ?1";
        let changed = self.change(|transaction| transaction.execute(sql, [id]))?;
        if changed == 0 { Err(StoreError::NoConversation(id.to_owned())) } else { Ok(()) }
    }

    /// Shows the branch of a version of a message.
    pub(crate) fn choose(&self, id: &str, message: &str) -> Result<()> {
        let chosen = self.change(|transaction| {
            let places = places(transaction, id)?;
            let leaf = Branches::new(&places).newest_below(message).map(str::to_owned);
            if let Some(leaf) = &leaf {
                transaction.execute("UPDATE conversation SET leaf = ?2 WHERE id = ?1", params![id, leaf])?;
            }
            Ok(leaf.is_some())
        })?;
        if chosen { Ok(()) } else { Err(StoreError::NoMessage(message.to_owned())) }
    }

    /// Adds a question and the beginning of its answer, which it returns. With `edited`, the question is another version
    /// of that message, whose edit ends. Otherwise it follows the last message shown, and the draft goes, since it was sent. Names the
    /// conversation after its first question. None if there is no message `edited`.
    pub(crate) fn ask(&self, id: &str, edited: Option<&str>, text: &str, seed: u32) -> Result<Option<Message>> {
        let asked = self.change(|transaction| {
            let Some(leaf) = leaf(transaction, id)? else { return Ok(Err(())) };
            let all = places(transaction, id)?;
            let parent = match edited {
                None => Branches::new(&all).path(leaf.as_deref()).last().map(|&last| all[last].id.clone()),
                Some(edited) => match all.iter().find(|place| place.id == edited) {
                    Some(place) => place.parent.clone(),
                    None => return Ok(Ok(None)),
                },
            };
            if let Some(edited) = edited {
                transaction.execute("UPDATE message SET edit = NULL WHERE id = ?1", [edited])?;
            }
            let question = Message { role: Role::User, text: text.to_owned(), complete: true, ..new_message() };
            add(transaction, id, parent.as_deref(), &question)?;
            let answer = Message { role: Role::Assistant, seed, ..new_message() };
            add(transaction, id, Some(&question.id), &answer)?;
            transaction.execute(
                "UPDATE conversation SET leaf = ?2, updated_s = ?3,
                     title = CASE title WHEN '' THEN ?4 ELSE title END, draft = CASE WHEN ?5 THEN '' ELSE draft END
                 WHERE id = ?1",
                params![id, answer.id, now_s(), title(text), edited.is_none()],
            )?;
            Ok(Ok(Some(answer)))
        })?;
        asked.map_err(|()| StoreError::NoConversation(id.to_owned()))
    }

    /// Begins another answer; `message` is the question, or one of its answers. None if it is neither.
    pub(crate) fn answer_again(&self, id: &str, message: &str, seed: u32) -> Result<Option<Message>> {
        self.change(|transaction| {
            let sql = "SELECT CASE role WHEN 'user' THEN id ELSE parent END FROM message
                       WHERE id = ?1 AND conversation = ?2";
            let found: Option<Option<String>> =
                transaction.query_row(sql, [message, id], |row| row.get(0)).optional()?;
            let Some(question) = found.flatten() else { return Ok(None) };
            let answer = Message { role: Role::Assistant, seed, ..new_message() };
            add(transaction, id, Some(&question), &answer)?;
            let sql = "UPDATE conversation SET leaf = ?2, updated_s = ?3 WHERE id = ?1";
            transaction.execute(sql, params![id, answer.id, now_s()])?;
            Ok(Some(answer))
        })
    }

    /// Writes how far an answer has come.
    pub(crate) fn write(&self, id: &str, answer: &Message) -> Result<()> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE message SET text = ?2, tokens = ?3, complete = ?4, note = ?5, computed = ?6 WHERE id = ?1",
                params![
                    answer.id,
                    answer.text,
                    bytes(&answer.tokens),
                    answer.complete,
                    answer.note,
                    answer.computed.as_ref().map(json).transpose()?
                ],
            )?;
            let sql = "UPDATE conversation SET updated_s = ?2 WHERE id = ?1";
            transaction.execute(sql, params![id, now_s()]).map(|_| ())
        })
    }

    /// Removes an answer that never got a word; its question is shown again, or the version before it.
    pub(crate) fn drop_answer(&self, id: &str, answer: &str) -> Result<()> {
        self.change(|transaction| drop_answer(transaction, id, answer))
    }

    /// Writes a whole conversation with one branch, in place of one with the same ID.
    pub fn import(&self, conversation: &Conversation) -> Result<()> {
        self.change(|transaction| import(transaction, conversation))
    }
}

fn create(transaction: &Transaction<'_>) -> rusqlite::Result<String> {
    let (id, now) = (new_id(), now_s());
    let (system, choices) = for_new(transaction)?;
    let sql = "INSERT INTO conversation (id, system, choices, began_s, updated_s) VALUES (?1, ?2, ?3, ?4, ?4)";
    transaction.execute(sql, params![id, system, choices, now])?;
    Ok(id)
}

/// Removes conversations deleted before this start, and answers without a word.
fn clean(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute("DELETE FROM conversation WHERE deleted", [])?;
    let empty: Vec<(String, String)> = {
        let sql = "SELECT conversation, id FROM message WHERE role = 'assistant' AND text = '' AND NOT complete
                   AND NOT EXISTS (SELECT 1 FROM message AS child WHERE child.parent = message.id)";
        let mut query = transaction.prepare(sql)?;
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?
    };
    for (conversation, answer) in empty {
        drop_answer(&transaction, &conversation, &answer)?;
    }
    transaction.commit()
}

fn drop_answer(transaction: &Transaction<'_>, id: &str, answer: &str) -> rusqlite::Result<()> {
    let all = places(transaction, id)?;
    let parent = all.iter().find(|place| place.id == answer).and_then(|place| place.parent.clone());
    transaction.execute("DELETE FROM message WHERE id = ?1", [answer])?;
    let left = places(transaction, id)?;
    let shown = parent.as_deref().and_then(|parent| Branches::new(&left).newest_below(parent));
    let sql = "UPDATE conversation SET leaf = ?2 WHERE id = ?1 AND leaf = ?3";
    transaction.execute(sql, params![id, shown, answer]).map(|_| ())
}

/// The last message shown of a conversation, if it exists.
#[allow(clippy::option_option, reason = "no conversation, and a conversation without a message")]
fn leaf(connection: &Connection, id: &str) -> rusqlite::Result<Option<Option<String>>> {
    let sql = "SELECT leaf FROM conversation WHERE id = ?1 AND NOT deleted";
    connection.query_row(sql, [id], |row| row.get(0)).optional()
}

fn places(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Place>> {
    let mut query =
        connection.prepare_cached("SELECT id, parent FROM message WHERE conversation = ?1 ORDER BY number")?;
    query.query_map([id], |row| Ok(Place { id: row.get(0)?, parent: row.get(1)? }))?.collect()
}

/// Reads a conversation that is not deleted.
fn read(connection: &Connection, id: &str) -> rusqlite::Result<Option<Conversation>> {
    let sql = "SELECT title, system, draft, choices, leaf, updated_s, began_s, pinned, archived
               FROM conversation WHERE id = ?1 AND NOT deleted";
    let head = connection.prepare_cached(sql)?.query_row([id], |row| {
        let choices: String = row.get(3)?;
        let conversation = Conversation {
            id: id.to_owned(),
            title: row.get(0)?,
            system: row.get(1)?,
            draft: row.get(2)?,
            choices: serde_json::from_str(&choices).unwrap_or_default(),
            messages: Vec::new(),
            updated_s: row.get(5)?,
            began_s: row.get(6)?,
            pinned: row.get(7)?,
            archived: row.get(8)?,
        };
        Ok((conversation, row.get::<_, Option<String>>(4)?))
    });
    let Some((mut conversation, leaf)) = head.optional()? else { return Ok(None) };
    let all = places(connection, id)?;
    let branches = Branches::new(&all);
    let mut query = connection
        .prepare_cached("SELECT role, text, tokens, seed, complete, note, computed, edit FROM message WHERE id = ?1")?;
    for index in branches.path(leaf.as_deref()) {
        conversation.messages.push(query.query_row([&all[index].id], |row| {
            let (role, tokens): (String, Vec<u8>) = (row.get(0)?, row.get(2)?);
            let computed: Option<String> = row.get(6)?;
            Ok(Message {
                id: all[index].id.clone(),
                role: if role == Role::User.name() { Role::User } else { Role::Assistant },
                text: row.get(1)?,
                tokens: tokens
                    .chunks_exact(4)
                    .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                    .collect(),
                seed: row.get(3)?,
                complete: row.get(4)?,
                note: row.get(5)?,
                computed: computed.and_then(|computed| serde_json::from_str::<Computed>(&computed).ok()),
                edit: row.get(7)?,
                branches: branches.versions(index),
            })
        })?);
    }
    Ok(Some(conversation))
}

/// A conversation's title until it is renamed: the start of its first question, or the name of the first file with it.
fn title(text: &str) -> String {
    /// In characters.
    const LONGEST: usize = 60;
    let line = first_line(text);
    if line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    let short: String = line.chars().take(LONGEST - 1).collect();
    format!("{}…", short.trim_end())
}

/// The first line of a question after the files that come with it, each a fenced block whose info string is `file=NAME`;
/// the first file's name if there is nothing else.
fn first_line(text: &str) -> &str {
    let mut name = "";
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let info = line.trim_start_matches('`');
        let fence = &line[..line.len() - info.len()];
        match info.strip_prefix("file=") {
            Some(file) if fence.len() >= 3 => {
                if name.is_empty() {
                    name = file;
                }
                // To its end, a fence of the same length.
                lines.by_ref().find(|line| *line == fence);
            }
            _ => return line,
        }
    }
    name
}

/// The passage of a text around the words, which are in lower case; its start if there are none.
fn snippet(text: &str, words: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Lower case may have another length, so the place is counted in characters, which is close enough for a passage.
    let lower = line.to_lowercase();
    let first = || words.split_whitespace().find_map(|word| lower.find(word));
    let at = lower.find(words).or_else(first).map_or(0, |at| lower[..at].chars().count());
    let skipped = at.saturating_sub(SNIPPET_LEAD);
    let passage: String = line.chars().skip(skipped).take(SNIPPET).collect();
    if skipped > 0 { format!("…{passage}") } else { passage }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
