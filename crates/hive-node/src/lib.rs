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

pub mod doctor;
pub mod generate;
pub mod mlx_library;
pub mod models;
pub mod worker;

mod control;
mod local_swarm;
mod node;
mod ring;
mod stage;

pub use control::{StageReport, StageSpec};
pub use generate::{Event, FinishReason, GenerateError, Request, Summary};
pub use hive_model::template::Message;
pub use hive_model::{Compute, Sampling};
pub use hive_plan::{Plan, PlanError};
pub use local_swarm::{LocalSwarm, SwarmError, SwarmOptions, plan, profile};
pub use node::{Node, StartError};
pub use ring::{PlacedStage, Placement, Ring, RingError, RingOptions};
