//! Tauri's own build step, and where the executable finds MLX.

#[path = "../crates/mlx-sys/rpath.rs"]
mod rpath;

fn main() {
    tauri_build::build();
    rpath::link();
}
