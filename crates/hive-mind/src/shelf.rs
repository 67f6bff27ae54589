//! Presets, prompts and how chats get their titles, for everyone who changes or watches them.

use tokio::sync::watch;

use crate::chats::Chats;
use crate::error::ChatError;
use crate::presets::Preset;
use crate::prompt::Prompt;
use crate::store::{Store, StoreError};

type Result<T> = std::result::Result<T, ChatError>;

impl Chats {
    /// A counter that changes whenever presets or prompts do.
    pub fn shelf_changes(&self) -> watch::Receiver<u64> {
        self.inner.shelf.subscribe()
    }

    /// The presets by name.
    pub async fn presets(&self) -> Result<Vec<Preset>> {
        Ok(self.inner.store(Store::presets).await?)
    }

    /// Writes a preset, in place of one with the same ID.
    pub async fn put_preset(&self, preset: Preset) -> Result<()> {
        self.shelve(move |store| store.put_preset(&preset)).await
    }

    /// Deletes a preset, if it exists.
    pub async fn delete_preset(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.shelve(move |store| store.delete_preset(&id)).await
    }

    /// The prompts by name.
    pub async fn prompts(&self) -> Result<Vec<Prompt>> {
        Ok(self.inner.store(Store::prompts).await?)
    }

    /// Writes a prompt, in place of one with the same ID.
    pub async fn put_prompt(&self, prompt: Prompt) -> Result<()> {
        self.shelve(move |store| store.put_prompt(&prompt)).await
    }

    /// Deletes a prompt, if it exists.
    pub async fn delete_prompt(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.shelve(move |store| store.delete_prompt(&id)).await
    }

    /// Whether the model writes titles of new chats.
    pub async fn titles(&self) -> Result<bool> {
        Ok(self.inner.store(Store::titles).await?)
    }

    /// Sets whether the model writes titles of new chats.
    pub async fn set_titles(&self, on: bool) -> Result<()> {
        self.shelve(move |store| store.set_titles(on)).await
    }

    async fn shelve(
        &self,
        change: impl FnOnce(&Store) -> std::result::Result<(), StoreError> + Send + 'static,
    ) -> Result<()> {
        self.inner.store(change).await?;
        self.inner.shelf.send_modify(|count| *count += 1);
        Ok(())
    }
}
