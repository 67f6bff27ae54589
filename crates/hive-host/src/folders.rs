//! Where HiveMind keeps its files.

use std::env;
use std::path::PathBuf;

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

/// The Hugging Face cache, shared with other programs: `HF_HUB_CACHE`, else `HF_HOME/hub`, else the usual place.
pub fn hugging_face_cache() -> Option<PathBuf> {
    let home = || set("HF_HOME").map(|home| home.join("hub"));
    let usual = || Some(set("HOME")?.join(".cache/huggingface/hub"));
    set("HF_HUB_CACHE").or_else(home).or_else(usual)
}

fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
