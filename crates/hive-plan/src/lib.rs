//! The planner: decides which layers go to which machine. Pure functions over plain numbers, no I/O.
//!
//! A [`Plan`] is a list of contiguous layer ranges, the stages, with their bytes and the reasons for them.
//!
//! Invariants: every layer is placed exactly once, in order; no stage is empty; a model is cut only where it may be.
//!
//! `examples/choose.rs` plans a model over three machines, and prints the plan with its reasons.

mod choose;
mod handover;
mod model;
mod replace;
mod revise;
mod room;
mod split;
mod standby;

use std::ops::Range;

use hive_types::Reason;
use serde::{Deserialize, Serialize};

pub use choose::{ArrangeError, Costs, LinkProfile, NodeProfile, Use, arrange, choose, predict};
pub use handover::{Handover, Load, handover};
pub use model::{ModelProfile, StateBytes};
pub use replace::{Candidate, Replacement, replace};
pub use revise::{Revision, revise};
pub use split::split;
pub use standby::{Spare, standby};

/// How a machine stores a model: weights take more memory in one form, caches in the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Packed for the fast CPU kernels.
    #[default]
    Packed,
    /// As MLX stores it, on a GPU.
    Mlx,
}

/// A machine that may hold a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name, for people.
    pub name: String,
    /// Bytes of memory it offers.
    pub memory_bytes: u64,
    /// The form in which it stores models.
    pub form: Form,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// The machine's index in the given list.
    pub machine: usize,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of the states of the requested context: KV caches, windows and recurrent states.
    pub kv_bytes: u64,
    /// Fixed overhead in bytes.
    pub base_bytes: u64,
}

impl PlannedStage {
    /// Bytes of memory it needs in all.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.kv_bytes).saturating_add(self.base_bytes)
    }
}

/// A placement of every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order a token passes them.
    pub stages: Vec<PlannedStage>,
    /// The reasons.
    pub reasons: Vec<Reason>,
    /// Predicted speed of one conversation, if the machines' speeds are known.
    pub decode_tokens_per_s: Option<f64>,
    /// Tokens of all conversations together that fit into the machines' memory.
    ///
    /// If every layer keeps the same of each token, any conversations with this total of tokens fit. What stops
    /// growing, such as a window, and what is kept whatever the length is counted for one conversation: this is then
    /// the length of the longest single conversation, and several of as many tokens together need more. `u64::MAX` if
    /// nothing grows with the length.
    pub room_tokens: u64,
    /// What each conversation takes beside its tokens, whatever its length, as a number of tokens: recurrent states. All
    /// conversations fit while their tokens and this for each of them are within `room_tokens` and this once.
    pub own_tokens: u64,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No stages were requested.
    #[error("a model needs at least one stage; 0 were asked for")]
    NoStages,
    /// More stages than the model may be cut into.
    #[error(
        "{stages} stages were asked for, but the model has {layers} layers{}: at most {possible} stages are possible",
        if possible < layers { ", some of which must stay together" } else { "" }
    )]
    TooManyStages {
        /// Requested stages.
        stages: usize,
        /// Layers of the model.
        layers: usize,
        /// The most stages it may be cut into.
        possible: usize,
    },
    /// More memory than all machines offer together.
    #[error(
        "this model needs {} MB with one conversation, but {} {} MB; add a machine or raise a memory limit",
        needed_bytes.div_ceil(1_000_000),
        if *machines == 1 { "1 machine shares".to_owned() } else { format!("{machines} machines share") },
        given_bytes / 1_000_000
    )]
    TooLarge {
        /// Bytes of the model and its conversations.
        needed_bytes: u64,
        /// Bytes all machines offer.
        given_bytes: u64,
        /// The number of machines.
        machines: usize,
    },
    /// Layers between which the model may not be cut are larger than any machine.
    #[error(
        "{} layers of this model must stay together and need {} MB with one conversation, but no machine shares more \
         than {} MB; add a larger machine or raise a memory limit",
        layers.len(), needed_bytes.div_ceil(1_000_000), most_bytes / 1_000_000
    )]
    UncutTooLarge {
        /// The layers, `[start, end)`.
        layers: Range<usize>,
        /// Bytes of a stage of these layers.
        needed_bytes: u64,
        /// Bytes that the machine with the most memory offers.
        most_bytes: u64,
    },
    /// A stage is larger than its machine.
    #[error("{machine} would need {needed_bytes} bytes but gives {given_bytes}")]
    DoesNotFit {
        /// The machine.
        machine: String,
        /// Bytes of its stage.
        needed_bytes: u64,
        /// Bytes it offers.
        given_bytes: u64,
    },
}

/// A lost or duplicated layer produces fluent nonsense, so every build checks this.
fn assert_each_layer_once(stages: &[PlannedStage], layers: usize) {
    let mut next = 0;
    for stage in stages {
        assert!(stage.layers.start == next && !stage.layers.is_empty(), "a layer is lost or placed twice: {stages:?}");
        next = stage.layers.end;
    }
    assert!(next == layers, "layers {next} to {layers} are placed nowhere");
}
