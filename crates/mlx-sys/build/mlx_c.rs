//! Locates mlx-c's source: inside the published `mlx-sys`, which this crate replaces in the build but not in the
//! registry.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with `mlx/c/*.h` and `mlx/c/*.cpp`.
pub fn locate() -> Result<PathBuf, String> {
    let manifest = Path::new("mlx-c-source/Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Offline first: once fetched, the network is not used again.
    let metadata = run(&cargo, manifest, true).or_else(|_| run(&cargo, manifest, false))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata).map_err(|error| format!("cargo metadata answered nonsense: {error}"))?;
    let manifest_path = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "mlx-sys")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata does not list the published mlx-sys")?;
    let source = Path::new(manifest_path).with_file_name("src").join("mlx-c");
    if !source.join("mlx/c/mlx.h").is_file() {
        return Err(format!("{} holds no mlx-c source", source.display()));
    }
    Ok(source)
}

/// Every C++ file of mlx-c.
pub fn cpp_files(source: &Path) -> Vec<PathBuf> {
    with_extension(source, "cpp")
}

/// Every public header of mlx-c.
pub fn headers(source: &Path) -> Vec<PathBuf> {
    with_extension(source, "h")
}

fn with_extension(source: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(source.join("mlx/c")).into_iter().flatten().flatten();
    let mut files: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn run(cargo: &std::ffi::OsStr, manifest: &Path, offline: bool) -> Result<Vec<u8>, String> {
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--locked", "--manifest-path"]).arg(manifest);
    if offline {
        command.arg("--offline");
    }
    let output = command.output().map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo could not fetch the published mlx-sys, which carries mlx-c's source: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(output.stdout)
}
