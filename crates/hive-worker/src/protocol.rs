//! Messages between node and worker: length-prefixed postcard.
//!
//! Both ends are the same executable, which the first message verifies ([`super::start`]). Lengths are still checked,
//! because a broken worker must not crash its node.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hive_model::shard::{Input, Output};
use hive_model::{AdapterId, AtLoad, CarriedSession, Compute, SessionId, SessionOptions};
use hive_net::border;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use hive_protocol::Arithmetic;

/// Above a prompt chunk of the largest models.
pub(super) const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Raw bytes of numbers as in memory, which postcard would otherwise encode one by one.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Raw(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// Prints the size only: the bytes may reveal a prompt.
impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Which shard to load, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadOrder {
    /// The model's file or folder.
    pub path: PathBuf,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// The kernels to use.
    pub compute: Compute,
    /// Threads of the CPU kernels.
    pub threads: usize,
    /// How plain matrices are quantized as they are loaded.
    pub at_load: Option<AtLoad>,
}

/// One session's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The session.
    pub session: SessionId,
    /// Position of the first row.
    pub position: u32,
    /// Whether the last stage samples a token.
    pub sample: bool,
    /// Tokens or hidden states.
    pub input: Input,
}

/// A message from node to worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Loads a shard; the first message.
    Load(LoadOrder),
    /// Loads an adapter: the bytes of `adapter_config.json` and of the file with its matrices.
    Adapt(AdapterId, Raw, Raw),
    /// Opens a session.
    Open(SessionId, SessionOptions),
    /// Reuses a session's cache under another id, from a position on or from one before it.
    Adopt {
        /// The session that has the cache.
        from: SessionId,
        /// Its new id.
        session: SessionId,
        /// The position at which it is to continue.
        position: u32,
        /// Options, as for a new session.
        options: SessionOptions,
    },
    /// The session's answer runs ahead: each token that is sampled is the next input, until the answer ends. For
    /// a stage that is the whole model.
    RunAhead(SessionId, Ending),
    /// Exports a session's state, and then the cache of each layer.
    Export(SessionId),
    /// The next layer's cache of a session to be imported.
    Cache(SessionId, Raw),
    /// Opens a session with the caches sent before.
    Import(SessionId, SessionOptions, CarriedSession),
    /// Computes.
    Forward(Work),
    /// The session's answer is done; its cache is retained for the conversation's next turn.
    Rest(SessionId),
    /// Closes a session.
    Close(SessionId),
    /// Requests a report.
    Report,
    /// Requests any reply, to check that the worker is responsive.
    Check,
}

/// When an answer ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The tokens that end it.
    pub end_tokens: Vec<u32>,
    /// The last position that it may have.
    pub last_position: u32,
}

impl Ending {
    /// Whether this token, at this position, is the last.
    pub(crate) fn is_at(&self, position: u32, token: u32) -> bool {
        position >= self.last_position || self.end_tokens.contains(&token)
    }
}

/// A worker's statistics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Peak resident memory in bytes.
    pub peak_bytes: Option<u64>,
    /// Peak bytes of KV cache since the last report.
    pub kv_bytes: u64,
    /// Microseconds of decoding tokens that were alone in their batch, since the last report.
    pub decode_us: u64,
    /// The number of those tokens.
    pub decoded: u64,
}

impl WorkerReport {
    /// Records the time of a batch. Concurrent conversations share the reading of the weights, so only a token alone
    /// shows its cost.
    pub(super) fn computed(&mut self, tokens: usize, prompt_rows: usize, took: Duration) {
        if (tokens, prompt_rows) == (1, 0) {
            self.decode_us += took.as_micros() as u64;
            self.decoded += 1;
        }
    }
}

/// Who is at fault when work fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blame {
    /// The request is invalid.
    Request,
    /// This stage computed an invalid result, or none.
    Own,
    /// The sender of the input, which is invalid: the previous stage, or for the first stage, whoever sampled the
    /// token.
    Previous,
}

/// A message from worker to node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Number of layers loaded so far.
    Progress(usize),
    /// The shard is ready.
    Loaded {
        /// The device, for people.
        device: String,
        /// Its arithmetic, to decide whether its results are comparable with another's.
        arithmetic: Arithmetic,
    },
    /// Loading failed.
    LoadFailed(String),
    /// The output for a [`Work`] of the same session.
    Output {
        /// The session.
        session: SessionId,
        /// The work's position.
        position: u32,
        /// The work's rows.
        rows: u32,
        /// Whether a token was to be sampled.
        sample: bool,
        /// The result.
        output: Output,
    },
    /// Work of a session failed.
    Failed {
        /// The session.
        session: SessionId,
        /// Where the work began, which is where the session still is; `None` if it was never opened.
        position: Option<u32>,
        /// The cause.
        why: String,
        /// Who is at fault.
        blame: Blame,
    },
    /// The reply to [`ToWorker::Report`].
    Report(WorkerReport),
    /// The reply to [`ToWorker::Export`]: the session's state and the number of layer caches that follow; `None` if it
    /// is not open.
    Exported(SessionId, Option<(CarriedSession, usize)>),
    /// One of those caches.
    Cache(SessionId, Raw),
    /// The reply to [`ToWorker::Adopt`]: where the session continues; [`FromWorker::Failed`] if there is no such cache.
    Adopted(SessionId, u32),
    /// The reply to [`ToWorker::Import`].
    Imported(SessionId, Result<(), String>),
    /// The reply to [`ToWorker::Check`].
    Checked,
    /// Loading failed because of the model's files: every machine would fail.
    Unfit(String),
    /// The reply to [`ToWorker::Adapt`]: whether it is loaded, and what is loaded now.
    Adapted(AdapterId, Result<(), AdaptFailure>, LoadedAdapters),
}

/// The adapters of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedAdapters {
    /// All of them.
    pub ids: Vec<AdapterId>,
    /// Their memory, in bytes.
    pub bytes: u64,
}

/// Why an adapter is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AdaptFailure {
    /// It is not an adapter, or not one of this model: every machine would refuse it.
    #[error("{0}")]
    Unfit(String),
    /// There is no room beside those in use.
    #[error("{0}")]
    Full(String),
    /// It failed here.
    #[error("{0}")]
    Failed(String),
}

impl AdaptFailure {
    fn at_the_border(self) -> Self {
        match self {
            Self::Unfit(why) => Self::Unfit(border::reason(&why)),
            Self::Full(why) => Self::Full(border::reason(&why)),
            Self::Failed(why) => Self::Failed(border::reason(&why)),
        }
    }
}

impl FromWorker {
    /// Sanitizes the texts in a message: they may quote a stranger's file.
    pub(super) fn at_the_border(self) -> Self {
        match self {
            Self::Loaded { device, arithmetic } => Self::Loaded { device: border::label(&device), arithmetic },
            Self::LoadFailed(why) => Self::LoadFailed(border::reason(&why)),
            Self::Unfit(why) => Self::Unfit(border::reason(&why)),
            Self::Failed { session, position, why, blame } => {
                Self::Failed { session, position, why: border::reason(&why), blame }
            }
            Self::Adapted(id, Err(why), loaded) => Self::Adapted(id, Err(why.at_the_border()), loaded),
            Self::Imported(session, Err(why)) => Self::Imported(session, Err(border::reason(&why))),
            wordless => wordless,
        }
    }
}

/// Encodes a message with a length prefix.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(message, vec![0; 4])?;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Takes the first complete message from the bytes read.
pub(super) fn next_whole<T: DeserializeOwned>(bytes: &mut BytesMut) -> Result<Option<T>, postcard::Error> {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(postcard::Error::DeserializeBadEncoding);
    }
    let Some(message) = bytes.get(4..4 + length) else { return Ok(None) };
    let message = postcard::from_bytes(message)?;
    bytes.advance(4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_is_alone_tells_what_one_costs() {
        let (mut report, took) = (WorkerReport::default(), Duration::from_millis(8));
        report.computed(1, 0, took);
        report.computed(2, 0, took);
        report.computed(1, 16, took);
        report.computed(0, 256, took);
        assert_eq!((report.decode_us, report.decoded), (8000, 1));
    }
}
