//! The placement of a ring's stages, the options of loading them, and the errors.

use std::ops::Range;

use hive_model::{AtLoad, Compute};
use hive_net::PeerAddr;
use hive_peers::Placement;
use hive_protocol::ModelSource;
use hive_stage::StageHost;
use hive_types::Reason;
use hive_worker::text::TextError;

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct RingOptions {
    /// Where machines find the model.
    pub source: ModelSource,
    /// The kernels.
    pub compute: Compute,
    /// Threads of each stage; 0 is as many as its machine has.
    pub threads: usize,
    /// How plain matrices are quantized as they are loaded; [`Ring::load`](super::Ring::load) takes it from the model.
    pub at_load: Option<AtLoad>,
}

impl RingOptions {
    /// The default options.
    pub fn new(source: ModelSource) -> Self {
        Self { source, compute: Compute::Auto, threads: 0, at_load: None }
    }
}

/// The progress of machines that fetch their missing layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that are on their disks, of the layers that they are to hold.
    pub done_bytes: u64,
    /// The bytes of these layers.
    pub of_bytes: u64,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The tokenizer or chat template failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A machine could not load or join its stage.
    #[error("{machine} could not take layers {} to {}: {why}", layers.start, layers.end)]
    Stage {
        /// The machine's name.
        machine: String,
        /// Its layers.
        layers: std::ops::Range<usize>,
        /// The cause.
        why: String,
    },
    /// A machine does not have the model.
    #[error("{0}")]
    Lacking(Reason),
    /// The model's files are at fault: no machine could load it.
    #[error("the model cannot be loaded: {0}")]
    Unfit(String),
}

impl RingError {
    /// Whether the model is at fault, so that neither another machine nor another attempt helps.
    pub fn is_the_models(&self) -> bool {
        match self {
            Self::Text(error) => !matches!(error, TextError::Start(_)),
            Self::Unfit(_) => true,
            Self::Stage { .. } | Self::Lacking(_) => false,
        }
    }
}

/// A stage on its machine.
#[derive(Debug, Clone)]
pub struct PlacedStage {
    /// The machine.
    pub placement: Placement,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// The device, as shown to people.
    pub device: String,
    /// The incarnation of the node that holds it: a node that restarted has no stages.
    pub incarnation: u64,
}

/// A standby replica of a stage: the stage is loaded on another machine, without sessions.
#[derive(Debug, Clone)]
pub(crate) struct Standby {
    pub(crate) index: usize,
    pub(crate) stage: PlacedStage,
}

/// The machines that hold stages, by the index of the stage.
pub(super) fn holders<'a>(
    stages: impl Iterator<Item = (usize, &'a PlacedStage)>,
) -> impl Iterator<Item = (usize, PeerAddr)> {
    stages.map(|(index, stage)| (index, stage.placement.addr.clone()))
}

/// The error of a machine that could not take its layers.
pub(super) fn failed(placement: &Placement, layers: &Range<usize>, why: String) -> RingError {
    RingError::Stage { machine: placement.name.clone(), layers: layers.clone(), why }
}

/// Whether the machine of a stage has left, or has restarted without it.
pub(super) fn has_left(host: &StageHost, stage: &PlacedStage) -> bool {
    host.membership().has_left(stage.placement.addr.id(), stage.incarnation)
}
