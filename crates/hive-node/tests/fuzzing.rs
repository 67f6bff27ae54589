//! A short run of the fuzz targets for weights and messages: no panic, no abort, nothing slow.

#![allow(unreachable_pub, reason = "the fuzzers' crate exports what this file only includes")]

#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;

macro_rules! targets {
    ($($target:ident: $mutations:literal, $path:literal;)*) => { $(
        #[path = $path]
        mod $target;

        #[test]
        fn $target() {
            mutate::short_run(&$target::seeds(), $mutations, $target::run);
        }
    )* };
}

targets! {
    weights: 2000, "../../../fuzz/src/weights.rs";
    wire: 20000, "../../../fuzz/src/wire.rs";
    control: 20000, "../../../fuzz/src/control.rs";
    worker: 20000, "../../../fuzz/src/worker.rs";
}
