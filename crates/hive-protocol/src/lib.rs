//! The messages between nodes, and machines' profiles.
//!
//! Control messages are encoded with postcard, which encodes variants and fields by position, so new ones go to the
//! end. A [`Profile`] is JSON, and readers skip fields that they do not know. Frames of hidden states and tokens belong
//! to `hive-net`.

mod control;

mod copies;
mod digest;
mod greeting;
mod names;
mod profile;
mod refusal;

pub use control::{
    AdapterHead, Arithmetic, Continued, Drain, Hello, ModelSource, Neighbours, Pulse, Recompute, Replay, Reply,
    Request, RingId, Role, SPEAKS, SessionSpec, Span, StageId, StageReport, StageSpec, WantedBytes, logged, random_id,
};
pub use copies::ModelCopy;
pub use digest::{RowDigest, digests, token_digests};
pub use greeting::{Beat, Greeting};
pub use names::{STARTER_FILE, starter_name};
pub use profile::{Profile, offered_bytes};
pub use refusal::{NONSENSE, UNUSABLE, refusal};
