//! Runs: worker processes, the ring of stages, sessions; in short, the [`Node`].
//!
//! A node hosts **stages** (each a worker process with a range of layers) and coordinates **sessions** (conversations
//! that travel the ring). The way of a token:
//!
//! ```text
//!  coordinator ──tokens──▶ stage 0 ──hidden──▶ stage 1 ──hidden──▶ … ──▶ last stage
//!       ▲                     ▲                                            │
//!       └─────── token ───────┴──────────────── token ────────────────────┘
//! ```
//!
//! What holds:
//! - One owner of state: everything a node knows is behind [`Node`]; callers get snapshots and events.
//! - MLX runs in workers only. A worker that dies takes no connection and no other stage with it.
//! - Whatever waits, waits for something that can fail, and the failure reaches whoever asked.
//!
//! `examples/local_swarm.rs` starts three nodes that hold a model together, and asks them a question.

pub mod audit;
pub mod data;
pub mod doctor;
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
pub mod models;
pub mod reach;
pub mod serving;
pub mod settings;
pub mod sharing;

mod answer;
mod catalogue;
mod find;
mod having;
mod identity;
mod kept;
mod library;
mod local_swarm;
mod measure;
mod node;
mod open_files;
mod openings;
mod peers;
mod planning;
mod ring;
mod runtime;
mod serve;
mod speed;
mod stage;
mod trust;
mod words;

/// The computer's name as its owner knows it.
pub fn machine_name() -> String {
    hive_host::name()
}

pub use find::FindPeerError;
pub use generate::{AnswerError, Event, FinishReason, GenerateError, Reply, Request, Summary};
pub use having::Lacking;
pub use hive_host::{colours_on_stderr, outlives_its_terminal};
pub use hive_model::template::{Conversation, Message, RESERVED_VARIABLES, VariableError, variable};
pub use hive_model::{Compute, Sampling};
pub use hive_net::border;
pub use hive_net::discovery::SERVICE;
pub use hive_net::invite::{Ticket, TicketError};
pub use hive_net::links::LinkKind;
pub use hive_net::pairing::{Code, PairError};
pub use hive_net::{Link, PeerId, Relay};
pub use hive_plan::{Plan, PlanError, PlannedStage};
pub use hive_protocol::{ModelCopy, ModelSource, Profile, StageReport, StageSpec};
pub use hive_worker::text::{Model, ModelCard, TextError, TextFault};
pub use hive_worker::{self as worker, mlx_library};
pub use library::{LetGoError, ModelOnDisk};
pub use local_swarm::{LocalSwarm, SwarmError, SwarmOptions, plan};
pub use node::{Node, NodeOptions, StartError, Status};
pub use openings::local_time;
pub use peers::pairings::{DecideError, INVITE_VALID_FOR};
pub use peers::{MeasuredPath, Notice, Paired, PeerState, PeerView, Rights, RightsError};
pub use ring::{PlacedStage, Placement, Ring, RingError, RingOptions};
pub use runtime::runtime;
