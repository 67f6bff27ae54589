//! What nodes ask each other: about themselves, about stages, about sessions.

use std::ops::Range;
use std::path::PathBuf;

use hive_model::shard::Input;
use hive_model::{Compute, Hidden, SessionOptions};
use hive_net::{PeerAddr, PeerId, border};
use serde::{Deserialize, Serialize};

use crate::RowDigest;

/// Versions of this protocol that are spoken here, oldest and newest.
pub const SPEAKS: (u32, u32) = (2, 2);

/// Names a loaded model across the nodes that hold its stages. Random, so that nobody guesses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RingId(pub u128);

/// A new id for a ring or a session: 128 random bits.
pub fn random_id() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("every system that runs a node has a source of random bytes");
    u128::from_le_bytes(bytes)
}

/// An id as logs name it: enough to tell it from others, too little to use it.
pub fn logged(id: u128) -> String {
    format!("{:08x}", id as u32)
}

/// Names a stage: its place in a ring. Whoever holds it can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageId {
    /// The ring.
    pub ring: RingId,
    /// Its place in it, from 0.
    pub index: u32,
}

/// Where a node finds the model it is to load a part of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModelSource {
    /// A file or folder. Only nodes of one process take this from each other.
    Path(PathBuf),
    /// A model known by name on every machine; `None` is the starter model. The digest must agree.
    Named(Option<String>, String),
}

/// One stage, as its node is asked to load it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// The model.
    pub source: ModelSource,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// Kernels.
    pub compute: Compute,
    /// Threads; 0 is as many as the node has.
    pub threads: usize,
    /// Memory it will take with its conversations, as planned.
    pub bytes: u64,
    /// Whether it is a copy of a stage that another node holds, which yields to anything that needs the memory.
    pub standby: bool,
}

/// Where a stage sends what it computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// How often the ring has been mended: what is said of an earlier state counts no more.
    pub epoch: u32,
    /// The next stage, unless this is the last.
    pub next: Option<PeerAddr>,
    /// The first stage, if this is the last.
    pub first: Option<PeerAddr>,
    /// The machine of the stage before this one, or, for the first stage, of the last: whose frames it takes.
    pub previous: PeerId,
    /// Where the owner of the ring is, who asked for the answer.
    pub coordinator: PeerAddr,
}

/// A session, as every stage hears of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// 128 random bits.
    pub session: u128,
    /// The answer that it is for, as the coordinator's log names it.
    pub answer: u64,
    /// How tokens are sampled.
    pub options: SessionOptions,
    /// Tokens that end the answer.
    pub end_tokens: Vec<u32>,
    /// The answer ends with the token that stands here, whatever it is.
    pub last_position: u32,
    /// Go on with what a session that is kept has computed, up to a position.
    pub continues: Option<Continued>,
}

/// The beginning of a conversation that is in the stages' caches already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continued {
    /// The session that was kept.
    pub session: u128,
    /// How much of it counts.
    pub position: u32,
}

/// What a stage is to send once more, because whoever had it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The session.
    pub session: u128,
    /// The first position that is missing.
    pub from: u32,
    /// From this position on a token is wanted for every row; before it, all tokens are known.
    pub sample_from: u32,
}

/// Where the sessions of a stage are to be carried, unless they are computed there sooner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// The machine that has loaded the same layers.
    pub to: PeerAddr,
    /// Bytes of the stage's cache for each token, as planned.
    pub bytes_per_row: u64,
    /// Tokens of a prompt that the new machine passes through these layers in a second.
    pub rows_per_s: Option<f64>,
}

/// How a stage is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Most memory its worker has had resident.
    pub peak_bytes: Option<u64>,
    /// Most KV cache held since the last report.
    pub kv_bytes: u64,
    /// Microseconds spent computing tokens, one alone at a time, since the last report.
    pub decode_us: u64,
    /// How many.
    pub decoded: u64,
    /// Median time from sending a frame to the next stage to its receipt, in microseconds.
    pub link_round_trip_us: Option<u64>,
}

/// What computes a stage, as far as it decides whether two machines agree bit for bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arithmetic {
    /// `hive-kernels` on a CPU: the same bits in any batch, chunk, number of threads and instruction set.
    Exact,
    /// MLX on a CPU: bits depend on the shapes that are computed together.
    #[default]
    ByShape,
    /// A GPU: the same, and the first batches of each shape wait for kernels to be compiled.
    Gpu,
}

/// Signs of life of a stage, when it was asked for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Whether the request went through the worker's own loop.
    pub passed: bool,
    /// Rows that the worker was given and has not said anything about.
    pub owed_rows: u32,
    /// For how long it has owed them without a word, in milliseconds.
    pub quiet_ms: u64,
    /// Whether the stage is held up by the next machine, which takes nothing.
    pub held_up: bool,
    /// What computes the stage.
    pub arithmetic: Arithmetic,
}

/// Some rows of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The session.
    pub session: u128,
    /// Positions `[start, end)`.
    pub rows: Range<u32>,
}

/// Rows that are to be computed once more, to compare them with what another machine computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recompute {
    /// A session for this alone; it is opened with its first rows.
    pub session: u128,
    /// How tokens are sampled.
    pub options: SessionOptions,
    /// Position of the first row; what comes before was there before.
    pub position: u32,
    /// The rows.
    pub input: Input,
    /// Whether the last stage is to choose the token after the last row.
    pub sample: bool,
}

/// A request on a control stream. New ones go to the end: their places are what travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// First words, as JSON; heartbeats follow on the same stream.
    Greet(String),
    /// Take so many messages of bytes, then say `Done`: how fast is the path?
    Measure(u32),
    /// Load a stage. Answered by progress, then `Loaded` or `Refused`.
    Load(StageId, StageSpec),
    /// Connect the stage to its neighbours.
    Join(StageId, Neighbours),
    /// Open a session, unless it is open; say which position comes next.
    Open(StageId, SessionSpec),
    /// Forget a session.
    Close(StageId, u128),
    /// Say how the stage is.
    Report(StageId),
    /// Forget the stage.
    Unload(StageId),
    /// Forget every stage I had you load but these: what was told while you were away did not arrive.
    RenewLeases(Vec<StageId>),
    /// Keep a session that has ended: its conversation may go on.
    Retain(StageId, u128),
    /// Show signs of life, out of the worker's own loop.
    Check(StageId),
    /// Send on once more what is missing.
    Replay(StageId, Replay),
    /// Carry the stage's sessions to the machine that takes it over.
    Drain(StageId, Drain),
    /// Take the sessions of a stage that I had; they follow on the same stream.
    ReceiveSessions(StageId),
    /// Let me measure a path with this key.
    GrantKey(PeerId),
    /// Take the sessions of the stage that this machine hands over.
    ExpectSessions(StageId, PeerId),
    /// Give the digests of rows that the stage was given.
    Digests(StageId, Span),
    /// Give rows that the stage has sent on.
    Rows(StageId, Span),
    /// Compute rows once more, and give their digests.
    Recompute(StageId, Box<Recompute>),
}

/// An answer on a control stream. New ones go to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// First words, as JSON.
    Greeting(String),
    /// So many layers are loaded.
    Progress(usize),
    /// The stage is ready, on this device.
    Loaded(String),
    /// It is done.
    Done,
    /// The stage is so.
    Report(StageReport),
    /// It could not be done, and why.
    Refused(String),
    /// The machine's owner does not want it now, or nobody needs it any more: no fault of the machine.
    Declined(String),
    /// The session is open, and this position comes next.
    At(u32),
    /// So many sessions were taken over.
    SessionsReceived(u32),
    /// There is no room for the stage at this moment, and what takes it.
    Full(String),
    /// Signs of life.
    Pulse(Pulse),
    /// Digests of rows.
    Digests(Vec<RowDigest>),
    /// Rows.
    Rows(Hidden),
    /// What rows were when they were computed once more, and the token after them.
    Recomputed {
        /// Of each row, but for the last stage.
        digests: Vec<RowDigest>,
        /// Of the last stage.
        token: Option<u32>,
    },
    /// It does not have the model, or not one that it can use: no fault of the machine.
    Lacks,
    /// The model's files are at fault, wherever they are loaded; why, where that may be told.
    Unfit(String),
}

impl Reply {
    /// An answer of another machine, with its words as they may be shown.
    #[must_use]
    pub fn at_the_border(self) -> Self {
        match self {
            Self::Loaded(device) => Self::Loaded(border::label(&device)),
            Self::Refused(why) => Self::Refused(border::reason(&why)),
            Self::Declined(why) => Self::Declined(border::reason(&why)),
            Self::Full(why) => Self::Full(border::reason(&why)),
            Self::Unfit(why) => Self::Unfit(border::reason(&why)),
            // Its own reader looks at a greeting; the others have no words.
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
            | Self::Lacks => self,
        }
    }
}

/// The first message on a stage stream: which ring, and whom the frames are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The ring.
    pub ring: RingId,
    /// The ring's owner, by whose order the frames are sent.
    pub owner: PeerId,
    /// Whom the frames are for.
    pub to: Role,
}

/// Who takes the frames of a stage stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The stage of this index that the node hosts.
    Stage(u32),
    /// The node, as coordinator.
    Coordinator,
    /// The node, as coordinator and as the first stage: a token is for both of them, the rest for the coordinator.
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
