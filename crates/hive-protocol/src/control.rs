//! Control messages between nodes: about machines, stages and sessions.

use std::ops::Range;
use std::path::PathBuf;

use hive_model::AtLoad;
use hive_model::shard::Input;
use hive_model::{AdapterId, Compute, Hidden, SessionOptions};
use hive_net::{PeerAddr, PeerId, border};
use serde::{Deserialize, Serialize};

use crate::RowDigest;

/// Versions of this protocol that this node speaks, oldest and newest.
pub const SPEAKS: (u32, u32) = (3, 3);

/// Identifies a loaded model across the nodes that hold its stages. Random, so that it cannot be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RingId(pub u128);

/// A new id for a ring or a session: 128 random bits.
pub fn random_id() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("every system that runs a node has a source of random bytes");
    u128::from_le_bytes(bytes)
}

/// An id as logs show it: long enough to tell it apart, too short to use it.
pub fn logged(id: u128) -> String {
    format!("{:08x}", id as u32)
}

/// Identifies a stage by its place in a ring. The machine that holds it can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageId {
    /// The ring.
    pub ring: RingId,
    /// Its index in the ring, from 0.
    pub index: u32,
}

/// Where a node finds the model to load a part of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModelSource {
    /// A file or folder. Nodes accept this only from nodes of the same process.
    Path(PathBuf),
    /// A model known by name on every machine; `None` is the starter model. The digest must match.
    Named(Option<String>, String),
}

/// A stage to load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// The model.
    pub source: ModelSource,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// The kernels to compute with.
    pub compute: Compute,
    /// Number of threads; 0 means as many as the node has.
    pub threads: usize,
    /// Planned memory, including its sessions, in bytes.
    pub bytes: u64,
    /// Whether it is a standby replica of another node's stage; it yields to anything that needs the memory.
    pub standby: bool,
    /// How plain matrices are quantized as they are loaded, if they are.
    pub at_load: Option<AtLoad>,
}

/// The machines that a stage exchanges frames with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// The number of failovers of the ring. Reports from an earlier epoch are stale.
    pub epoch: u32,
    /// The next stage, unless this is the last.
    pub next: Option<PeerAddr>,
    /// The first stage, if this is the last.
    pub first: Option<PeerAddr>,
    /// The machine whose frames this stage accepts: that of the previous stage or, for the first stage, of the last.
    pub previous: PeerId,
    /// The ring's owner, which asked for the answer.
    pub coordinator: PeerAddr,
}

/// A session, as every stage opens it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// 128 random bits.
    pub session: u128,
    /// The id of its answer in the coordinator's log.
    pub answer: u64,
    /// How tokens are sampled.
    pub options: SessionOptions,
    /// Tokens that end the answer.
    pub end_tokens: Vec<u32>,
    /// The answer ends with the token at this position, whatever it is.
    pub last_position: u32,
    /// The retained session whose cache this one reuses.
    pub continues: Option<Continued>,
}

/// A prefix of a conversation that is already in the stages' caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continued {
    /// The retained session.
    pub session: u128,
    /// The number of its positions to reuse.
    pub position: u32,
}

/// The range that a stage replays, because the machine that had it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The session.
    pub session: u128,
    /// The first missing position.
    pub from: u32,
    /// From this position on, every row's token is sampled; earlier tokens are known.
    pub sample_from: u32,
}

/// Where a stage's sessions are handed over to, unless recomputing them there is faster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// The machine that has loaded the same layers.
    pub to: PeerAddr,
    /// Planned size of the stage's cache per token, in bytes.
    pub bytes_per_row: u64,
    /// Prefill speed of the new machine for these layers, in tokens per second.
    pub rows_per_s: Option<f64>,
}

/// Figures about a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Peak resident memory of its worker, in bytes.
    pub peak_bytes: Option<u64>,
    /// Peak KV cache since the last report, in bytes.
    pub kv_bytes: u64,
    /// Time spent computing tokens one at a time since the last report, in microseconds.
    pub decode_us: u64,
    /// The number of those tokens.
    pub decoded: u64,
    /// Median time from sending a frame to the next stage until its receipt arrives, in microseconds.
    pub link_round_trip_us: Option<u64>,
}

/// A stage's arithmetic, which decides whether two machines agree bit for bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arithmetic {
    /// `hive-kernels` on a CPU: the same bits for any batch, chunk, number of threads and instruction set.
    Exact,
    /// MLX on a CPU: the bits depend on the shapes that are computed together.
    #[default]
    ByShape,
    /// A GPU: the same, and the first batches of each shape wait until their kernels are compiled.
    Gpu,
}

/// A stage's reply to a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Whether the request passed through the worker's own loop.
    pub passed: bool,
    /// Rows that the worker was given and has not reported on.
    pub owed_rows: u32,
    /// How long it has been silent while it owes them, in milliseconds.
    pub quiet_ms: u64,
    /// Whether the stage is blocked because the next machine accepts nothing.
    pub held_up: bool,
    /// What computes the stage.
    pub arithmetic: Arithmetic,
}

/// A range of a session's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The session.
    pub session: u128,
    /// Positions `[start, end)`.
    pub rows: Range<u32>,
}

/// Rows to recompute and compare with another machine's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recompute {
    /// A session for this purpose only, opened with its first rows.
    pub session: u128,
    /// How tokens are sampled.
    pub options: SessionOptions,
    /// Position of the first row; earlier positions were sent before.
    pub position: u32,
    /// The rows.
    pub input: Input,
    /// Whether the last stage is to sample the token after the last row.
    pub sample: bool,
}

/// Bytes of one of a model's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedBytes {
    /// The model's digest.
    pub digest: String,
    /// The file's name, relative to the model's folder.
    pub file: String,
    /// Its size; a file of another size is another file.
    pub size: u64,
    /// Offsets in it. The sender sends those that it has.
    pub ranges: Vec<Range<u64>>,
}

/// An adapter that is about to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterHead {
    /// The digest of its two files.
    pub id: AdapterId,
    /// The size of `adapter_config.json`, in bytes.
    pub config_bytes: u64,
    /// The size of the file with its matrices, in bytes.
    pub tensor_bytes: u64,
}

/// A request on a control stream. Variants are encoded by position, so new ones go to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// A greeting, as JSON; heartbeats follow on the same stream.
    Greet(String),
    /// Read this many messages of bytes, then reply `Done`; measures the path's rate.
    Measure(u32),
    /// Load a stage. Answered with progress, then `Loaded` or `Refused`.
    Load(StageId, StageSpec),
    /// Connect the stage to its neighbours.
    Join(StageId, Neighbours),
    /// Open a session, unless it is open; reply with the position that it expects next.
    Open(StageId, SessionSpec),
    /// Close a session.
    Close(StageId, u128),
    /// Report figures about the stage.
    Report(StageId),
    /// Unload the stage.
    Unload(StageId),
    /// Unload every stage that the sender had loaded except these: orders sent while the connection was down were lost.
    RenewLeases(Vec<StageId>),
    /// Retain the cache of a session that has ended, for the conversation's next turn.
    Retain(StageId, u128),
    /// Reply to a check from the worker's own loop.
    Check(StageId),
    /// Send missing frames again.
    Replay(StageId, Replay),
    /// Hand the stage's sessions over to the machine that replaces it.
    Drain(StageId, Drain),
    /// Receive the sessions of a stage of the sender; they follow on the same stream.
    ReceiveSessions(StageId),
    /// Let the sender measure a path with this key.
    GrantKey(PeerId),
    /// Accept the stage's sessions from this machine.
    ExpectSessions(StageId, PeerId),
    /// Reply with the digests of rows that the stage received.
    Digests(StageId, Span),
    /// Reply with rows that the stage sent.
    Rows(StageId, Span),
    /// Recompute rows and reply with their digests.
    Recompute(StageId, Box<Recompute>),
    /// Fetch these layers of a model to your disk. Answered with `Fetched` as they arrive, then with `Done` or an
    /// error.
    Fetch(ModelSource, Range<usize>),
    /// Send the outline of the model with this digest; it follows on the same stream.
    Outline(String),
    /// Send bytes of a model's file; they follow on the same stream.
    Bytes(WantedBytes),
    /// Load an adapter into a stage. Answered with `Done` if it is loaded already, or with `Lacks`; then the bytes of its
    /// two files follow on the same stream, in parts, and the answer is `Done` or `Unfit`. `Full` or `Refused` may come in
    /// place of either.
    Adapt(StageId, AdapterHead),
}

/// A reply on a control stream. New variants go to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// A greeting, as JSON.
    Greeting(String),
    /// The number of layers loaded so far.
    Progress(usize),
    /// The stage is loaded, on this device.
    Loaded(String),
    /// The order was carried out.
    Done,
    /// Figures about the stage.
    Report(StageReport),
    /// The order cannot be carried out; the reason.
    Refused(String),
    /// The machine's owner does not want it now, or it is no longer needed. Not held against the machine.
    Declined(String),
    /// The session is open and expects this position next.
    At(u32),
    /// The number of sessions received.
    SessionsReceived(u32),
    /// The stage, or an adapter for it, does not fit in memory now; the reason names what takes the memory.
    Full(String),
    /// The reply to a check.
    Pulse(Pulse),
    /// Digests of rows.
    Digests(Vec<RowDigest>),
    /// Rows.
    Rows(Hidden),
    /// The digests of recomputed rows, or the token after them.
    Recomputed {
        /// One per row; empty from the last stage.
        digests: Vec<RowDigest>,
        /// From the last stage only.
        token: Option<u32>,
    },
    /// The machine lacks the model, or a version of it that it can use; or the adapter. Not held against the machine.
    Lacks,
    /// The model's or the adapter's files are at fault, wherever they are loaded; the reason, if it may be told.
    Unfit(String),
    /// How much of what `Fetch` asks for is on the disk.
    Fetched {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
}

impl Reply {
    /// Cleans the texts in another machine's reply, so that they can be shown.
    #[must_use]
    pub fn at_the_border(self) -> Self {
        match self {
            Self::Loaded(device) => Self::Loaded(border::label(&device)),
            Self::Refused(why) => Self::Refused(border::reason(&why)),
            Self::Declined(why) => Self::Declined(border::reason(&why)),
            Self::Full(why) => Self::Full(border::reason(&why)),
            Self::Unfit(why) => Self::Unfit(border::reason(&why)),
            // The reader of a greeting cleans it; the other replies contain no text.
            Self::Greeting(_)
            | Self::Progress(_)
            | Self::Done
            | Self::Report(_)
            | Self::At(_)
            | Self::SessionsReceived(_)
            | Self::Pulse(_)
            | Self::Digests(_)
            | Self::Rows(_)
            | Self::Recomputed { .. }
            | Self::Lacks
            | Self::Fetched { .. } => self,
        }
    }
}

/// The first message on a stage stream: the ring, and the receiver of the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The ring.
    pub ring: RingId,
    /// The ring's owner, on whose behalf the frames are sent.
    pub owner: PeerId,
    /// The receiver of the frames.
    pub to: Role,
}

/// The receiver of a stage stream's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The stage with this index on the node.
    Stage(u32),
    /// The node, as coordinator.
    Coordinator,
    /// The node as coordinator and as first stage: tokens are for both, everything else is for the coordinator.
    Head,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_another_machine_write_to_no_terminal() {
        let hostile = || "full\u{1b}]52;c;cm0=\u{7}\u{202e}\nerror: run this".to_owned();
        let clean = "full]52;c;cm0= error: run this";
        for answer in [Reply::Refused(hostile()), Reply::Declined(hostile()), Reply::Full(hostile())] {
            match answer.at_the_border() {
                Reply::Refused(why) | Reply::Declined(why) | Reply::Full(why) => assert_eq!(why, clean),
                other => panic!("{other:?}"),
            }
        }
        let Reply::Loaded(device) = Reply::Loaded("\u{9b}2JCPU".to_owned()).at_the_border() else { panic!() };
        assert_eq!(device, "2JCPU");
    }
}
