//! A short run of the fuzz targets for text: no panic, no abort, nothing slow.

#![allow(unreachable_pub, reason = "the fuzzers' crate exports what this file only includes")]

#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/src/template.rs"]
mod template;
#[path = "../../../fuzz/src/tokenizer.rs"]
mod tokenizer;

#[test]
fn templates() {
    mutate::short_run(&template::seeds(), 3000, template::run);
}

#[test]
fn tokenizers() {
    mutate::short_run(&tokenizer::seeds(), 2000, tokenizer::run);
}
