//! The worker: this executable started again, holding one shard and nothing else.
//!
//! It takes orders from its standard input and answers on its standard output, a pipe each: on a socket for both, each end
//! is woken whenever the other reads. One thread owns MLX and the pipes. When the node goes away the orders end, and so does
//! the worker.

mod process;
mod protocol;
mod schedule;
mod serve;

pub use process::{Death, Events, SpawnError, Worker, WorkerEvent};
pub use protocol::{Blame, FromWorker, LoadOrder, Raw, ToWorker, Work, WorkerReport};
pub use serve::serve;

/// The hidden subcommand that makes an executable a worker.
pub const SUBCOMMAND: &str = "worker";
