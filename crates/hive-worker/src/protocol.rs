//! What node and worker say to each other: length-prefixed postcard messages.
//!
//! Both ends are the same executable, which the first message makes sure of ([`super::start`]); a length is still checked,
//! because a broken worker must not take its node down.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hive_model::shard::{Input, Output};
use hive_model::{CarriedSession, Compute, SessionId, SessionOptions};
use hive_net::border;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use hive_protocol::Arithmetic;

/// A prompt chunk of the largest models, and then some.
pub(super) const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Numbers as they lie in memory, which postcard would otherwise take one by one.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Raw(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// The size only: what a person wrote could be read back.
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
    /// Say what a session is, and then the cache of each layer.
    Export(SessionId),
    /// Of a session that is about to be imported: the cache of the next layer.
    Cache(SessionId, Raw),
    /// Open a session with the caches that came before this.
    Import(SessionId, SessionOptions, CarriedSession),
    /// Compute.
    Forward(Work),
    /// The session's answer is done, and its cache stays for the conversation's next turn.
    Rest(SessionId),
    /// Forget a session.
    Close(SessionId),
    /// Say how you are.
    Report,
    /// Say anything: whether you get around to it is what matters.
    Check,
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

impl WorkerReport {
    /// Notes what a batch took. Several conversations share the reading of the weights: what a token of one costs is seen
    /// when it is alone.
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
    /// What was asked cannot be done.
    Request,
    /// This stage computes nonsense or nothing.
    Own,
    /// Whoever sent the input, sent what no stage may: a stage, or, to the first one, whoever chose the token.
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
        /// And for the decision whether its results can be compared with another's.
        arithmetic: Arithmetic,
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
        /// Where the work began, which is where the session still is; `None` where it was not opened at all.
        position: Option<u32>,
        /// The cause.
        why: String,
        /// What would have to change.
        blame: Blame,
    },
    /// The answer to [`ToWorker::Report`].
    Report(WorkerReport),
    /// The answer to [`ToWorker::Export`]: the session, and how many layers' caches follow; or nothing, where it is not
    /// open.
    Exported(SessionId, Option<(CarriedSession, usize)>),
    /// One of them.
    Cache(SessionId, Raw),
    /// The answer to [`ToWorker::Import`].
    Imported(SessionId, Result<(), String>),
    /// The answer to [`ToWorker::Check`].
    Checked,
    /// It could not be loaded for a fault of the model's files, which every machine would find.
    Unfit(String),
}

impl FromWorker {
    /// What a worker says, with its words as they may be shown: they may quote a stranger's file.
    pub(super) fn at_the_border(self) -> Self {
        match self {
            Self::Loaded { device, arithmetic } => Self::Loaded { device: border::label(&device), arithmetic },
            Self::LoadFailed(why) => Self::LoadFailed(border::reason(&why)),
            Self::Unfit(why) => Self::Unfit(border::reason(&why)),
            Self::Failed { session, position, why, blame } => {
                Self::Failed { session, position, why: border::reason(&why), blame }
            }
            Self::Imported(session, Err(why)) => Self::Imported(session, Err(border::reason(&why))),
            wordless => wordless,
        }
    }
}

/// A message with its length before it.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(message, vec![0; 4])?;
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Takes a message from the front of what was read, if one is whole.
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
