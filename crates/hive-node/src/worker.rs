//! The worker: this executable started again, holding one shard and nothing else.
//!
//! It speaks to its node over a socket pair that is its standard input. One thread owns MLX and the socket. When the
//! node goes away the socket ends, and so does the worker.

mod process;
mod protocol;
mod schedule;
mod serve;

pub use process::{Events, SpawnError, Worker, WorkerEvent};
pub use protocol::{Blame, FromWorker, LoadOrder, Raw, ToWorker, Work, WorkerReport};
pub use serve::serve;

/// The hidden subcommand that makes an executable a worker.
pub const SUBCOMMAND: &str = "worker";
