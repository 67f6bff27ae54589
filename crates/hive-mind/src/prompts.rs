//! The prompt library in the store.

use crate::prompt::{Prompt, put};
use crate::store::{Store, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// The prompts by name.
    pub(crate) fn prompts(&self) -> Result<Vec<Prompt>> {
        let connection = self.connection();
        let read = || -> rusqlite::Result<Vec<Prompt>> {
            let sql = "SELECT id, name, text, starter FROM prompt ORDER BY folded(name), id";
            let mut query = connection.prepare_cached(sql)?;
            let prompts = query.query_map([], |row| {
                Ok(Prompt { id: row.get(0)?, name: row.get(1)?, text: row.get(2)?, starter: row.get(3)? })
            })?;
            prompts.collect()
        };
        read().map_err(|error| self.failed(error))
    }

    /// Writes a prompt, in place of one with the same ID.
    pub(crate) fn put_prompt(&self, prompt: &Prompt) -> Result<()> {
        self.change(|transaction| put(transaction, prompt))
    }

    /// Deletes a prompt, if it exists.
    pub(crate) fn delete_prompt(&self, id: &str) -> Result<()> {
        self.change(|transaction| transaction.execute("DELETE FROM prompt WHERE id = ?1", [id]).map(|_| ()))
    }
}
