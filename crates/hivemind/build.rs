//! Sets the run path to MLX in the executable, and makes the pages for browsers part of it if they are built.

#[path = "../mlx-sys/rpath.rs"]
mod rpath;

use std::fmt::Write;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    rpath::link();
    let window = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui");
    let built = window.join("dist");
    let mut table = "/// The files of the pages, by path; empty if they were not built.\n\
                     static PAGES: &[(&str, &[u8])] = &[\n"
        .to_owned();
    if built.join("index.html").exists() {
        println!("cargo::rerun-if-changed={}", built.display());
        list(&built, "", &mut table)?;
    } else {
        println!("cargo::rerun-if-changed={}", window.display());
    }
    table += "];\n";
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("pages.rs"), table)
}

fn list(folder: &Path, under: &str, table: &mut String) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), format!("{under}{}", entry.file_name().to_string_lossy()));
        if path.is_dir() {
            list(&path, &format!("{name}/"), table)?;
        } else {
            writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
                .map_err(io::Error::other)?;
        }
    }
    Ok(())
}
