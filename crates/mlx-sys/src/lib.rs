//! Raw bindings to mlx-c, generated at build time and linked to Apple's prebuilt MLX.
//!
//! This crate replaces the published `mlx-sys` by `[patch.crates-io]`, so that `mlx-rs` builds unchanged on macOS
//! (Metal), Linux CPU and Linux CUDA. `build/main.rs` tells how the pieces are found. Nothing here is safe to call
//! directly; `mlx-rs` and `hive-kernels` are the safe surfaces.

#![allow(unsafe_code, missing_docs, unreachable_pub)]
#![allow(non_upper_case_globals, non_camel_case_types, non_snake_case)]
#![allow(clippy::all, clippy::pedantic)]

/// IEEE half precision as mlx-c passes it: the bits.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, Default)]
pub struct float16_t(pub u16);

/// bfloat16 as mlx-c passes it: the bits.
pub type bfloat16_t = u16;

/// The folder that holds the MLX library this executable was linked against.
pub const LINKED_MLX_DIR: &str = env!("MLX_LINKED_DIR");

/// The MLX version of the pinned wheels.
pub const MLX_VERSION: &str = env!("MLX_WHEEL_VERSION");

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
