//! Sets the run path to MLX in the executable.

#[path = "../mlx-sys/rpath.rs"]
mod rpath;

fn main() {
    rpath::link();
}
