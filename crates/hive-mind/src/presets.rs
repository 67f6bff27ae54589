//! Presets: instructions, model and sampling under a name, and the one that new chats begin with.

use rusqlite::{Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::conversation::Choices;
use crate::rows::{for_new, json};
use crate::store::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Instructions, model and sampling under a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(default)]
pub struct Preset {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The system prompt.
    pub system: String,
    /// Model and sampling.
    pub choices: Choices,
    /// Whether new chats begin with it; at most one preset is.
    pub for_new: bool,
}

impl Store {
    /// The presets by name.
    pub(crate) fn presets(&self) -> Result<Vec<Preset>> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<Preset>> {
            let sql = "SELECT id, name, system, choices, for_new FROM preset ORDER BY folded(name), id";
            connection.prepare_cached(sql)?.query_map([], preset)?.collect()
        };
        read().map_err(|error| self.failed(error))
    }

    /// Writes a preset, in place of one with the same ID.
    pub(crate) fn put_preset(&self, preset: &Preset) -> Result<()> {
        self.change_presets(|transaction| {
            let Preset { id, name, system, choices, for_new } = preset;
            if *for_new {
                transaction.execute("UPDATE preset SET for_new = 0", [])?;
            }
            let sql = "INSERT OR REPLACE INTO preset (id, name, system, choices, for_new) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(sql, params![id, name, system, json(choices)?, for_new])
        })
    }

    /// Deletes a preset, if it exists. Chats keep what they have from it.
    pub(crate) fn delete_preset(&self, id: &str) -> Result<()> {
        self.change_presets(|transaction| transaction.execute("DELETE FROM preset WHERE id = ?1", [id]))
    }

    /// Changes presets. Chats without a message that are as new chats were, are as new chats are then.
    fn change_presets(&self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>) -> Result<()> {
        self.change(|transaction| {
            let before = for_new(transaction)?;
            change(transaction)?;
            let now = for_new(transaction)?;
            let sql = "UPDATE conversation SET system = ?3, choices = ?4 WHERE system = ?1 AND choices = ?2
                       AND NOT EXISTS (SELECT 1 FROM message WHERE conversation = conversation.id)";
            transaction.execute(sql, params![before.0, before.1, now.0, now.1]).map(|_| ())
        })
    }
}

fn preset(row: &Row<'_>) -> rusqlite::Result<Preset> {
    let choices: String = row.get(3)?;
    Ok(Preset {
        id: row.get(0)?,
        name: row.get(1)?,
        system: row.get(2)?,
        choices: serde_json::from_str(&choices).unwrap_or_default(),
        for_new: row.get(4)?,
    })
}
