//! Where HiveMind keeps its files, and how it writes them so that a crash leaves the old or the new, never half.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
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

/// Takes from others on this machine what they may do with a folder or file of its owner's. A folder that belongs to all, as
/// `/tmp` does, stays as it is.
pub fn make_private(path: &Path) -> std::io::Result<()> {
    let permissions = fs::metadata(path)?.permissions();
    let mode = permissions.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    if mode & STICKY != 0 {
        return Err(std::io::Error::other("it is a folder for everybody's files"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !OTHERS))
}

/// What others than the owner may do.
const OTHERS: u32 = 0o077;
/// What marks a folder as one for everybody's files.
const STICKY: u32 = 0o1000;

/// Removes what [`write_private`] left in a folder when its process was killed. Nobody else may be writing there.
pub fn remove_half_written(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let half =
            name.to_str().and_then(|name| name.strip_suffix(HALF_WRITTEN)).and_then(|name| name.rsplit_once('.'));
        if half.is_some_and(|(_, process)| process.parse::<u32>().is_ok()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// How names of files end that are being written, after the process's number.
const HALF_WRITTEN: &str = ".new";

/// Replaces a file at once, readable by its owner only: whoever reads sees the old or the new, also after a crash.
pub fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut staging = path.as_os_str().to_owned();
    staging.push(format!(".{}{HALF_WRITTEN}", std::process::id()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_that_others_can_look_into_is_closed_and_one_for_everybody_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for (before, after) in [(0o755, 0o700), (0o2775, 0o2700), (0o700, 0o700)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(before)).unwrap();
            make_private(folder.path()).unwrap();
            assert_eq!(mode(folder.path()), after);
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(make_private(folder.path()).unwrap_err().to_string().contains("everybody"));
        assert_eq!(mode(folder.path()), 0o1777);
    }

    #[test]
    fn only_what_was_half_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["peers.json.4711.new", "peers.json", "brand.new", "notes.4711.new.txt", "a.b.new"];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_half_written(folder.path()).unwrap();
        let left = names.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [false, true, true, true, true]);
    }
}
