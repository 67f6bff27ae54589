//! Selects a worker's MLX library: one executable serves CPU and CUDA, and the choice is made at the worker's start.

use std::path::{Path, PathBuf};

/// The MLX library to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MlxChoice {
    /// The one the executable was linked against: Metal on a Mac, the CPU on Linux.
    Linked,
    /// CUDA, from a folder.
    Cuda(PathBuf),
    /// A folder that the owner named.
    Folder(PathBuf),
    /// CUDA was requested but is not available.
    MissingCuda,
}

/// Chooses by `HIVEMIND_MLX` (`cpu`, `cuda`, `metal` or a folder) and the machine: CUDA if there is a GPU and a library
/// for it, else the linked library.
pub fn choose() -> MlxChoice {
    decide(std::env::var("HIVEMIND_MLX").ok().as_deref(), hive_host::has_nvidia_card(), cuda_folder())
}

/// Whether the chosen library computes on a GPU.
pub fn computes_on_gpu() -> bool {
    match choose() {
        MlxChoice::Cuda(_) => true,
        MlxChoice::Linked | MlxChoice::MissingCuda => {
            hive_host::this().gpu_working_set_bytes().is_some() || is_linked_for_cuda()
        }
        // An explicit folder is assumed to use the machine's GPU, if there is one.
        MlxChoice::Folder(_) => cfg!(target_os = "macos") || hive_host::has_nvidia_card(),
    }
}

/// Whether `LD_LIBRARY_PATH` or the like has put MLX for CUDA in the place of the linked one. Workers inherit that.
fn is_linked_for_cuda() -> bool {
    hive_host::has_nvidia_card() && hive_host::loaded_library("libcudart").is_some()
}

/// The file of the MLX that this process has loaded, if the system says so.
pub fn loaded() -> Option<PathBuf> {
    hive_host::loaded_library("libmlx")
}

fn decide(setting: Option<&str>, has_card: bool, cuda: Option<PathBuf>) -> MlxChoice {
    match (setting, cuda) {
        (Some("cpu" | "metal"), _) => MlxChoice::Linked,
        (Some("cuda"), Some(folder)) => MlxChoice::Cuda(folder),
        (Some("cuda"), None) => MlxChoice::MissingCuda,
        (Some(path), _) if Path::new(path).is_absolute() => MlxChoice::Folder(Path::new(path).join("lib")),
        (_, Some(folder)) if has_card => MlxChoice::Cuda(folder),
        _ => MlxChoice::Linked,
    }
}

/// The environment variable that makes a new process load the chosen library, unless it is the linked one.
pub(crate) fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    let folder = match choose() {
        MlxChoice::Cuda(folder) | MlxChoice::Folder(folder) => folder,
        MlxChoice::Linked | MlxChoice::MissingCuda => return None,
    };
    let variable = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
    let mut folders = vec![folder];
    folders.extend(std::env::split_paths(&std::env::var_os(variable).unwrap_or_default()));
    Some((variable, std::env::join_paths(folders).ok()?))
}

/// The `lib` folder of the cached CUDA wheel.
fn cuda_folder() -> Option<PathBuf> {
    let wanted = format!("mlx-cuda-13-{}-", hive_model::device::MLX_VERSION);
    let entries = std::fs::read_dir(hive_host::folders::cache()?.join("mlx")).ok()?;
    let mut folders = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(&wanted) && name.ends_with(std::env::consts::ARCH)
    });
    folders.next().map(|entry| entry.path().join("mlx/lib")).filter(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_comes_before_the_machine() {
        let cuda = || Some(PathBuf::from("/cuda"));
        assert_eq!(decide(None, true, cuda()), MlxChoice::Cuda("/cuda".into()));
        assert_eq!(decide(None, false, cuda()), MlxChoice::Linked);
        assert_eq!(decide(None, true, None), MlxChoice::Linked);
        assert_eq!(decide(Some("cpu"), true, cuda()), MlxChoice::Linked);
        assert_eq!(decide(Some("cuda"), false, cuda()), MlxChoice::Cuda("/cuda".into()));
        assert_eq!(decide(Some("cuda"), true, None), MlxChoice::MissingCuda);
        assert_eq!(decide(Some("/my/mlx"), true, cuda()), MlxChoice::Folder("/my/mlx/lib".into()));
    }
}
