//! Conversations, kept on this machine: list, search, write, rename, delete.
//!
//! A conversation is written as a whole, in one transaction; `kill -9` at any instant leaves the one before or the one after.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// The file in the data folder.
pub const FILE: &str = "conversations.sqlite";

/// The layout that this version writes; an older one is brought up to it when it is opened.
const LAYOUT: i64 = 1;

/// Conversations that a list shows at most.
const LISTED: u32 = 2000;

/// Why conversations cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file.
    #[error("the conversations in {path} cannot be used: {error}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What `SQLite` said.
        error: rusqlite::Error,
    },
    /// Its folder.
    #[error("cannot write {path}: {error}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Written by a newer version.
    #[error("{path} was written by a newer HiveMind; update this one, or move the file away")]
    Newer {
        /// Which.
        path: PathBuf,
    },
}

/// A conversation in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Entry {
    /// Names it.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// When it was last written to, in seconds since 1970.
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
    /// An answer's tokens, so that one that broke off can be gone on with.
    pub tokens: Vec<u32>,
    /// What fixed an answer's choice of words, so that it goes on as it would have.
    #[serde(default)]
    pub seed: u32,
    /// How an answer came about, in words; none while it is one's own.
    pub note: Option<String>,
    /// Whether the answer is whole.
    pub complete: bool,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct Conversation {
    /// Names it; whoever begins one chooses.
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What the model is told before the first message.
    pub system: String,
    /// What is written but not sent.
    pub draft: String,
    /// The messages, oldest first.
    pub messages: Vec<Said>,
    /// When it was last written to, in seconds since 1970.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub updated_s: f64,
    /// When it was begun, in seconds since 1970; not known of older ones.
    #[serde(default)]
    #[cfg_attr(feature = "specta", specta(type = Option<i32>))]
    pub began_s: Option<f64>,
}

/// The conversations of a data folder.
#[derive(Debug)]
pub struct Conversations {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Conversations {
    /// Opens those of a folder, or begins with none.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        if !path.exists() {
            // Made before `SQLite` does, so that nobody else can ever read it.
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

    /// Those whose title or messages have the words, newest first; all, where there are none.
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

    /// One of them, if it is there.
    pub fn get(&self, id: &str) -> Result<Option<Conversation>, StoreError> {
        let connection = self.connection();
        let found: Result<Option<String>, _> =
            connection.query_row("SELECT body FROM conversation WHERE id = ?1", [id], |row| row.get(0)).optional();
        let parse = |body: String| serde_json::from_str(&body).map_err(not_json);
        found.and_then(|body| body.map(parse).transpose()).map_err(|error| self.failed(error))
    }

    /// Writes one, in place of what it was.
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

    /// Forgets one.
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
