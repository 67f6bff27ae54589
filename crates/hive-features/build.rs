//! Does nothing: without it, Cargo passes over the dependencies of build scripts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
