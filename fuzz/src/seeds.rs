//! Writes the seeds of every target: `seeds FOLDER` makes `FOLDER/TARGET/0`, `1`, …

use hive_fuzz::{kernels, template, tokenizer, weights};
#[cfg(feature = "node")]
use hive_fuzz::{control, wire, worker};

fn main() -> std::io::Result<()> {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "corpus".to_owned()));
    for (target, seeds) in [
        #[cfg(feature = "node")]
        ("control", control::seeds()),
        ("kernels", kernels::seeds()),
        ("template", template::seeds()),
        ("tokenizer", tokenizer::seeds()),
        ("weights", weights::seeds()),
        #[cfg(feature = "node")]
        ("wire", wire::seeds()),
        #[cfg(feature = "node")]
        ("worker", worker::seeds()),
    ] {
        std::fs::create_dir_all(folder.join(target))?;
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(target).join(number.to_string()), seed)?;
        }
    }
    Ok(())
}
