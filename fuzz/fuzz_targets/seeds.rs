//! Writes the seeds of every target into the folder `HIVE_FUZZ_CORPUS`: `TARGET/0`, `TARGET/1`, … It fuzzes nothing, but is
//! linked like a target, because what they share is built for the fuzzer.

#![no_main]

use hive_fuzz::{kernels, template, tokenizer, weights};
#[cfg(feature = "node")]
use hive_fuzz::{control, wire, worker};

libfuzzer_sys::fuzz_target!(
    init: {
        write().expect("room for the seeds");
        std::process::exit(0);
    },
    |_data: &[u8]| {}
);

fn write() -> std::io::Result<()> {
    let folder = std::path::PathBuf::from(std::env::var("HIVE_FUZZ_CORPUS").unwrap_or_else(|_| "corpus".to_owned()));
    for (target, seeds) in [
        #[cfg(feature = "node")]
        ("control", control::seeds()),
        ("kernels", [kernels::seeds(), kernels::misfits()].concat()),
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
