//! Finds a model on this machine by what a person calls it.

use std::path::{Path, PathBuf};

use hive_model::{ModelFiles, OpenError};

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
    Open(#[from] OpenError),
}

/// Opens a model: a path, an `owner/name` from the Hugging Face cache, or, with no name, the starter model.
pub fn open(name: Option<&str>) -> Result<ModelFiles, FindError> {
    let path = match name {
        None => starter().ok_or(FindError::NoStarter)?,
        Some(name) => find(name)?,
    };
    Ok(ModelFiles::open(&path)?)
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
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '\\']) && part != ".." && part != ".";
    if !plain(owner) || !plain(model) {
        return None;
    }
    let folder = cache.join(format!("models--{owner}--{model}"));
    let revision = std::fs::read_to_string(folder.join("refs/main")).ok()?;
    Some(folder.join("snapshots").join(revision.trim())).filter(|snapshot| snapshot.is_dir())
}
