//! Model computation: layers, KV cache and sampling, up to a [`Shard`].
//!
//! A [`Shard`] is a contiguous range of a model's layers in memory, with the sessions that run through it. It is loaded
//! from a model on disk, a [`ModelFiles`](hive_weights::ModelFiles), which also says what each layer computes. This crate
//! knows nothing of networks, processes or other machines.
//!
//! Invariants:
//! - A shard reads only the bytes of its own layers.
//! - One thread owns a shard; MLX's streams are thread-local.
//!
//! `examples/split.rs` computes a token with a model that is split in two.

pub mod device;
pub mod sampling;
mod session_id;
pub mod shard;
mod span;

mod adaptable;
mod adapter;
mod blocks;
mod embedding;
mod error;
mod footprint;
mod hidden;
mod kv;
mod linear;
mod recurrent;
mod requantize;
mod stage;

#[cfg(test)]
#[path = "../../hive-weights/tests/common/oracle.rs"]
mod oracle;

pub use adaptable::check_adapter;
pub use adapter::{AdapterId, AdapterRefused};
pub use device::Compute;
pub use footprint::{Footprint, StateBytes};
pub use hidden::{ActivationType, Hidden};
pub use hive_weights::weights::AtLoad;
pub use kv::KvLayout;
pub use sampling::Sampling;
pub use shard::{
    CarriedSession, ForwardError, LoadError, Output, SessionId, SessionOptions, Shard, ShardOptions, Slot, Step,
};
