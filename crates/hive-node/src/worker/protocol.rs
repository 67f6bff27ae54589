//! What node and worker say to each other: length-prefixed postcard messages.
//!
//! Both ends are the same executable, so there is no version; a length is still checked, because a broken worker must
//! not take its node down.

use std::ops::Range;
use std::path::PathBuf;

use hive_model::shard::{Input, Output};
use hive_model::{Compute, SessionId, SessionOptions};
use serde::{Deserialize, Serialize};

/// A prompt chunk of the largest models, and then some.
pub(super) const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Which shard to load, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadOrder {
    /// The model's file or folder.
    pub path: PathBuf,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// Kernels.
    pub compute: Compute,
    /// Threads of the fast kernels.
    pub threads: usize,
}

/// One session's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The session.
    pub session: SessionId,
    /// Position of the first row.
    pub position: u32,
    /// Whether the last stage is to choose a token.
    pub sample: bool,
    /// Tokens or hidden states.
    pub input: Input,
}

/// From node to worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Load a shard; the first message.
    Load(LoadOrder),
    /// Open a session.
    Open(SessionId, SessionOptions),
    /// Go on with the cache of a session under another name, from a position on.
    Adopt {
        /// The session that has the cache.
        from: SessionId,
        /// Its new name.
        session: SessionId,
        /// Where it goes on.
        position: u32,
        /// As for a new session.
        options: SessionOptions,
    },
    /// Compute.
    Forward(Work),
    /// Forget a session.
    Close(SessionId),
    /// Say how you are.
    Report,
}

/// How a worker is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Most memory resident so far.
    pub peak_bytes: Option<u64>,
    /// Most KV cache held since the last report.
    pub kv_bytes: u64,
    /// Microseconds spent computing tokens, one alone at a time, since the last report.
    pub decode_us: u64,
    /// How many.
    pub decoded: u64,
}

/// Who is at fault when work fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blame {
    /// What was asked cannot be done.
    Request,
    /// This stage computes nonsense or nothing.
    Own,
    /// The stage before sent what it should not have.
    Previous,
}

/// From worker to node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// So many layers are loaded.
    Progress(usize),
    /// The shard is ready.
    Loaded {
        /// What computes, for people.
        device: String,
    },
    /// It could not be loaded.
    LoadFailed(String),
    /// The output for a [`Work`] of the same session.
    Output {
        /// The session.
        session: SessionId,
        /// The work's position.
        position: u32,
        /// The work's rows.
        rows: u32,
        /// The work's wish.
        sample: bool,
        /// The result.
        output: Output,
    },
    /// A session's work failed.
    Failed {
        /// The session.
        session: SessionId,
        /// The cause.
        why: String,
        /// What would have to change.
        blame: Blame,
    },
    /// The answer to [`ToWorker::Report`].
    Report(WorkerReport),
}

/// A message with its length before it.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(message, vec![0; 4])?;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}
