//! The models on this machine's disk: their sizes, the other machines that have them, and unloading and removing them.

use std::path::Path;
use std::time::{Duration, Instant};

use hive_peers::lacking;
use hive_protocol::{ModelCopy, ModelSource, Profile};
use hive_stage::models::{self, FindError};
use hive_stage::{Place, aside};
use hive_types::ModelOnDisk;

use crate::error::ServeError;
use crate::model_request::ModelRequest;
use crate::serving::Serving;

/// How long a list waits for models that have not been read yet.
const READING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a model was not unloaded or removed.
#[derive(Debug, thiserror::Error)]
pub enum LetGoError {
    /// There is no model of that name.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It is answering.
    #[error("{0} is answering; stop the answer or wait for its end")]
    Busy(String),
    /// It is not in memory.
    #[error("{0} is not in memory")]
    NotLoaded(String),
    /// It comes with HiveMind and cannot be removed.
    #[error("{0} is built in and can't be removed")]
    Starter(String),
    /// It is not where HiveMind keeps downloaded models.
    #[error("{0} was not downloaded by HiveMind; remove its files where they are")]
    Foreign(String),
    /// The file system refused.
    #[error("cannot remove {name}: {why}")]
    Disk {
        /// The model.
        name: String,
        /// The system's error.
        why: std::io::Error,
    },
}

impl Serving {
    /// The models on this machine's disk.
    pub async fn models(&self) -> Vec<ModelOnDisk> {
        let until = Instant::now() + READING_TIMEOUT;
        let loaded = self.names();
        let mut models = Vec::new();
        for place in aside(|| self.host().catalogue().places()) {
            // Reading continues in `catalogue::attend` after the time-out.
            let nature = tokio::time::timeout_at(until.into(), self.host().catalogue().nature(&place.path)).await;
            let (digest, unusable) = match nature {
                Ok(Ok(nature)) => (nature.digest().cloned(), nature.fault().map(ToString::to_string)),
                Ok(Err(why)) => (None, Some(why.to_string())),
                Err(_) => (None, Some("it is still being read; ask again in a moment".to_owned())),
            };
            models.push(self.on_disk(&place, digest, unusable, &loaded));
        }
        models
    }

    fn on_disk(
        &self,
        place: &Place,
        digest: Option<String>,
        unusable: Option<String>,
        loaded: &[String],
    ) -> ModelOnDisk {
        let Place { name, path } = place;
        let shown = name.clone().unwrap_or_else(|| path.display().to_string());
        let (mut also_on, mut lacks) = (Vec::new(), Vec::new());
        if let Some(digest) = digest.filter(|_| unusable.is_none()) {
            let called =
                aside(|| models::exact_name(path)).or_else(|| name.clone()).or_else(|| models::file_name(path));
            let source = ModelSource::Named(called, digest);
            for (peer, profile) in self.member().peers().present() {
                let machine = self.member().peers().name(peer);
                match self.member().lacks().of(peer, &profile, &source) {
                    Some(lack) => lacks.push(lacking(machine, &source, lack).to_string()),
                    None if is_there(&profile, &source, &shown) => also_on.push(machine),
                    // The machine has not reported its models yet, or fetches missing layers.
                    None => {}
                }
            }
        }
        let parts = aside(|| models::parts_at(path));
        let whole_bytes = parts.as_ref().map(|copy| copy.manifest().files.iter().map(|file| file.bytes).sum());
        ModelOnDisk {
            bytes: aside(|| parts.map_or_else(|| bytes_in(path), |copy| copy.bytes())),
            whole_bytes,
            loaded: loaded.contains(&shown),
            pinned: self.is_pinned(&shown),
            aliases: self.aliases_of(&shown, false),
            adapted: self.aliases_of(&shown, true),
            removable: name.as_ref().is_none_or(|name| name != models::starter_name()),
            in_place: aside(|| self.is_only_listed(path)),
            name: shown,
            also_on,
            lacking: lacks,
            unusable,
        }
    }

    /// Whether a model was opened by its path, and is nothing that HiveMind downloaded.
    fn is_only_listed(&self, path: &Path) -> bool {
        let catalogue = self.host().catalogue();
        catalogue.has_opened(path) && models::exact_name(path).is_none() && models::parts_at(path).is_none()
    }

    /// Loads a model ahead of the first question.
    pub async fn load_model(&self, name: &str) -> Result<(), ServeError> {
        self.awaited_model(&self.usual(&ModelRequest::named(name))).await.map(|_| ())
    }

    /// Unloads a model on every machine.
    pub async fn unload_model(&self, name: &str) -> Result<(), LetGoError> {
        match self.let_go(name).await {
            Some(true) => {
                self.member().view().notify();
                Ok(())
            }
            Some(false) => Err(LetGoError::Busy(name.to_owned())),
            None => Err(LetGoError::NotLoaded(name.to_owned())),
        }
    }

    /// Unloads a model, then removes a downloaded one from this machine's disk, and one that was opened by its path from
    /// the list.
    pub async fn remove_model(&self, name: &str) -> Result<(), LetGoError> {
        let name = &*self.name_of(name);
        if name == models::starter_name() {
            return Err(LetGoError::Starter(name.to_owned()));
        }
        let path = aside(|| models::path(name))?;
        let parts = aside(|| models::parts_at(&path));
        let files = aside(|| models::files_of(&path)).or_else(|| parts.as_ref().map(|_| Vec::new()));
        let is_only_listed = aside(|| self.is_only_listed(&path));
        let files = if is_only_listed { Some(Vec::new()) } else { files };
        let files = files.ok_or_else(|| LetGoError::Foreign(name.to_owned()))?;
        match self.unload_model(name).await {
            Ok(()) | Err(LetGoError::NotLoaded(_)) => {}
            Err(error) => return Err(error),
        }
        let removing = move || match parts {
            Some(copy) => copy.delete(),
            None => files.iter().try_for_each(|path| remove(path)),
        };
        let removed = tokio::task::spawn_blocking(removing).await;
        let removed = removed.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        removed.map_err(|why| LetGoError::Disk { name: name.to_owned(), why })?;
        if is_only_listed {
            self.host().catalogue().take_off(&path);
        }
        self.forget(name);
        Ok(())
    }
}

/// Whether a machine reports that it has a model, or parts of it.
fn is_there(profile: &Profile, source: &ModelSource, shown: &String) -> bool {
    let ModelSource::Named(_, digest) = source else { return false };
    let is_it = |copy: &ModelCopy| copy.digest.as_ref() == Some(digest);
    match &profile.copies {
        Some(copies) => copies.iter().any(is_it),
        None => profile.models.contains(shown),
    }
}

/// Removes a file, a link, or a folder with its contents.
fn remove(path: &Path) -> std::io::Result<()> {
    let is_folder = std::fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
    if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Size of a file, or of all files in a folder; links count as their targets.
fn bytes_in(path: &Path) -> u64 {
    let Ok(about) = std::fs::metadata(path) else { return 0 };
    if about.is_file() {
        return about.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_in(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_what_its_files_take_links_included() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshot"));
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(snapshot.join("more")).unwrap();
        std::fs::write(blobs.join("a"), [0; 1000]).unwrap();
        std::fs::write(snapshot.join("more/config.json"), [0; 24]).unwrap();
        std::os::unix::fs::symlink(blobs.join("a"), snapshot.join("model.safetensors")).unwrap();
        assert_eq!(bytes_in(&snapshot), 1024);
        assert_eq!(bytes_in(&folder.path().join("nothing")), 0);
    }
}
