//! Compiles the kernels once per instruction set, and the code that dispatches to them.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");
    // One source, compiled with different flags: its vector types lower to whatever the flags allow. Contraction must
    // be on everywhere: each multiply-add rounds once, so that every instruction set gives the same bits.
    let isas: &[(&str, &[&str])] = match arch.as_str() {
        "x86_64" => &[
            ("avx512", &["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"]),
            ("avx2", &["-mavx2", "-mfma", "-mf16c"]),
            ("baseline", &[]),
        ],
        // NEON is part of the baseline on Arm.
        _ => &[("baseline", &[])],
    };
    for (isa, flags) in isas {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++20")
            .opt_level(3)
            .flag("-ffp-contract=fast")
            .flag("-fno-math-errno")
            .flag("-Wno-psabi")
            .flag_if_supported("-Wno-maybe-uninitialized");
        for flag in *flags {
            build.flag(flag);
        }
        build.define("HIVE_ISA", *isa).file("cpp/kernels.cpp").compile(&format!("hive_kernels_{isa}"));
    }

    let include = env::var("DEP_MLX_INCLUDE").expect("mlx-sys publishes its include folder");
    let shims = env::var("DEP_MLX_SHIMS").expect("mlx-sys publishes its shims");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .include(include)
        .flag("-include")
        .flag(Path::new(&shims).join("format.h").to_string_lossy().as_ref())
        .warnings(false);
    if arch == "x86_64" {
        build.define("HIVE_X86", None);
    }
    for file in ["primitives", "at_once", "delta", "fused", "rows", "threads"] {
        build.file(format!("cpp/{file}.cpp"));
    }
    build.compile("hive_primitives");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-lib=dylib=stdc++");
        println!("cargo::rustc-link-lib=dylib=pthread");
    }
}
