//! What is fuzzed: each target takes bytes of a stranger's and gives them to what reads such bytes. Nothing may panic, abort,
//! take more than a second or a gigabyte.
//!
//! The same functions run in the normal tests over the seeds and some thousand mutations of them (`tests/fuzzing.rs` of the
//! crates), so they stay compiled and short runs of them are part of every test run.

#[cfg(feature = "node")]
pub mod control;
pub mod kernels;
pub mod template;
pub mod tokenizer;
pub mod weights;
#[cfg(feature = "node")]
pub mod wire;
#[cfg(feature = "node")]
pub mod worker;
