//! The node: this machine as a member of the swarm.
//!
//! A node hosts **stages** (each a worker process with a range of layers) and coordinates **sessions** (conversations
//! that travel the ring). The path of a token:
//!
//! ```text
//!  coordinator ──tokens──▶ stage 0 ──hidden──▶ stage 1 ──hidden──▶ … ──▶ last stage
//!       ▲                     ▲                                            │
//!       └─────── token ───────┴──────────────── token ────────────────────┘
//! ```
//!
//! Invariants:
//! - One owner of state: everything a node knows is behind [`Node`]; callers get snapshots and events.
//! - MLX runs in workers only, and in the command that quantizes, which has no node. A worker that dies takes no connection and no other stage with it.
//! - Everything that waits waits for something that can fail, and the failure reaches the caller.
//!
//! The parts are crates of their own: `hive-peers`, `hive-stage`, `hive-ring` and `hive-serving`, each depending only
//! on those before it. This crate re-exports what callers need of them.
//!
//! `examples/local_swarm.rs` starts three nodes that run one model together, and asks it a question.

pub mod doctor;
pub mod settings;
pub mod sharing;

mod local_swarm;
mod node;
mod open_files;
mod speed;

/// The audit log: what other machines asked for, used and were refused here.
pub mod audit {
    pub use hive_audit::*;
}

/// The data folder.
pub mod data {
    pub use hive_peers::data::*;
}

/// Models that can be fetched, for commands that do without a node.
pub mod catalogue {
    pub use hive_catalogue::{Catalogue, search};
}

/// Smaller models from larger ones. It computes in the process that calls it, and is for commands that do without a node.
pub mod quantize {
    pub use hive_quantize::{BITS, GROUPS, Progress, QuantizeError, Quantized, Recipe, quantize};
}

/// Models on a hub, and on their way to this machine's disk.
pub mod store {
    pub use hive_store::{Event, FetchOptions, Hub, Listing, ModelName, RateLimit, Wait, fetch};
}

/// Models in memory.
pub mod serving {
    pub use hive_serving::{Layout, ModelRequest, ServeError, Serving};
    pub use hive_types::{LoadingView, ModelView, StageView};
}

pub use hive_peers::reach;
#[doc(hidden)]
pub use hive_stage::fuzzing;
pub use hive_stage::models;

pub use hive_host::folders::hugging_face_cache;
pub use hive_host::{colours_on_stderr, outlives_its_terminal};
pub use hive_model::sampling::Sampled;
pub use hive_model::{Compute, Sampling};
pub use hive_net::border;
pub use hive_net::discovery::SERVICE;
pub use hive_net::invite::Ticket;
pub use hive_net::links::LinkKind;
pub use hive_net::pairing::{Code, PairError};
pub use hive_net::{Link, PeerId, Relay};
pub use hive_peers::{
    DecideError, FindPeerError, INVITE_VALID_FOR, MeasuredPath, Notice, Paired, PeerState, PeerView, Placement,
    RestoreError, Rights, RightsError, StartError,
};
pub use hive_plan::{Plan, PlanError, PlannedStage};
pub use hive_protocol::{ModelCopy, ModelSource, Profile, StageReport};
pub use hive_ring::{
    Event, FinishReason, GenerateError, PlacedStage, Reply, Request, Ring, RingError, RingOptions, Summary,
};
pub use hive_serving::{AnswerError, CountError, LetGoError, MarkError, local_time};
pub use hive_stage::runtime;
pub use hive_store::gguf_name;
pub use hive_text::reasoning;
pub use hive_text::split;
pub use hive_text::template::{Conversation, Message, RESERVED_VARIABLES, variable};
pub use hive_types::{CatalogueView, MachineWork, ModelOnDisk};
pub use hive_worker as worker;
pub use hive_worker::text::{ModelCard, TextError};
pub use local_swarm::{LocalSwarm, SwarmError, SwarmOptions, plan};
pub use node::options::NodeOptions;
pub use node::{HubTokenError, Node, Status, hub_settings};
