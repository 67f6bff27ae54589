//! Worker processes: this executable started again, to isolate work that may crash.
//!
//! A **shard worker** holds layers and computes; a **text worker** ([`text`]) reads a model's headers, tokenizer and
//! chat template. Both parse strangers' files, so both are confined: no network, no files but the model and libraries,
//! no programs ([`hive_host::sandbox`]).
//!
//! A worker reads orders from its standard input and replies on its standard output, each a pipe: with one socket for
//! both, each end would be woken whenever the other reads. One thread owns MLX and the pipes. When the node exits, the
//! orders end, and so does the worker.

pub mod mlx_library;
pub mod text;

mod piece_size;
mod probe;
mod process;
mod protocol;
mod schedule;
mod serve;
mod spawn;
mod start;

pub use probe::{Escape, Targets, probe};
pub use process::{Events, Worker, WorkerEvent};
pub use protocol::{
    AdaptFailure, Blame, Ending, FromWorker, LoadOrder, LoadedAdapters, Raw, ToWorker, Work, WorkerReport,
};
pub use serve::serve;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub use spawn::here::read_texts_here;
pub use spawn::{Death, SpawnError, prepare};

/// The hidden subcommand that runs an executable as a worker.
pub const SUBCOMMAND: &str = "worker";
