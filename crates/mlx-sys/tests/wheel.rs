//! What a person reads when MLX cannot be fetched: the build script itself, run without a network, without room, and with
//! a file that is not the pinned one.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The build script that cargo has just built: its own output folder lies beside this package's.
fn build_script() -> PathBuf {
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).unwrap();
    let scripts = std::fs::read_dir(builds).unwrap().map(|entry| entry.unwrap().path().join("build-script-main"));
    let ours = scripts.filter(|script| script.exists() && script.to_string_lossy().contains("/mlx-sys-"));
    ours.max_by_key(|script| script.metadata().unwrap().modified().unwrap()).unwrap()
}

/// Runs a shell's `before`, then the build script with an empty cache and pip without a network; gives what it says.
fn refusal(cache: &Path, wheels: &Path, before: &str) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{before} exec \"$0\"")])
        .arg(build_script())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("HIVEMIND_CACHE_DIR", cache)
        .env_remove("HIVEMIND_MLX")
        .env("OUT_DIR", cache)
        .env("CARGO_CFG_TARGET_OS", "linux")
        .env("CARGO_CFG_TARGET_ARCH", "x86_64")
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", wheels)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// A file that pip takes for the wheel, filled up to `bytes`.
fn wheel_of(folder: &Path, bytes: usize) {
    let script = "
import sys, zipfile
name = 'mlx_cpu-0.32.2'
with zipfile.ZipFile(f'{sys.argv[1]}/{name}-py3-none-manylinux_2_35_x86_64.whl', 'w') as wheel:
    wheel.writestr(f'{name}.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: mlx-cpu\\nVersion: 0.32.2\\n')
    wheel.writestr(f'{name}.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: false\\n')
    wheel.writestr(f'{name}.dist-info/RECORD', '')
    wheel.writestr('mlx/lib/libmlx.so', bytes(int(sys.argv[2])))
";
    let made = Command::new("python3").args(["-c", script]).arg(folder).arg(bytes.to_string()).status().unwrap();
    assert!(made.success());
}

#[test]
fn without_a_network_it_says_what_is_missing_and_leaves_nothing_half_done() {
    let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let said = refusal(cache.path(), wheels.path(), "");
    assert!(said.contains("could not download mlx-cpu==0.32.2") && said.contains("hint: connect"), "{said}");
    assert_eq!(std::fs::read_dir(cache.path().join("mlx")).unwrap().count(), 0);
}

#[test]
fn another_file_of_the_same_name_is_not_taken() {
    let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    wheel_of(wheels.path(), 10);
    let said = refusal(cache.path(), wheels.path(), "");
    assert!(said.contains("not the pinned") && said.contains("not the file this project was built with"), "{said}");
    assert_eq!(std::fs::read_dir(cache.path().join("mlx")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_or_no_place_to_write_is_named() {
    let (cache, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    wheel_of(wheels.path(), 3_000_000);
    let full = format!("mount -t tmpfs -o size=1m tmpfs {};", cache.path().display());
    let said = refusal(cache.path(), wheels.path(), &full);
    assert!(said.contains("No space left on device") && said.contains("hint: free some disk space"), "{said}");
    let said = refusal(Path::new("/proc/nowhere"), wheels.path(), "");
    assert!(said.contains("cannot create /proc/nowhere"), "{said}");
}
