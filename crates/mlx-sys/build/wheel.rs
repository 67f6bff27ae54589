//! MLX as published by Apple: pinned Python wheels, verified and unpacked once into a cache.
//!
//! A cached wheel needs no network. The cache is `HIVEMIND_CACHE_DIR`, else the platform's cache folder; a folder in it
//! is either complete or absent, since it is renamed into place at the end.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// The MLX version that mlx-rs 0.33 supports.
pub const VERSION: &str = "0.32.2";

/// A published wheel.
pub struct Wheel {
    name: &'static str,
    /// pip's platform tag, which also names the folder in the cache.
    platform: &'static str,
    sha256: &'static str,
}

const METAL: Wheel = Wheel {
    name: "mlx-metal",
    platform: "macosx_14_0_arm64",
    sha256: "3825fff379dbc107dd3413e564a06caeaa24819910ec49c0439e454c06a1b9b8",
};
const CPU_X86_64: Wheel = Wheel {
    name: "mlx-cpu",
    platform: "manylinux_2_35_x86_64",
    sha256: "fc5d31b90fc4f457b2f9614ed45651a567d22a6a11a03d114a90a4e10bdd8878",
};
const CPU_AARCH64: Wheel = Wheel {
    name: "mlx-cpu",
    platform: "manylinux_2_35_aarch64",
    sha256: "d0f94625588b51a878786dd51cec5617894ce586cf3c94645ce1b64e24c27c0b",
};
const CUDA_X86_64: Wheel = Wheel {
    name: "mlx-cuda-13",
    platform: "manylinux_2_35_x86_64",
    sha256: "335094ccd1c0c6dc3e09c8caba207c8180602bacc0c38ba20c1d81e9456ab394",
};
const CUDA_AARCH64: Wheel = Wheel {
    name: "mlx-cuda-13",
    platform: "manylinux_2_35_aarch64",
    sha256: "49b1a25df9021f3b519a534fd39a32a5cdbf93a1b265a31e59671c2d9fc9f4a2",
};

/// A platform with published MLX wheels.
#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    MacArm64,
    LinuxX86_64,
    LinuxAarch64,
}

impl Target {
    /// The platform cargo compiles for.
    pub fn from_cargo() -> Result<Self, String> {
        let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
        let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
        match (os.as_str(), arch.as_str()) {
            ("macos", "aarch64") => Ok(Self::MacArm64),
            ("linux", "x86_64") => Ok(Self::LinuxX86_64),
            ("linux", "aarch64") => Ok(Self::LinuxAarch64),
            _ => Err(format!(
                "MLX is published for Apple silicon and for Linux on x86-64 and Arm, not for {os} on {arch}"
            )),
        }
    }

    pub fn is_mac(self) -> bool {
        self == Self::MacArm64
    }
}

/// The folder (with `include` and `lib`) of the MLX to link against.
///
/// `HIVEMIND_MLX` may name such a folder. `cpu`, `cuda` and `metal` select a library at run time and do not affect
/// linking, which uses the platform's own: all of them export the same symbols.
pub fn linked(target: Target) -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("HIVEMIND_MLX").map(PathBuf::from).filter(|path| path.is_absolute()) {
        if !path.join("include/mlx/mlx.h").is_file() {
            return Err(format!("HIVEMIND_MLX names {}, which holds no include/mlx/mlx.h", path.display()));
        }
        return Ok(path);
    }
    fetch(match target {
        Target::MacArm64 => &METAL,
        Target::LinuxX86_64 => &CPU_X86_64,
        Target::LinuxAarch64 => &CPU_AARCH64,
    })
}

/// The CUDA wheel of a platform.
pub fn cuda(target: Target) -> Result<&'static Wheel, String> {
    match target {
        Target::LinuxX86_64 => Ok(&CUDA_X86_64),
        Target::LinuxAarch64 => Ok(&CUDA_AARCH64),
        Target::MacArm64 => Err("HIVEMIND_MLX=cuda: there is no CUDA on a Mac; leave it unset for Metal".into()),
    }
}

/// The unpacked wheel's `mlx` folder, fetched if not cached.
pub fn fetch(wheel: &Wheel) -> Result<PathBuf, String> {
    let home = cache_dir()?.join("mlx");
    let folder = home.join(format!("{}-{VERSION}-{}", wheel.name, wheel.platform));
    if !folder.is_dir() {
        let staging = home.join(format!(".{}-{}-{}", wheel.name, wheel.platform, std::process::id()));
        let done = unpack_into(wheel, &staging).and_then(|()| match fs::rename(&staging, &folder) {
            // Two builds may race; the second finds the folder in place.
            Err(error) if !folder.is_dir() => Err(format!("cannot create {}: {error}", folder.display())),
            _ => Ok(()),
        });
        let _ = fs::remove_dir_all(&staging);
        done?;
    }
    Ok(folder.join("mlx"))
}

fn unpack_into(wheel: &Wheel, staging: &Path) -> Result<(), String> {
    fs::create_dir_all(staging).map_err(|error| format!("cannot create {}: {error}", staging.display()))?;
    let requirement = format!("{}=={VERSION}", wheel.name);
    let download = staging.join("download");
    python(
        &["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform", wheel.platform, "-d"],
        &[download.as_os_str(), requirement.as_ref()],
    )
    .map_err(|why| {
        let hint = if why.contains("No space left") {
            "free some disk space".to_owned()
        } else {
            format!("connect this machine to the internet once, or set HIVEMIND_MLX to a folder with MLX {VERSION}")
        };
        format!("could not download {requirement} for {}: {why}\nhint: {hint}", wheel.platform)
    })?;
    let file = fs::read_dir(&download)
        .ok()
        .and_then(|mut entries| entries.next()?.ok())
        .ok_or_else(|| format!("pip downloaded no file for {requirement}"))?
        .path();
    let bytes = fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 != wheel.sha256 {
        return Err(format!(
            "{requirement} has checksum {sha256}, not the pinned {}: it is not the file this project was built with",
            wheel.sha256
        ));
    }
    python(&["-m", "zipfile", "-e"], &[file.as_os_str(), staging.as_os_str()])
        .map_err(|why| format!("could not unpack {}: {why}", file.display()))?;
    fs::remove_dir_all(&download).map_err(|error| format!("cannot remove {}: {error}", download.display()))
}

fn python(arguments: &[&str], paths: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output = Command::new("python3")
        .args(arguments)
        .args(paths)
        .output()
        .map_err(|error| format!("cannot run python3: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // The end of pip's output has the reason; its beginning is retries.
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(lines[lines.len().saturating_sub(3)..].join("\n"))
}

fn cache_dir() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("HIVEMIND_CACHE_DIR") {
        return Ok(path.into());
    }
    if let Some(path) = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path).join("hivemind"));
    }
    let home = env::var_os("HOME").ok_or("neither HIVEMIND_CACHE_DIR nor HOME is set")?;
    Ok(PathBuf::from(home).join(if cfg!(target_os = "macos") { "Library/Caches/hivemind" } else { ".cache/hivemind" }))
}
