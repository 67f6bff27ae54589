//! What nodes say to each other, and what a machine tells of itself.
//!
//! Control messages are postcard: a variant's place and a field's place are what travels, so new ones go to the
//! end. A [`Profile`] is JSON, and whoever reads it skips what it does not know. Frames of hidden states and tokens
//! are `hive-net`'s.

mod control;

mod copies;
mod digest;
mod greeting;
mod names;
mod profile;
mod refusal;

pub use control::{
    Arithmetic, Continued, Drain, Hello, ModelSource, Neighbours, Pulse, Recompute, Replay, Reply, Request, RingId,
    Role, SPEAKS, SessionSpec, Span, StageId, StageReport, StageSpec, logged, random_id,
};
pub use copies::ModelCopy;
pub use digest::{RowDigest, digests, token_digests};
pub use greeting::{Beat, Greeting};
pub use names::{STARTER_FILE, starter_name};
pub use profile::{Profile, offered_bytes};
pub use refusal::{NONSENSE, UNUSABLE, refusal};
