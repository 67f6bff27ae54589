//! Pins models and gives them aliases, as the owner says.
//!
//! A pinned model stays in memory once it is loaded: neither a time without questions nor another model unloads it. What
//! this machine has fetched of it stays on the disk.

use std::sync::{MutexGuard, PoisonError};

use hive_ring::Ring;
use hive_stage::{aside, models};
use hive_types::Alias;

use super::pinned::Pinned;
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
    pub fn pin(&self, name: &str) -> Result<(), MarkError> {
        let name = self.name_of(name);
        aside(|| models::path(&name))?;
        self.mark(|marks| {
            marks.pin(&name);
            Ok(())
        })
    }

    /// Lets a pinned model go when its memory or its space is needed.
    pub fn unpin(&self, name: &str) -> Result<(), MarkError> {
        let name = self.name_of(name);
        self.mark(|marks| if marks.unpin(&name) { Ok(()) } else { Err(MarkError::NotPinned(name.clone())) })
    }

    /// Gives a model on this machine another name, for requests.
    pub fn set_alias(&self, alias: &str, model: &str) -> Result<(), MarkError> {
        let model = self.name_of(model);
        aside(|| models::path(&model))?;
        if aside(|| models::path(alias)).is_ok() {
            return Err(MarkError::Taken(alias.to_owned()));
        }
        self.mark(|marks| marks.set_alias(alias, &model))
    }

    /// Removes an alias; its model stays.
    pub fn remove_alias(&self, alias: &str) -> Result<(), MarkError> {
        self.mark(|marks| if marks.remove_alias(alias) { Ok(()) } else { Err(MarkError::NoAlias(alias.to_owned())) })
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

    pub(crate) fn aliases_of(&self, model: &str) -> Vec<String> {
        self.marks().aliases_of(model)
    }

    /// Forgets what was noted about a model that is removed.
    pub(crate) fn forget(&self, model: &str) {
        let forgotten = self.mark(|marks| {
            marks.forget(model);
            Ok(())
        });
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
        let mut pinned = self.inner.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = self.marks().pinned().map(str::to_owned).collect();
        pinned.retain(|held| names.contains(&held.name) && held.parts.is_some());
        for name in names {
            if pinned.iter().all(|held| held.name != name) {
                let parts = aside(|| self.host().keep_parts(&models::path(&name).ok()?));
                pinned.push(Pinned { name, parts });
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
        self.hold_pinned();
        self.member().view().notify();
        Ok(saved?)
    }
}

impl Serving {
    /// The rings that are unloaded to make room for a request.
    pub(super) fn unused_beside(&self, wanted: &ModelRequest) -> Vec<Ring> {
        let makes_room = self.makes_room(wanted);
        self.loaded().iter().filter(|loaded| makes_room(loaded)).map(Loaded::ring).collect()
    }
}
