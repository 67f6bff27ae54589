//! A model over several machines: how it is loaded, where its stages are, and why that did not work.

use std::ops::Range;

use hive_model::Compute;
use hive_net::PeerAddr;
use hive_peers::{Lacking, Placement};
use hive_protocol::ModelSource;
use hive_stage::StageHost;
use hive_stage::planning::PROMPT_CHUNK;
use hive_worker::text::TextError;

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct RingOptions {
    /// Where the machines find it.
    pub source: ModelSource,
    /// Kernels.
    pub compute: Compute,
    /// Threads of each stage; 0 is as many as its machine has.
    pub threads: usize,
    /// Tokens of a prompt that travel together. Smaller chunks overlap better over stages, larger ones compute better.
    pub prompt_chunk: usize,
}

impl RingOptions {
    /// The usual way.
    pub fn new(source: ModelSource) -> Self {
        Self { source, compute: Compute::Auto, threads: 0, prompt_chunk: PROMPT_CHUNK }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Its tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A machine could not load its stage or connect it.
    #[error("{machine} could not take layers {} to {}: {why}", layers.start, layers.end)]
    Stage {
        /// Whose.
        machine: String,
        /// Its layers.
        layers: std::ops::Range<usize>,
        /// The cause.
        why: String,
    },
    /// A machine does not have the model.
    #[error("{0}")]
    Lacking(Lacking),
    /// The model's files are at fault: no machine could load it.
    #[error("the model cannot be loaded: {0}")]
    Unfit(String),
}

impl RingError {
    /// Whether it is the model's fault, and the same on other machines and later.
    pub fn is_the_models(&self) -> bool {
        match self {
            Self::Text(error) => !matches!(error, TextError::Start(_)),
            Self::Unfit(_) => true,
            Self::Stage { .. } | Self::Lacking(_) => false,
        }
    }
}

/// A stage as it was placed.
#[derive(Debug, Clone)]
pub struct PlacedStage {
    /// Where.
    pub placement: Placement,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// What computes there, for people.
    pub device: String,
    /// Which life of its node holds it: a node that started anew has forgotten its stages.
    pub life: u64,
}

/// A copy of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Standby {
    pub(crate) index: usize,
    pub(crate) stage: PlacedStage,
}

/// Where stages are, by their places in the ring.
pub(super) fn holders<'a>(
    stages: impl Iterator<Item = (usize, &'a PlacedStage)>,
) -> impl Iterator<Item = (usize, PeerAddr)> {
    stages.map(|(index, stage)| (index, stage.placement.addr.clone()))
}

/// A machine that could not take its layers.
pub(super) fn failed(placement: &Placement, layers: &Range<usize>, why: String) -> RingError {
    RingError::Stage { machine: placement.name.clone(), layers: layers.clone(), why }
}

/// Whether the machine of a stage has left, or has started anew and forgotten its stage.
pub(super) fn has_left(host: &StageHost, stage: &PlacedStage) -> bool {
    host.membership().has_left(stage.placement.addr.id(), stage.life)
}
