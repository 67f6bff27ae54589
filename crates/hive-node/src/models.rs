//! Finds a model on this machine by what a person calls it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hive_net::border;

use crate::control::ModelSource;
use crate::worker::text::{Model, TextError};

/// The model that comes with HiveMind.
pub const STARTER_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Why a model was not found or cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The starter model is not there.
    #[error("the starter model is not on this machine; run `./dev setup`, or name a model")]
    NoStarter,
    /// Nothing by that name.
    #[error("no model \"{name}\": it is neither a file nor a folder, nor a downloaded model in {}", cache.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where downloaded models are.
        cache: PathBuf,
    },
    /// It is there but cannot be used.
    #[error(transparent)]
    Open(#[from] TextError),
}

/// Opens a model: a path, an `owner/name` from the Hugging Face cache, or, with no name, the starter model.
pub async fn open(name: Option<&str>) -> Result<Model, FindError> {
    Ok(Model::open(&path(name.unwrap_or(starter_name()))?).await?)
}

/// What programs call the starter model.
pub fn starter_name() -> &'static str {
    STARTER_FILE.trim_end_matches(".gguf")
}

/// The models on this machine, by the names that [`open`] takes: the starter model, then those of the Hugging Face
/// cache.
pub fn names() -> Vec<String> {
    let starter = starter().filter(|path| path.is_file()).map(|_| starter_name().to_owned());
    let cache = hive_host::folders::hugging_face_cache().unwrap_or_default();
    let mut cached: Vec<String> = std::fs::read_dir(&cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?.strip_prefix("models--")?.replacen("--", "/", 1);
            // A name that cannot be shown as it is was not downloaded from anywhere.
            let name = border::is_plain(&name).then_some(name)?;
            // Only what could be loaded; a cache holds much else.
            snapshot(&cache, &name).filter(|folder| folder.join("config.json").is_file()).map(|_| name)
        })
        .collect();
    cached.sort();
    starter.into_iter().chain(cached).collect()
}

/// How other machines find a model that was opened here by `name`: by that name, or, where it is a path, not at all but
/// in this process.
pub(crate) fn source(name: Option<&str>, model: &Model) -> ModelSource {
    let by_path = name.is_some_and(|name| name != starter_name() && Path::new(name).exists());
    if by_path {
        ModelSource::Path(std::path::absolute(model.path()).unwrap_or_else(|_| model.path().to_owned()))
    } else {
        ModelSource::Named(name.map(str::to_owned), model.card().digest.clone())
    }
}

/// Of a name that another machine gives: those of Hugging Face have 96 at most.
const MODEL_COLUMNS: usize = 96;

/// What people call a model that another machine asks for; never a path.
pub(crate) fn name_of(source: &ModelSource) -> String {
    match source {
        ModelSource::Path(_) => "a file of its own".to_owned(),
        ModelSource::Named(None, _) => starter_name().to_owned(),
        ModelSource::Named(Some(name), _) => hive_net::border::line(name, MODEL_COLUMNS),
    }
}

/// Why a part of a model is not loaded. Another machine hears one sentence for a model that is not here and for one that cannot
/// be used: it does not learn what else is on this disk, or where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLocated {
    /// Named by its path.
    #[error("a model that is split over machines is named, as owner/name; a path means nothing elsewhere")]
    Path,
    /// Not here.
    #[error("{UNUSABLE}")]
    Missing,
    /// Its files cannot be used, for a reason that only this machine's owner hears: it may name paths.
    #[error("{UNUSABLE}")]
    Unusable(#[source] TextError),
    /// Its files are others than those that were meant.
    #[error("{UNUSABLE}")]
    AnotherVersion,
}

const UNUSABLE: &str = "it has no model of this name and version that it can use; download the same model on both machines, or \
                        update it there";

impl NotLocated {
    /// What whoever asked is told; this machine's own people hear the true cause.
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

/// The files of a model that another machine asks to load a part of. It is found by name in the model cache, or as the
/// starter model, never by path: only nodes of one process trust each other's paths.
pub(crate) async fn locate(source: &ModelSource, trusts_paths: bool) -> Result<Model, NotLocated> {
    let cache = hive_host::folders::hugging_face_cache();
    match source {
        ModelSource::Path(path) if trusts_paths => usable(Some(path.clone()), None).await,
        ModelSource::Path(_) => Err(NotLocated::Path),
        ModelSource::Named(name, digest) => usable(named(name.as_deref(), cache.as_deref()), Some(digest)).await,
    }
}

/// Where a model lies that another machine names.
fn named(name: Option<&str>, cache: Option<&Path>) -> Option<PathBuf> {
    match name {
        None => starter(),
        Some(name) if name == starter_name() => starter(),
        Some(name) => snapshot(cache?, name),
    }
}

async fn usable(path: Option<PathBuf>, digest: Option<&String>) -> Result<Model, NotLocated> {
    let path = path.ok_or(NotLocated::Missing)?;
    let model = Model::open(&path).await.map_err(NotLocated::Unusable)?;
    match digest {
        Some(wanted) if model.card().digest != *wanted => Err(NotLocated::AnotherVersion),
        _ => Ok(model),
    }
}

/// The starter model's file: named by `HIVEMIND_STARTER`, beside the executable, or in the cache.
pub fn starter() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HIVEMIND_STARTER") {
        return Some(path.into());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| {
        let folder = exe.parent()?;
        // A Mac bundle keeps resources beside the folder of executables; a Linux package keeps them under `share`.
        [folder.join("../Resources"), folder.join("../share/hivemind")]
            .into_iter()
            .map(|folder| folder.join(STARTER_FILE))
            .find(|file| file.is_file())
    });
    let cached = || Some(hive_host::folders::cache()?.join("starter").join(STARTER_FILE)).filter(|file| file.is_file());
    beside.or_else(cached)
}

/// The file or folder of a model, by its name.
pub(crate) fn path(name: &str) -> Result<PathBuf, FindError> {
    if name == starter_name() { starter().ok_or(FindError::NoStarter) } else { find(name) }
}

/// Where a model really lies. Two names can mean one place: `a--b/c` and `a/b--c`, on some disks `A/b` and `a/b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    disk: u64,
    file: u64,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self { disk: about.dev(), file: about.ino() })
    }
}

/// The place of a model by its name; `None` where there is none.
pub(crate) fn place(name: &str) -> Option<Place> {
    path(name).ok().as_deref().and_then(Place::of)
}

/// Where a downloaded model lies with everything that belongs to it; `None` for one that is elsewhere.
pub(crate) fn cache_folder(name: &str) -> Option<PathBuf> {
    let cache = hive_host::folders::hugging_face_cache()?;
    snapshot(&cache, name)?;
    Some(cache.join(format!("models--{}", name.replacen('/', "--", 1))))
}

fn find(name: &str) -> Result<PathBuf, FindError> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_owned());
    }
    let cache = hive_host::folders::hugging_face_cache().unwrap_or_default();
    snapshot(&cache, name).ok_or_else(|| FindError::Unknown { name: name.to_owned(), cache })
}

/// The newest snapshot of `owner/name` in a Hugging Face cache.
fn snapshot(cache: &Path, name: &str) -> Option<PathBuf> {
    let (owner, model) = name.split_once('/')?;
    // The characters that names have there; none of them leads out of a folder.
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if !plain(owner) || !plain(model) {
        return None;
    }
    let folder = cache.join(format!("models--{owner}--{model}"));
    let revision = std::fs::read_to_string(folder.join("refs/main")).ok()?;
    Some(folder.join("snapshots").join(revision.trim())).filter(|snapshot| snapshot.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_folder_are_one_place() {
        let cache = tempfile::tempdir().unwrap();
        for folder in ["models--a--b--c", "models--a--b"] {
            std::fs::create_dir_all(cache.path().join(folder).join("snapshots/abc")).unwrap();
            std::fs::create_dir_all(cache.path().join(folder).join("refs")).unwrap();
            std::fs::write(cache.path().join(folder).join("refs/main"), "abc").unwrap();
        }
        // As on a disk that does not tell capitals from small letters.
        std::os::unix::fs::symlink(cache.path().join("models--a--b"), cache.path().join("models--A--B")).unwrap();
        let place = |name: &str| snapshot(cache.path(), name).as_deref().and_then(Place::of);
        assert!(place("a/b--c").is_some() && place("a/b").is_some());
        assert_eq!(place("a--b/c"), place("a/b--c"));
        assert_eq!(place("A/B"), place("a/b"));
        assert_ne!(place("a/b"), place("a/b--c"));
        assert_eq!(place("a/nothing"), None);
    }

    /// A cache with one model, and files outside of it that a name could lead to.
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

    #[test]
    fn a_model_that_another_machine_names_is_found_in_the_cache_only() {
        let disk = disk();
        let cache = disk.path().join("cache");
        assert_eq!(named(Some("some/model"), Some(&cache)), Some(cache.join("models--some--model/snapshots/r1")));
        let absolute = disk.path().join("some/secret.gguf");
        let names = [
            "",
            "/",
            ".",
            "..",
            "model",
            "some/",
            "/model",
            "some/secret.gguf",
            "./some/secret.gguf",
            "some/../some/model",
            "../some/secret.gguf",
            "some/..",
            "../model",
            "some/model/",
            "some/model/snapshots",
            "some\\model",
            "some/mod\0el",
            "some/model\0",
            "some/.hidden",
            "src/lib.rs",
            "crates/hive-node",
            absolute.to_str().unwrap(),
        ];
        for name in names {
            assert_eq!(named(Some(name), Some(&cache)), None, "{name:?}");
        }
    }

    #[tokio::test]
    async fn what_is_in_the_working_directory_is_no_model_for_others() {
        // Tests run in the crate's folder.
        assert!(Path::new("src/models.rs").is_file());
        for name in ["src/models.rs", "src/nothing.rs"] {
            let source = ModelSource::Named(Some(name.to_owned()), String::new());
            assert!(matches!(locate(&source, false).await, Err(NotLocated::Missing)));
        }
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
        assert!(matches!(locate(&path, false).await, Err(NotLocated::Path)));
        // Whose model it is hears what is wrong with it.
        let cause = Model::open(&broken).await.unwrap_err().to_string();
        assert_eq!(usable(Some(broken), None).await.unwrap_err().told(true), cause);
    }
}
