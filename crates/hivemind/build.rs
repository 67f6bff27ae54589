//! Tells the executable where MLX is.

#[path = "../mlx-sys/rpath.rs"]
mod rpath;

fn main() {
    rpath::link();
}
