//! Model computation: weight files, model families, KV cache and sampling, up to a [`Shard`].
//!
//! A [`ModelFiles`] is a model on disk, opened but not loaded: its configuration and a table of tensors, and on request
//! its tokenizer and chat template, which come from `hive-text`. A [`Shard`] is a contiguous range of its layers in
//! memory, with the sessions that run through it. This crate knows nothing of networks, processes or other machines.
//!
//! Invariants:
//! - A shard reads only the bytes of its own layers.
//! - No number from a file sizes an allocation before it has been checked against the file's length.
//! - One thread owns a shard; MLX's streams are thread-local.
//!
//! `examples/split.rs` computes a token with a model that is split in two.

pub mod config;
pub mod device;
pub mod files;
pub mod hidden;
pub mod sampling;
pub mod shard;
mod span;
pub mod weights;

mod blocks;
mod embedding;
mod error;
mod extents;
mod families;
mod footprint;
mod kv;
mod linear;
mod recurrent;
mod stage;

pub use config::ModelConfig;
pub use device::Compute;
pub use extents::Extent;
pub use files::{ModelFiles, OpenError};
pub use footprint::{Footprint, StateBytes};
pub use hidden::{ActivationType, Hidden};
pub use kv::KvLayout;
pub use sampling::Sampling;
pub use shard::{
    CarriedSession, ForwardError, LoadError, Output, SessionId, SessionOptions, Shard, ShardOptions, Slot, Step,
};
