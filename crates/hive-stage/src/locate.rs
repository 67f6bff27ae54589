//! Locates the files of a model of which a machine asks to load a part.

use std::path::PathBuf;

use hive_protocol::{ModelSource, UNUSABLE};
use hive_worker::text::{Model, TextError};

use crate::catalogue::Catalogue;
use crate::fetching::FetchFailure;
use crate::models::{named, open_at};
use crate::runtime::aside;

/// Why a part of a model cannot be loaded. Another machine gets the same message for a missing model and an unusable
/// one, so that it does not learn what else is on this disk, or where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLocated {
    /// The model was named by path.
    #[error("a model that is split over machines is named, as owner/name; a path means nothing elsewhere")]
    Path,
    /// The model is not here.
    #[error("{UNUSABLE}")]
    Missing,
    /// Its files cannot be used. Only this machine's owner learns the reason, which may contain paths.
    #[error("{UNUSABLE}")]
    Unusable(#[source] TextError),
    /// Its files are not the ones that were meant.
    #[error("{UNUSABLE}")]
    AnotherVersion,
    /// There is no room for it on the disk.
    #[error("{0}")]
    NoRoom(FetchFailure),
}

impl NotLocated {
    /// The message for the asker; only this machine's own people get the true cause.
    pub(crate) fn told(&self, is_own: bool) -> String {
        match self {
            Self::Unusable(cause) if is_own => cause.to_string(),
            Self::AnotherVersion if is_own => {
                "the model's files have changed since it was opened; ask again".to_owned()
            }
            _ => self.to_string(),
        }
    }
}

/// Opens the model of which a machine asks to load a part. This machine's own people mean the very files that they have
/// opened. For others, it is looked up by name in the model cache or as the starter model, or by its digest in the
/// catalogue, but never by path: only nodes of one process trust each other's paths.
pub(crate) async fn locate(
    source: &ModelSource,
    trusts_paths: bool,
    catalogue: &Catalogue,
) -> Result<Model, NotLocated> {
    let cache = hive_host::folders::hugging_face_cache();
    match source {
        ModelSource::Path(path) if trusts_paths => usable(Some(path.clone()), None).await,
        ModelSource::Path(_) => Err(NotLocated::Path),
        ModelSource::Named(name, digest) => {
            let path = aside(|| {
                let opened = || trusts_paths.then(|| catalogue.opened_as(digest)).flatten();
                let by_name = || named(name.as_deref(), cache.as_deref()).filter(|path| catalogue.may_be(path, digest));
                opened().or_else(by_name).or_else(|| catalogue.path_of(digest))
            });
            usable(path, Some(digest)).await
        }
    }
}

async fn usable(path: Option<PathBuf>, digest: Option<&String>) -> Result<Model, NotLocated> {
    let path = path.ok_or(NotLocated::Missing)?;
    let model = open_at(&path).await.map_err(NotLocated::Unusable)?;
    match digest {
        Some(wanted) if model.card().digest != *wanted => Err(NotLocated::AnotherVersion),
        _ => Ok(model),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::models::{source, starter};

    /// Files that a name could lead to.
    fn disk() -> tempfile::TempDir {
        let disk = tempfile::tempdir().unwrap();
        let model = disk.path().join("cache/models--some--model");
        std::fs::create_dir_all(model.join("snapshots/r1")).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "r1").unwrap();
        std::fs::create_dir_all(disk.path().join("some")).unwrap();
        std::fs::write(disk.path().join("some/secret.gguf"), "GGUF").unwrap();
        disk
    }

    #[tokio::test]
    async fn what_is_in_the_working_directory_is_no_model_for_others() {
        // Tests run in the crate's folder.
        assert!(Path::new("src/models.rs").is_file());
        for name in ["src/models.rs", "src/nothing.rs"] {
            let source = ModelSource::Named(Some(name.to_owned()), String::new());
            assert!(matches!(locate(&source, false, &Catalogue::default()).await, Err(NotLocated::Missing)));
        }
    }

    #[tokio::test]
    async fn a_model_is_found_by_its_digest_whatever_it_is_called_and_its_path_goes_nowhere() {
        let (disk, starter) = (disk(), starter().unwrap());
        let elsewhere = disk.path().join("some/other.gguf");
        std::fs::copy(&starter, &elsewhere).unwrap();
        let model = open_at(&elsewhere).await.unwrap();
        let by_path = source(elsewhere.to_str(), &model);
        assert_eq!(by_path, ModelSource::Named(Some("other".to_owned()), model.card().digest.clone()));
        // This machine has the starter model, which is the same.
        let catalogue = Catalogue::default();
        assert!(matches!(locate(&by_path, false, &catalogue).await, Err(NotLocated::Missing)));
        catalogue.nature(&starter).await.unwrap();
        assert_eq!(locate(&by_path, false, &catalogue).await.unwrap().path(), starter);
        // Whoever opened a file means that very file; others mean what they name.
        catalogue.nature(&elsewhere).await.unwrap();
        catalogue.opened(&elsewhere, &model.card().digest);
        assert_eq!(locate(&by_path, true, &catalogue).await.unwrap().path(), elsewhere);
        let named = ModelSource::Named(None, model.card().digest.clone());
        assert_eq!(locate(&named, false, &catalogue).await.unwrap().path(), starter);
    }

    #[tokio::test]
    async fn what_is_not_here_and_what_cannot_be_used_are_told_in_the_same_words() {
        let disk = disk();
        let broken = disk.path().join("some/secret.gguf");
        for path in [Some(broken.clone()), Some(disk.path().join("missing")), None] {
            let why = usable(path, Some(&String::new())).await.unwrap_err();
            assert_eq!(why.told(false), UNUSABLE);
        }
        assert_eq!(NotLocated::AnotherVersion.told(false), UNUSABLE);
        assert!(!UNUSABLE.contains(['/', '\\']));
        let path = ModelSource::Path(disk.path().to_owned());
        assert!(matches!(locate(&path, false, &Catalogue::default()).await, Err(NotLocated::Path)));
        // The model's own machine gets the error.
        let cause = open_at(&broken).await.unwrap_err().to_string();
        assert_eq!(usable(Some(broken), None).await.unwrap_err().told(true), cause);
    }
}
