//! Stores conversations on this machine: list, search, write, rename, delete.
//!
//! A conversation is written in one transaction, so `kill -9` at any moment leaves either the old or the new version.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// File name in the data folder.
pub const FILE: &str = "conversations.sqlite";

/// The schema version written here; older files are migrated when opened.
const LAYOUT: i64 = 1;

/// Maximum number of conversations in a list.
const LISTED: u32 = 2000;

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
}

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
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Said {
    /// `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub text: String,
    /// An answer's tokens, from which an interrupted answer is resumed.
    pub tokens: Vec<u32>,
    /// An answer's sampling seed, so that a resumed answer continues exactly as it would have.
    #[serde(default)]
    pub seed: u32,
    /// How an answer was computed, in words; none for the owner's messages.
    pub note: Option<String>,
    /// Whether the answer is complete.
    pub complete: bool,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Conversation {
    /// Its ID, chosen by the client that begins it.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its system prompt.
    pub system: String,
    /// Text typed but not yet sent.
    pub draft: String,
    /// The messages, oldest first.
    pub messages: Vec<Said>,
    /// When it last changed, in seconds since 1970.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub updated_s: f64,
    /// When it began, in seconds since 1970; unknown for conversations of older versions.
    #[serde(default)]
    #[cfg_attr(feature = "specta", specta(type = Option<i32>))]
    pub began_s: Option<f64>,
}

/// The conversations stored in a data folder.
#[derive(Debug)]
pub struct Conversations {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Conversations {
    /// Opens a folder's conversations; creates the file if there is none.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        if !path.exists() {
            // Created before `SQLite` opens it, so that it is private from the start.
            hive_host::folders::write_private(&path, b"")
                .map_err(|error| StoreError::Folder { path: path.clone(), error })?;
        }
        let fail = |error| StoreError::Database { path: path.clone(), error };
        let connection = Connection::open(&path).map_err(fail)?;
        let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
        if layout > LAYOUT {
            return Err(StoreError::Newer { path });
        }
        if layout < LAYOUT {
            connection
                .execute_batch(
                    "BEGIN;
                     CREATE TABLE conversation (
                         id TEXT PRIMARY KEY, title TEXT NOT NULL, updated_s REAL NOT NULL, body TEXT NOT NULL
                     ) STRICT;
                     CREATE INDEX by_time ON conversation (updated_s DESC);
                     PRAGMA user_version = 1;
                     COMMIT;",
                )
                .map_err(fail)?;
        }
        Ok(Self { connection: Mutex::new(connection), path })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Database { path: self.path.clone(), error }
    }

    /// Conversations whose title or messages contain the words, newest first; all if `words` is empty.
    pub fn list(&self, words: &str) -> Result<Vec<Entry>, StoreError> {
        let connection = self.connection();
        let listed = || -> rusqlite::Result<Vec<Entry>> {
            let mut query = connection.prepare_cached(
                "SELECT id, title, updated_s FROM conversation
                 WHERE ?1 = '' OR instr(lower(title), ?1) OR EXISTS (
                     SELECT 1 FROM json_each(body, '$.messages')
                     WHERE instr(lower(json_extract(value, '$.text')), ?1)
                 )
                 ORDER BY updated_s DESC LIMIT ?2",
            )?;
            let entry =
                |row: &rusqlite::Row<'_>| Ok(Entry { id: row.get(0)?, title: row.get(1)?, updated_s: row.get(2)? });
            query.query_map(params![words.trim().to_lowercase(), LISTED], entry)?.collect()
        };
        listed().map_err(|error| self.failed(error))
    }

    /// Reads a conversation, if it exists.
    pub fn get(&self, id: &str) -> Result<Option<Conversation>, StoreError> {
        let connection = self.connection();
        let found: Result<Option<String>, _> =
            connection.query_row("SELECT body FROM conversation WHERE id = ?1", [id], |row| row.get(0)).optional();
        let parse = |body: String| serde_json::from_str(&body).map_err(not_json);
        found.and_then(|body| body.map(parse).transpose()).map_err(|error| self.failed(error))
    }

    /// Writes a conversation, replacing the stored one.
    pub fn put(&self, conversation: &Conversation) -> Result<(), StoreError> {
        let Conversation { id, title, updated_s, .. } = conversation;
        let body = serde_json::to_string(conversation).map_err(|error| self.failed(not_json(error)))?;
        let written = self.connection().execute(
            "INSERT INTO conversation (id, title, updated_s, body) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET title = ?2, updated_s = ?3, body = ?4",
            params![id, title, updated_s, body],
        );
        written.map(|_| ()).map_err(|error| self.failed(error))
    }

    /// Deletes a conversation.
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        let deleted = self.connection().execute("DELETE FROM conversation WHERE id = ?1", [id]);
        deleted.map(|_| ()).map_err(|error| self.failed(error))
    }
}

fn not_json(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn conversation(id: &str, title: &str, text: &str, updated_s: f64) -> Conversation {
        let said = Said { role: "user".to_owned(), text: text.to_owned(), complete: true, ..Said::default() };
        let (id, title) = (id.to_owned(), title.to_owned());
        Conversation {
            id,
            title,
            system: String::new(),
            draft: "next".to_owned(),
            messages: vec![said],
            updated_s,
            began_s: Some(0.5),
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Conversations::open(folder.path()).unwrap();
        let older = conversation("a", "Lisbon", "Plan a week", 1.0);
        kept.put(&older).unwrap();
        kept.put(&conversation("b", "Dates", "A regex for dates", 2.0)).unwrap();
        drop(kept);
        let kept = Conversations::open(folder.path()).unwrap();
        let ids = |words| kept.list(words).unwrap().into_iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(""), ["b", "a"]);
        assert_eq!(kept.get("a").unwrap(), Some(older.clone()));
        kept.put(&Conversation { updated_s: 3.0, title: "Porto".to_owned(), ..older }).unwrap();
        assert_eq!(ids(""), ["a", "b"]);
        assert_eq!(
            (ids("PORTO"), ids("regex"), ids("%"), ids("role")),
            (vec!["a".to_owned()], vec!["b".to_owned()], vec![], vec![])
        );
        kept.delete("a").unwrap();
        assert_eq!((ids(""), kept.get("a").unwrap()), (vec!["b".to_owned()], None));
    }

    #[test]
    fn only_its_owner_can_read_the_file_and_a_newer_one_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let kept = Conversations::open(folder.path()).unwrap();
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        kept.connection().execute_batch("PRAGMA user_version = 99").unwrap();
        drop(kept);
        let refused = Conversations::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("newer HiveMind"), "{refused}");
    }
}
