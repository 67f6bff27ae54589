//! Workers: this executable started again, for what may fail without taking the node along.
//!
//! A **shard worker** holds layers and computes; a **text worker** ([`text`]) reads a model's headers, tokenizer and chat template.
//! Both read what strangers wrote, so both are confined: no network, no file but the model and libraries, no program
//! ([`hive_host::sandbox`]).
//!
//! A worker takes orders from its standard input and answers on its standard output, a pipe each: on a socket for both, each end
//! is woken whenever the other reads. One thread owns MLX and the pipes. When the node goes away the orders end, and so does
//! the worker.

pub mod mlx_library;
pub mod text;

mod probe;
mod process;
mod protocol;
mod schedule;
mod serve;
mod spawn;
mod start;

pub use probe::{Escape, Targets, probe};
pub use process::{Events, Worker, WorkerEvent};
pub use protocol::{Blame, FromWorker, LoadOrder, Raw, ToWorker, Work, WorkerReport};
pub use serve::serve;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub use spawn::here::read_texts_here;
pub use spawn::{Death, SpawnError, prepare};

/// The hidden subcommand that makes an executable a worker.
pub const SUBCOMMAND: &str = "worker";
