//! Finds a model on this machine by the name that a person writes.

mod cached;
mod parts;

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hive_net::border;
use url::Url;

use cached::{Contents, Unfound};
pub(crate) use parts::name_of as name_of_parts;

use crate::fetching;
use crate::runtime::aside;
use hive_protocol::ModelSource;
pub use hive_protocol::{STARTER_FILE, starter_name};
use hive_store::{HubError, PartCopy};
use hive_text::split::PartName;
use hive_worker::text::{Model, TextError};

/// Why a model was not found or cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The starter model is missing.
    #[error("the starter model is missing; choose another model, or run `./dev setup`")]
    NoStarter,
    /// There is nothing by that name.
    #[error(
        "no model \"{name}\": it is neither a file nor a folder, nor a downloaded model in {}{}",
        cache.display(),
        if cached::is_of_a_hub(name) { format!("; `hivemind models get {name}` downloads it") } else { String::new() }
    )]
    Unknown {
        /// The name as written.
        name: String,
        /// The folder of downloaded models.
        cache: PathBuf,
    },
    /// The repository is there, but not the named revision or file.
    #[error("no model \"{name}\" is downloaded, but there is {}", others.join(", "))]
    Other {
        /// The name as written.
        name: String,
        /// Names of the models that are here.
        others: Vec<String>,
    },
    /// Several models match.
    #[error("\"{name}\" is several models; say which one: {}", choices.join(", "))]
    Several {
        /// The name as written.
        name: String,
        /// Their names.
        choices: Vec<String>,
    },
    /// The folder holds several models.
    #[error("{} has no config.json, but several .gguf files; name one of them: {}", folder.display(), files.join(", "))]
    SeveralFiles {
        /// The folder.
        folder: PathBuf,
        /// The model files in it.
        files: Vec<String>,
    },
    /// The model cannot be used.
    #[error(transparent)]
    Open(#[from] TextError),
    /// It is not on this disk, and was not found where models are from.
    #[error("{name} is not on this machine, and cannot be fetched: {why}")]
    Unfetched {
        /// The name as written.
        name: String,
        /// The obstacle.
        why: String,
    },
    /// It is where models are from, and is not given to this owner: it wants a token, or another one.
    #[error("{name} is not on this machine, and cannot be fetched: {why}")]
    Denied {
        /// The name as written.
        name: String,
        /// The hub's error.
        why: HubError,
    },
}

/// Opens a model: by path; by its name in the Hugging Face cache, such as `owner/name`, `owner/name@revision` or
/// `owner/name:Q4_0`; or, without a name, the starter model.
pub async fn open(name: Option<&str>) -> Result<Model, FindError> {
    Ok(open_at(&path(name.unwrap_or(starter_name()))?).await?)
}

/// Opens the model at a path.
pub async fn open_at(path: &Path) -> Result<Model, TextError> {
    #[cfg(test)]
    hive_worker::read_texts_here();
    Model::open(path, &aside(|| shown_name(path))).await
}

/// The display name of the model at a path: its name in the cache, or the file's or folder's name without extension.
fn shown_name(path: &Path) -> String {
    cached_name(path).unwrap_or_else(|| {
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        name.unwrap_or_default().to_string_lossy().into_owned()
    })
}

/// The names of the models on this machine, as [`open`] takes them: the starter model, then those in the Hugging Face
/// cache.
pub(crate) fn names() -> Vec<String> {
    let starter = starter().filter(|path| path.is_file()).map(|_| starter_name().to_owned());
    let cached = cached::names(&hive_host::folders::hugging_face_cache().unwrap_or_default());
    starter.into_iter().chain(cached.into_iter().filter(|name| border::is_plain(name))).collect()
}

/// The canonical name of a model: the starter's, or the one that [`names`] lists. Paths and unknown names are returned
/// unchanged.
fn usual_name(name: &str) -> String {
    let name = &*plain(name);
    let listed = || {
        let cache = hive_host::folders::hugging_face_cache()?;
        let is_cached = name != starter_name() && file(name).is_none();
        let path = is_cached.then(|| cached::find(&cache, name).ok()).flatten()?;
        cached::name_at(&cache, &path)
    };
    listed().unwrap_or_else(|| name.to_owned())
}

/// The name under which the model of this name is listed: for a path to it, or into it, that of its file or folder. An
/// unknown name is returned as it is.
pub fn listed_name(name: &str) -> String {
    let usual = usual_name(name);
    if !is_path(&usual) {
        return usual;
    }
    let Ok(path) = path(&usual) else { return usual };
    cached_name(&path).or_else(|| path.to_str().map(str::to_owned)).unwrap_or(usual)
}

/// The name of the model at a path in the Hugging Face cache; `None` outside it.
pub(crate) fn cached_name(path: &Path) -> Option<String> {
    cached::name_at(&hive_host::folders::hugging_face_cache()?, path).or_else(|| parts::name_of(&parts_at(path)?))
}

/// How other machines find a model that was opened here as `name`: by its digest or, before they have opened theirs, by
/// its exact name, because they may have other models of the repository. A path stays on this machine; people there see
/// the file's name.
pub fn source(name: Option<&str>, model: &Model) -> ModelSource {
    let called = |name: &str| {
        let exact = || exact_name(model.path()).filter(|_| name != starter_name());
        exact().unwrap_or_else(|| if is_path(name) { model.name() } else { name.to_owned() })
    };
    ModelSource::Named(name.map(called), model.card().digest.clone())
}

/// The name of a model in the Hugging Face cache that is the same on every machine.
pub fn exact_name(path: &Path) -> Option<String> {
    cached::exact_name_at(&hive_host::folders::hugging_face_cache()?, path).or_else(|| parts::name_of(&parts_at(path)?))
}

/// The name that people at other machines see instead of a path.
pub fn file_name(path: &Path) -> Option<String> {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() }?.to_string_lossy();
    let part = path.file_name().and_then(|name| name.to_str()).and_then(PartName::read);
    Some(border::line(part.map_or(&name, |part| part.model), border::REASON_COLUMNS))
}

/// Whether a name is a file or folder on this machine.
pub(crate) fn is_path(name: &str) -> bool {
    let name = &*plain(name);
    name != starter_name() && file(name).is_some()
}

/// The file or folder with this name. Only absolute paths count: a relative one would depend on the node's working
/// directory, which is not that of the person who wrote it.
fn file(name: &str) -> Option<&Path> {
    Some(Path::new(name)).filter(|path| path.is_absolute() && path.exists())
}

/// The path of a model that another machine names.
pub(crate) fn named(name: Option<&str>, cache: Option<&Path>) -> Option<PathBuf> {
    match name {
        None => starter(),
        Some(name) if name == starter_name() => starter(),
        Some(name) => cached::find(cache?, name).ok().or_else(|| parts::find(&fetching::store(), name)),
    }
}

/// The starter model's file: `HIVEMIND_STARTER`, beside the executable, or in the cache.
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

/// The models of which parts are on this disk, and their names if they come from a hub.
pub(crate) fn in_parts() -> Vec<(PathBuf, Option<String>)> {
    let known = |copy: &PartCopy| copy.known().is_some();
    let copies = fetching::store().copies().into_iter().filter(known);
    copies.map(|copy| (copy.path(), parts::name_of(&copy))).collect()
}

/// The parts of a model that a path belongs to.
pub fn parts_at(path: &Path) -> Option<PartCopy> {
    fetching::store().at(path)
}

/// The file or folder of a model, by name.
pub fn path(name: &str) -> Result<PathBuf, FindError> {
    if name == starter_name() { starter().ok_or(FindError::NoStarter) } else { find(name) }
}

/// The identity of a model's file or folder. Two names can mean one place: `a--b/c` and `a/b--c`, or on some disks
/// `A/b` and `a/b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    disk: u64,
    file: u64,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self { disk: about.dev(), file: about.ino() })
    }
}

/// The place of a model, by name; `None` if there is none.
pub fn place(name: &str) -> Option<Place> {
    path(name).ok().as_deref().and_then(Place::of)
}

/// The files to delete with a downloaded model; `None` for a model outside the cache.
pub fn files_of(path: &Path) -> Option<Vec<PathBuf>> {
    cached::files_of(&hive_host::folders::hugging_face_cache()?, path)
}

/// Normalizes a name copied from elsewhere: a link to a file or to the hub, or a path with `~` that no shell has
/// expanded.
fn plain(name: &str) -> Cow<'_, str> {
    let name = name.trim();
    if let Some(path) = name.strip_prefix("file://") {
        let decoded = Url::parse(name).ok().and_then(|link| link.to_file_path().ok());
        return decoded.map_or_else(|| path.into(), |path| path.to_string_lossy().into_owned().into());
    }
    if let Some(home) = name.strip_prefix("~/").and_then(|rest| Some(std::env::home_dir()?.join(rest))) {
        return home.to_string_lossy().into_owned().into();
    }
    let Some(link) = ["https://", "http://"].into_iter().find_map(|scheme| name.strip_prefix(scheme)) else {
        return name.into();
    };
    let link = link.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let revision = ["/blob/", "/resolve/", "/tree/"].into_iter().find_map(|way| link.split_once(way));
    revision.map_or(link.into(), |(repository, revision)| format!("{repository}@{revision}").into())
}

fn find(name: &str) -> Result<PathBuf, FindError> {
    let name = &*plain(name);
    if let Some(path) = file(name) {
        return in_folder(path);
    }
    let cache = hive_host::folders::hugging_face_cache().unwrap_or_default();
    let in_parts = |unfound| parts::find(&fetching::store(), name).ok_or(unfound);
    cached::find(&cache, name).or_else(in_parts).map_err(|unfound| {
        let name = name.to_owned();
        match unfound {
            Unfound::Nothing => FindError::Unknown { name, cache },
            Unfound::Other(others) => FindError::Other { name, others },
            Unfound::Several(choices) => FindError::Several { name, choices },
        }
    })
}

/// A file, or a folder that is a model. A folder with one GGUF file and no other model means that file.
fn in_folder(path: &Path) -> Result<PathBuf, FindError> {
    let contents = if path.is_dir() { Contents::of(path, 0) } else { Contents::default() };
    match contents.only_gguf() {
        Ok(file) => Ok(file.map_or_else(|| path.to_owned(), |file| path.join(file))),
        Err(several) => {
            let files = several.iter().map(|file| path.join(file).display().to_string()).collect();
            Err(FindError::SeveralFiles { folder: path.to_owned(), files })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret.gguf");
        std::fs::write(&file, "").unwrap();
        for written in
            [file.display().to_string(), format!("file://{}", file.display()), format!(" {} ", file.display())]
        {
            assert!(is_path(&written), "{written}");
        }
        assert!(!is_path("someone/model"));
    }

    #[test]
    fn a_name_may_be_a_link_that_was_copied() {
        let home = std::env::home_dir().unwrap();
        for (copied, meant) in [
            ("file:///models/a.gguf", "/models/a.gguf"),
            ("file:///my%20models/%C3%A4.gguf", "/my models/ä.gguf"),
            ("file://localhost/models/a.gguf", "/models/a.gguf"),
            ("file://models/a.gguf", "models/a.gguf"),
            ("~/a.gguf", home.join("a.gguf").to_str().unwrap()),
            ("https://huggingface.co/someone/model", "huggingface.co/someone/model"),
            ("https://huggingface.co/someone/model/tree/main", "huggingface.co/someone/model@main"),
            ("https://hf.co/someone/model/blob/main/a.gguf?download=true", "hf.co/someone/model@main/a.gguf"),
            (" someone/model ", "someone/model"),
            ("a b.gguf", "a b.gguf"),
        ] {
            assert_eq!(plain(copied), meant);
        }
    }

    #[test]
    fn names_of_one_folder_are_one_place() {
        let cache = tempfile::tempdir().unwrap();
        for folder in ["models--a--b--c", "models--a--b"] {
            std::fs::create_dir_all(cache.path().join(folder).join("snapshots/abc")).unwrap();
            std::fs::create_dir_all(cache.path().join(folder).join("refs")).unwrap();
            std::fs::write(cache.path().join(folder).join("refs/main"), "abc").unwrap();
        }
        // As on a disk that ignores case.
        std::os::unix::fs::symlink(cache.path().join("models--a--b"), cache.path().join("models--A--B")).unwrap();
        let place = |name: &str| cached::find(cache.path(), name).ok().as_deref().and_then(Place::of);
        assert!(place("a/b--c").is_some() && place("a/b").is_some());
        assert_eq!(place("a--b/c"), place("a/b--c"));
        assert_eq!(place("A/B"), place("a/b"));
        assert_ne!(place("a/b"), place("a/b--c"));
        assert_eq!(place("a/nothing"), None);
    }

    /// A cache with one model, and files outside it that a name could lead to.
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

    #[test]
    fn a_folder_with_one_gguf_is_that_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "GGUF").unwrap();
            path
        };
        // Missing files are reported when it is opened.
        assert_eq!(in_folder(folder.path()).unwrap(), folder.path());
        file("README.md");
        let first = file("a-Q4_0.gguf");
        assert_eq!(in_folder(folder.path()).unwrap(), first);
        assert_eq!(in_folder(&first).unwrap(), first);
        let second = file("a-Q8_0.gguf");
        let why = in_folder(folder.path()).unwrap_err().to_string();
        assert!(why.contains("name one of them") && why.contains(first.to_str().unwrap()), "{why}");
        assert!(why.contains(second.to_str().unwrap()), "{why}");
        // Beside a model in Hugging Face's format, GGUF files are something else.
        file("config.json");
        assert_eq!(in_folder(folder.path()).unwrap(), folder.path());
        std::fs::remove_file(&second).unwrap();
        assert_eq!(in_folder(folder.path()).unwrap(), first, "repositories of GGUF files have one, too");
        file("model.safetensors");
        assert_eq!(in_folder(folder.path()).unwrap(), folder.path());
    }
}
