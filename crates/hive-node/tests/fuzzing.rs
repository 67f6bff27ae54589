//! A short run of every fuzz target but the kernels': no panic, no abort, nothing that takes long.

#![allow(unreachable_pub, reason = "the fuzzers' crate exports what this file only includes")]

use std::time::{Duration, Instant};

#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;

macro_rules! targets {
    ($($target:ident: $mutations:literal, $path:literal;)*) => { $(
        #[path = $path]
        mod $target;

        #[test]
        fn $target() {
            let run = |data: &[u8]| {
                let started = Instant::now();
                let is_accepted = $target::run(data);
                let took = started.elapsed();
                assert!(took < Duration::from_secs(10), "{took:?} for {:?}", data.escape_ascii().to_string());
                is_accepted
            };
            mutate::short_run(&$target::seeds(), $mutations, run);
        }
    )* };
}

targets! {
    weights: 2000, "../../../fuzz/src/weights.rs";
    template: 3000, "../../../fuzz/src/template.rs";
    tokenizer: 2000, "../../../fuzz/src/tokenizer.rs";
    wire: 20000, "../../../fuzz/src/wire.rs";
    control: 20000, "../../../fuzz/src/control.rs";
    worker: 20000, "../../../fuzz/src/worker.rs";
}
