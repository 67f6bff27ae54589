//! A model on disk: weight files, configuration, and the families of models.
//!
//! A [`ModelFiles`] is a model that is opened but not loaded: its configuration and a table of tensors, and on request
//! its tokenizer and chat template, which come from `hive-text`. What a model computes is written down here as values
//! ([`config::LayerSpec`]); `hive-model` computes it. This crate knows nothing of MLX or any other kernels.
//!
//! Invariants:
//! - No number from a file sizes an allocation before it has been checked against the file's length.
//! - A file with a tensor that the computation does not use is refused.
//!
//! `examples/oracle.rs` reads tokenizers and chat templates as HiveMind does.

pub mod adapter;
pub mod config;
pub mod weights;

mod extents;
mod families;
mod files;
mod mlx_form;

pub use config::ModelConfig;
pub use extents::Extent;
pub use files::{ModelFiles, OpenError};
pub use mlx_form::{MlxTensor, Role};

// What the tests of two crates share names this one from outside.
#[cfg(test)]
extern crate self as hive_weights;
#[cfg(test)]
#[path = "../tests/common/oracle.rs"]
mod oracle;
