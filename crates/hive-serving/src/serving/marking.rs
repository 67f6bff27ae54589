//! Pins models and gives them aliases, as the owner says.
//!
//! A pinned model stays in memory once it is loaded: neither a time without questions nor another model unloads it. What
//! this machine has fetched of it stays on the disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use hive_ring::Ring;
use hive_stage::{AdapterFiles, AdapterFilesError, aside, models};
use hive_types::Alias;

use super::{Loaded, Serving};
use crate::marks::{FILE, MarkError, Marks};
use crate::model_request::ModelRequest;

impl Loaded {
    /// The name of its model in requests.
    pub(super) fn name(&self) -> &str {
        self.wanted.model.as_deref().unwrap_or(models::starter_name())
    }
}

impl Serving {
    /// Keeps a model in memory and on the disk from now on.
    pub async fn pin(&self, name: &str) -> Result<(), MarkError> {
        let name = self.model_here(name).await?;
        let kept = self.mark(|marks| {
            marks.pin(&name);
            Ok(())
        });
        self.hold_pinned();
        kept
    }

    /// Lets a pinned model go when its memory or its space is needed.
    pub fn unpin(&self, name: &str) -> Result<(), MarkError> {
        let name = self.name_of(name);
        let kept = self.mark(|marks| if marks.unpin(&name) { Ok(()) } else { Err(MarkError::NotPinned(name.clone())) });
        self.hold_pinned();
        kept
    }

    /// Gives a model on this machine another name, for requests; answers under that name use the adapter in this
    /// folder, or by this name in the cache.
    pub async fn set_alias(&self, alias: &str, model: &str, adapter: Option<&str>) -> Result<(), MarkError> {
        Marks::check_alias(alias)?;
        if alias == models::starter_name() {
            return Err(MarkError::Taken(alias.to_owned()));
        }
        // An alias of an alias has its adapter, too.
        let inherited = self.marks().adapter_of(model).map(Path::to_owned);
        let adapter = adapter.map(|name| aside(|| folder_of(name))).transpose()?.or(inherited);
        let model = self.name_of(model);
        let opened = self.host().catalogue().open_model(Some(&model)).await?;
        if let Some(folder) = &adapter {
            let checked = self.open_adapter(folder)?.check(&opened).await;
            if checked.is_err() {
                self.close_adapters();
            }
            checked?;
        }
        let kept = self.mark(|marks| marks.set_alias(alias, &model, adapter.as_deref()));
        self.close_adapters();
        kept
    }

    /// The listed name of a model that is on this machine and can answer.
    async fn model_here(&self, name: &str) -> Result<String, MarkError> {
        let name = self.name_of(name);
        self.host().catalogue().open_model(Some(&name)).await?;
        Ok(name)
    }

    /// The adapter that an alias stands for, if it stands for one.
    pub(super) fn adapter_of(&self, name: Option<&str>) -> Result<Option<AdapterFiles>, AdapterFilesError> {
        let folder = name.and_then(|name| self.marks().adapter_of(name).map(Path::to_owned));
        folder.map(|folder| self.open_adapter(&folder)).transpose()
    }

    /// The adapter in a folder. It is read again only when its files have changed.
    fn open_adapter(&self, folder: &Path) -> Result<AdapterFiles, AdapterFilesError> {
        aside(|| {
            let known = self.adapters().get(folder).cloned();
            if let Some(known) = known.filter(AdapterFiles::is_current) {
                return Ok(known);
            }
            let files = AdapterFiles::open(folder)?;
            self.adapters().insert(folder.to_owned(), files.clone());
            Ok(files)
        })
    }

    fn adapters(&self) -> MutexGuard<'_, HashMap<PathBuf, AdapterFiles>> {
        self.inner.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an alias; its model stays.
    pub fn remove_alias(&self, alias: &str) -> Result<(), MarkError> {
        let kept = self
            .mark(|marks| if marks.remove_alias(alias) { Ok(()) } else { Err(MarkError::NoAlias(alias.to_owned())) });
        self.close_adapters();
        kept
    }

    /// Closes the files of adapters that no alias stands for.
    fn close_adapters(&self) {
        let marks = self.marks().clone();
        self.adapters().retain(|folder, _| marks.adapters().any(|named| named == folder));
    }

    /// The aliases, in alphabetical order.
    pub fn aliases(&self) -> Vec<Alias> {
        self.marks().aliases()
    }

    /// The name under which a model is listed, by any of its names. An unknown name is returned as it is.
    pub fn name_of(&self, name: &str) -> String {
        let alias = self.marks().model_of(name).map(str::to_owned);
        aside(|| models::listed_name(alias.as_deref().unwrap_or(name)))
    }

    /// A request as it is compared with others: under the canonical name of its model.
    pub(crate) fn usual(&self, wanted: &ModelRequest) -> ModelRequest {
        let name = wanted.model.as_deref().map(|name| self.name_of(name));
        ModelRequest { model: name.filter(|name| name != models::starter_name()), stages: wanted.stages }
    }

    pub(crate) fn is_pinned(&self, model: &str) -> bool {
        self.marks().is_pinned(model)
    }

    /// The aliases of a model with an adapter, or those without.
    pub(crate) fn aliases_of(&self, model: &str, with_adapter: bool) -> Vec<String> {
        self.marks().aliases_of(model, with_adapter)
    }

    /// Forgets what was noted about a model that is removed.
    pub(crate) fn forget(&self, model: &str) {
        if !self.marks().mentions(model) {
            return;
        }
        let forgotten = self.mark(|marks| {
            marks.forget(model);
            Ok(())
        });
        self.hold_pinned();
        if let Err(error) = forgotten {
            tracing::warn!("{error}");
        }
    }

    /// The names of the pinned models that take memory which a request cannot have.
    pub(super) fn pinned_beside(&self, wanted: &ModelRequest) -> Vec<String> {
        let marks = self.marks().clone();
        let is_beside = |loaded: &&Loaded| loaded.wanted.model != wanted.model && marks.is_pinned(loaded.name());
        self.loaded().iter().filter(is_beside).map(|loaded| loaded.ring.model().name()).collect()
    }

    /// The models that are unloaded to make room for a request. One that is pinned or answering stays, unless it is the
    /// one asked for. A pinned one may be placed otherwise.
    pub(super) fn makes_room(&self, wanted: &ModelRequest) -> impl Fn(&Loaded) -> bool + use<> {
        let (marks, wanted) = (self.marks().clone(), wanted.clone());
        move |loaded| {
            let is_pinned = loaded.wanted.model != wanted.model && marks.is_pinned(loaded.name());
            let stays = loaded.ring.is_busy() || is_pinned;
            loaded.wanted == wanted || loaded.ring.is_abandoned() || !stays
        }
    }

    /// Keeps the parts of pinned models that are on this disk. Parts may have come since the last time.
    pub(super) fn hold_pinned(&self) {
        let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned: Vec<String> = self.marks().pinned().map(str::to_owned).collect();
        held.retain(|name, _| pinned.contains(name));
        for name in pinned {
            if !held.contains_key(&name)
                && let Some(parts) = aside(|| self.host().keep_parts(&models::path(&name).ok()?))
            {
                held.insert(name, parts);
            }
        }
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.inner.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, change: impl FnOnce(&mut Marks) -> Result<(), MarkError>) -> Result<(), MarkError> {
        change(&mut self.marks())?;
        let saved = aside(|| {
            // Requests do not wait for the disk. Whoever saves last saves the latest.
            let _one_at_a_time = self.inner.saving_marks.lock().unwrap_or_else(PoisonError::into_inner);
            let marks = self.marks().clone();
            self.member().save(FILE, &marks)
        });
        self.member().view().notify();
        Ok(saved?)
    }

    /// The rings that are unloaded to make room for a request.
    pub(super) fn unused_beside(&self, wanted: &ModelRequest) -> Vec<Ring> {
        let makes_room = self.makes_room(wanted);
        self.loaded().iter().filter(|loaded| makes_room(loaded)).map(Loaded::ring).collect()
    }
}

/// The folder of an adapter, by its path or its name in the cache.
fn folder_of(adapter: &str) -> Result<PathBuf, AdapterFilesError> {
    let found = models::path(adapter).map_err(|_| AdapterFilesError::None(adapter.into()))?;
    std::path::absolute(&found).map_err(|source| AdapterFilesError::Read { file: found, source })
}
