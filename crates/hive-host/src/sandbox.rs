//! Confinement for processes that parse strangers' files: weights, tokenizers, chat templates.
//!
//! A confined process computes, reads the files it was given and uses the pipes it was started with. It cannot open a
//! socket, write or create a file, start a program, inspect another process, or leave a core dump. Linux uses landlock
//! for files and seccomp for system calls, macOS a sandbox profile. A confinement can only be tightened, and ends with
//! the process.
//!
//! Access for a GPU driver (its devices, a folder for compiled kernels) is granted by name, and only where a GPU is
//! used.

mod confinement;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(target_os = "macos", test))]
pub(crate) mod profile;

use std::path::{Path, PathBuf};

pub(crate) use confinement::search_path;
pub use confinement::{Confine, ConfineError, Confinement, Step};

/// Confines this process permanently. Call it before starting a thread or reading untrusted bytes.
///
/// A system without confinement (Linux before 5.13, or with landlock disabled) is not an error: the result says what is
/// in force.
pub fn confine(confine: &Confine) -> Result<Step, ConfineError> {
    forbid_core_dumps()?;
    #[cfg(target_os = "linux")]
    return linux::confine(confine);
    #[cfg(target_os = "macos")]
    return crate::macos::confine(confine).map(Step::Done);
}

/// Completes [`confine`] after a [`Step::Restart`].
pub fn confine_again(confine: &Confine) -> Result<Confinement, ConfineError> {
    forbid_core_dumps()?;
    #[cfg(target_os = "linux")]
    return linux::confine_calls(confine).map(|calls| Confinement { files: true, calls });
    #[cfg(target_os = "macos")]
    return crate::macos::confine(confine);
}

fn forbid_core_dumps() -> Result<(), ConfineError> {
    // A core dump contains prompts and weights.
    let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let refused = |error: rustix::io::Errno| ConfineError(error.to_string());
    rustix::process::setrlimit(rustix::process::Resource::Core, no_core).map_err(refused)
}

/// Marks all open descriptors from 3 up close-on-exec, so that child processes do not inherit the files and sockets
/// that this process was started with. Rust sets the flag on those it opens later.
pub fn keep_descriptors() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// The paths that a worker must read for a model: its files or folder, and the files that links in the folder point to.
/// A downloaded model's folder can consist of links to files outside it.
pub fn paths_of(model: &[PathBuf]) -> Vec<PathBuf> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let linked = |folder: &PathBuf| {
        let links = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let links = links.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        links.filter_map(|entry| real(&entry.path()).filter(|path| path.is_file())).collect::<Vec<_>>()
    };
    model.iter().flat_map(|path| real(path).into_iter().chain(linked(path))).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_loaders_search_path_opens_no_more_than_folders_of_libraries() {
        let folders: Vec<_> = search_path(OsStr::new("/opt/mlx/lib::lib:/:.:/usr/local/lib")).collect();
        assert_eq!(folders, [PathBuf::from("/opt/mlx/lib"), PathBuf::from("/usr/local/lib")]);
    }

    #[test]
    fn a_downloaded_model_is_its_folder_and_the_files_its_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshots/1"));
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(blobs.join("weights"), "w").unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        std::os::unix::fs::symlink("../../blobs/weights", snapshot.join("model.safetensors")).unwrap();
        // A link to a folder grants nothing: a model's files are all in one folder.
        std::os::unix::fs::symlink("/etc", snapshot.join("etc")).unwrap();
        let real = |path: PathBuf| std::fs::canonicalize(path).unwrap();
        assert_eq!(paths_of(std::slice::from_ref(&snapshot)), [real(snapshot.clone()), real(blobs.join("weights"))]);
        assert_eq!(paths_of(&[folder.path().join("missing")]), Vec::<PathBuf>::new());
        let both = [snapshot.join("model.safetensors"), snapshot.join("config.json")];
        assert_eq!(paths_of(&both), [real(blobs.join("weights")), real(both[1].clone())], "files of a model");
    }
}
