//! For the build scripts of executables: where they find MLX. In a package, beside them; in a development build, in the cache.

pub(crate) fn link() {
    let mlx = std::env::var("DEP_MLX_LIB").expect("mlx-sys publishes its library folder");
    let target = std::env::var("CARGO_CFG_TARGET_OS").expect("cargo sets the target");
    let beside = if target == "macos" { "@executable_path/../Frameworks" } else { "$ORIGIN/../lib/hivemind/mlx/lib" };
    for folder in [beside, &mlx] {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{folder}");
    }
    if target == "linux" {
        // RUNPATH, not RPATH: LD_LIBRARY_PATH must win, that is how a worker gets MLX for CUDA.
        println!("cargo::rustc-link-arg-bins=-Wl,--enable-new-dtags");
    }
}
