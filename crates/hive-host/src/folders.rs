//! HiveMind's folders, and crash-safe file writes: after a crash, a file has its old or its new contents, never half.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Cached downloads: MLX for other devices, the starter model of a development build.
///
/// `HIVEMIND_CACHE_DIR` overrides the platform's cache folder.
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

/// The platform's folder for data that must not be lost: identity, approved machines, settings.
pub fn data() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return Some(set("HOME")?.join("Library/Application Support/HiveMind"));
    }
    let usual = || Some(set("HOME")?.join(".local/share"));
    Some(set("XDG_DATA_HOME").or_else(usual)?.join("hivemind"))
}

/// The Hugging Face cache, shared with other programs and located as Python's `huggingface_hub` does: `HF_HUB_CACHE`,
/// else `HUGGINGFACE_HUB_CACHE`, else `HF_HOME/hub`, else `huggingface/hub` in `XDG_CACHE_HOME` or `~/.cache`. `~` and
/// variables in them are expanded as in a shell; an empty variable counts as unset.
pub fn hugging_face_cache() -> Option<PathBuf> {
    hub_cache(&|name| env::var_os(name))
}

/// The file with the token that `hf auth login` wrote: `HF_TOKEN_PATH`, else `token` in the folder of the Hugging Face cache.
pub fn hugging_face_token() -> Option<PathBuf> {
    hub_token(&|name| env::var_os(name))
}

/// [`hugging_face_cache`] in this environment.
fn hub_cache(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| hub_path(name, variable);
    set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(hub_home(variable)?.join("hub")))
}

/// [`hugging_face_token`] in this environment.
fn hub_token(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    hub_path("HF_TOKEN_PATH", variable).or_else(|| Some(hub_home(variable)?.join("token")))
}

fn hub_home(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| hub_path(name, variable);
    let usual = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("HF_HOME").or_else(|| Some(usual()?.join("huggingface")))
}

/// The path in a variable, expanded; `None` if it is unset or empty.
fn hub_path(name: &str, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let value = variable(name).filter(|value| !value.is_empty())?;
    Some(PathBuf::from(value.to_str().map_or(value.clone(), |text| expanded(text, variable))))
}

/// Expands `~`, `$NAME` and `${NAME}` in a path, each once; unset variables stay as written.
fn expanded(path: &str, variable: &dyn Fn(&str) -> Option<OsString>) -> OsString {
    let mut made = OsString::new();
    let mut rest = path;
    if let Some(home) = variable("HOME").filter(|_| rest == "~" || rest.starts_with("~/")) {
        made.push(home);
        rest = &rest[1..];
    }
    while let Some(at) = rest.find('$') {
        made.push(&rest[..at]);
        rest = &rest[at..];
        let (written, name) = named(rest);
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => made.push(value),
            None => made.push(written),
        }
        rest = &rest[written.len()..];
    }
    made.push(rest);
    made
}

/// The variable at the start of a text, as written and by name; the name is empty for a literal `$`.
fn named(text: &str) -> (&str, &str) {
    let braced = text.strip_prefix("${").and_then(|after| after.find('}').map(|end| &after[..end]));
    if let Some(name) = braced {
        return (&text[..name.len() + "${}".len()], name);
    }
    let after = &text["$".len()..];
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
    (&text[..end + "$".len()], &after[..end])
}

/// Creates a folder and its parents, accessible by the owner only.
pub fn create_private(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes other users' permissions from a file or folder. A shared folder such as `/tmp` stays as it is.
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

/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;
/// The sticky bit, which marks a folder shared by all users.
const STICKY: u32 = 0o1000;

/// Removes files that [`write_private`] left behind when its process was killed. Nobody else may be writing there.
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

/// Suffix of files that are being written, after the process id.
const HALF_WRITTEN: &str = ".new";

/// Replaces a file atomically, readable by its owner only: readers see the old or the new contents, even after a crash.
pub fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut staging = path.as_os_str().to_owned();
    staging.push(format!(".{}{HALF_WRITTEN}", std::process::id()));
    let staging = PathBuf::from(staging);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staging)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&staging, path)?;
        // Persists the rename itself.
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
    /// The cache in an environment of these variables.
    fn cache_in(variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        hub_cache(&variable).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_hugging_face_token_is_where_its_own_library_has_it() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "/home/ann/.cache/huggingface/token"),
            (&[("HF_HOME", "~/models")], "/home/ann/models/token"),
            (&[("HF_HOME", "/models"), ("HF_TOKEN_PATH", "$HOME/.token")], "/home/ann/.token"),
        ];
        for (variables, path) in cases {
            let variable = |name: &str| {
                let all = [&[("HOME", "/home/ann")], *variables].concat();
                all.into_iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            assert_eq!(hub_token(&variable), Some(PathBuf::from(path)), "{variables:?}");
        }
    }

    #[test]
    fn the_hugging_face_cache_is_where_its_own_library_has_it() {
        const HOME: (&str, &str) = ("HOME", "/home/ann");
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "/home/ann/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/fast")], "/fast/huggingface/hub"),
            (&[("HF_HOME", "/models"), ("XDG_CACHE_HOME", "/fast")], "/models/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/models")], "/old"),
            (&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/new"),
            // Empty variables count as unset.
            (&[("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", ""), ("XDG_CACHE_HOME", "")], "/home/ann/.cache/huggingface/hub"),
            // Expanded as in a shell.
            (&[("HF_HOME", "~/models")], "/home/ann/models/hub"),
            (&[("HF_HOME", "~")], "/home/ann/hub"),
            (&[("HF_HUB_CACHE", "$DISK/hub"), ("DISK", "/mnt/ssd")], "/mnt/ssd/hub"),
            (&[("HF_HUB_CACHE", "/mnt/${USER}s/hub"), ("USER", "ann")], "/mnt/anns/hub"),
            (&[("XDG_CACHE_HOME", "~/.fast")], "/home/ann/.fast/huggingface/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "${HOME}/old")], "/home/ann/old"),
            // Unset variables and literal dollars stay as written; values are not expanded again.
            (&[("HF_HUB_CACHE", "/a$NOBODY/${NOBODY}/$/b${")], "/a$NOBODY/${NOBODY}/$/b${"),
            (&[("HF_HUB_CACHE", "$A/hub"), ("A", "/x$B"), ("B", "never")], "/x$B/hub"),
            (&[("HF_HUB_CACHE", "/a~/b")], "/a~/b"),
        ];
        for (variables, cache) in cases {
            let all = [*variables, &[HOME]].concat();
            assert_eq!(cache_in(&all).as_deref(), Some(*cache), "{variables:?}");
        }
        assert_eq!(cache_in(&[]), None);
    }
}
