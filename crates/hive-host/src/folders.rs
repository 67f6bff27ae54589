//! Where HiveMind keeps its files, and how it writes them so that a crash leaves the old or the new, never half.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Downloads that can be made again: MLX for other devices, the starter model of a development build.
///
/// `HIVEMIND_CACHE_DIR` overrides; otherwise the platform's cache folder.
pub fn cache() -> Option<PathBuf> {
    if let Some(path) = set("HIVEMIND_CACHE_DIR") {
        return Some(path);
    }
    if let Some(path) = set("XDG_CACHE_HOME") {
        return Some(path.join("hivemind"));
    }
    let home = set("HOME")?;
    Some(home.join(if cfg!(target_os = "macos") { "Library/Caches/hivemind" } else { ".cache/hivemind" }))
}

/// What must not be lost: identity, approved machines, settings. The platform's place for it.
pub fn data() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return Some(set("HOME")?.join("Library/Application Support/HiveMind"));
    }
    let usual = || Some(set("HOME")?.join(".local/share"));
    Some(set("XDG_DATA_HOME").or_else(usual)?.join("hivemind"))
}

/// The Hugging Face cache, shared with other programs: `HF_HUB_CACHE`, else `HF_HOME/hub`, else the usual place.
pub fn hugging_face_cache() -> Option<PathBuf> {
    let home = || set("HF_HOME").map(|home| home.join("hub"));
    let usual = || Some(set("HOME")?.join(".cache/huggingface/hub"));
    set("HF_HUB_CACHE").or_else(home).or_else(usual)
}

/// Makes a folder, and those above it, that only its owner can look into.
pub fn create_private(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces a file at once, readable by its owner only: whoever reads sees the old or the new, also after a crash.
pub fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut staging = path.as_os_str().to_owned();
    staging.push(format!(".{}.new", std::process::id()));
    let staging = PathBuf::from(staging);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staging)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&staging, path)?;
        // The rename itself must reach the disk, too.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&staging);
    }
    result
}

fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
