//! Finds MLX, compiles mlx-c against it, and generates the bindings.
//!
//! Three parts come from three places, none of them in this repository:
//! 1. MLX itself, prebuilt by Apple, from a Python wheel of a pinned version and checksum (`wheel.rs`).
//! 2. mlx-c's source, from the published `mlx-sys`, which cargo has fetched and verified (`mlx_c.rs`).
//! 3. The bindings, from mlx-c's headers by bindgen. One set, made for the host, serves every target: the functions
//!    take only pointers and fixed-width numbers.

mod mlx_c;
mod wheel;

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    if let Err(message) = build() {
        // Cargo surrounds a build script's panic with a backtrace; a plain message is easier to act on.
        eprintln!("\nerror: {message}\n");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=shims");
    println!("cargo::rerun-if-env-changed=HIVEMIND_MLX");
    println!("cargo::rerun-if-env-changed=HIVEMIND_CACHE_DIR");

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let target = wheel::Target::from_cargo()?;
    let mlx = wheel::linked(target)?;
    if env::var("HIVEMIND_MLX").as_deref() == Ok("cuda") {
        // Cached, not linked: the executable chooses its MLX when it starts a worker.
        wheel::fetch(wheel::cuda(target)?)?;
    }
    let source = mlx_c::locate()?;

    compile(&source, &mlx, target);
    bind(&source, &out)?;
    link(&mlx, &out, target)?;
    Ok(())
}

fn compile(source: &Path, mlx: &Path, target: wheel::Target) {
    let shims = PathBuf::from("shims");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .include(source)
        .include(mlx.join("include"))
        .flag("-include")
        .flag(shims.join("format.h").to_string_lossy().as_ref())
        .warnings(false)
        .opt_level(2)
        .file(shims.join("half.cpp"));
    if !target.is_mac() {
        build.file(shims.join("mach_time.cpp"));
    }
    for file in mlx_c::cpp_files(source) {
        build.file(file);
    }
    build.compile("mlxc");
}

fn bind(source: &Path, out: &Path) -> Result<(), String> {
    let host = env::var("HOST").map_err(|_| "HOST is not set")?;
    let mut builder = bindgen::Builder::default()
        .clang_arg(format!("--target={host}"))
        .clang_arg(format!("-I{}", source.display()))
        // `half.h` defines these types only on aarch64, but mlx-rs needs them everywhere.
        .clang_arg("-DHAS_FLOAT16")
        .clang_arg("-DHAS_BFLOAT16")
        .clang_arg("-Ishims")
        .clang_arg("-include")
        .clang_arg("shims/half_types.h")
        .blocklist_type("float16_t|bfloat16_t")
        .blocklist_function("malloc|realloc")
        .layout_tests(false);
    for header in mlx_c::headers(source) {
        builder = builder.header(header.to_string_lossy());
    }
    let bindings = builder.generate().map_err(|error| {
        format!("bindgen could not read mlx-c's headers: {error}. Is libclang installed (Debian: libclang-dev)?")
    })?;
    bindings.write_to_file(out.join("bindings.rs")).map_err(|error| format!("cannot write the bindings: {error}"))
}

fn link(mlx: &Path, out: &Path, target: wheel::Target) -> Result<(), String> {
    // Cargo adds native search paths below its target folder to the library path of tests and `cargo run`; with a link
    // in OUT_DIR, every test finds MLX without an rpath.
    let link = out.join("mlx");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(mlx, &link).map_err(|error| format!("cannot link {}: {error}", link.display()))?;
    println!("cargo::rustc-link-search=native={}", link.join("lib").display());
    println!("cargo::rustc-link-lib=dylib=mlx");
    if target.is_mac() {
        println!("cargo::rustc-link-lib=c++");
        println!("cargo::rustc-link-lib=framework=Foundation");
    } else {
        println!("cargo::rustc-link-lib=stdc++");
    }
    println!("cargo::rustc-env=MLX_LINKED_DIR={}", mlx.join("lib").display());
    println!("cargo::rustc-env=MLX_WHEEL_VERSION={}", wheel::VERSION);
    // Passed to dependents' build scripts as DEP_MLX_INCLUDE and DEP_MLX_LIB.
    println!("cargo::metadata=include={}", mlx.join("include").display());
    println!("cargo::metadata=lib={}", mlx.join("lib").display());
    println!("cargo::metadata=shims={}", std::path::absolute("shims").map_err(|e| e.to_string())?.display());
    Ok(())
}
