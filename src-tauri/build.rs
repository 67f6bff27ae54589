//! Tauri's build step, and the run path to MLX.

#[path = "../crates/mlx-sys/rpath.rs"]
mod rpath;

fn main() {
    tauri_build::build();
    rpath::link();
}
