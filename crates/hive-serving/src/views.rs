//! Models in memory as people see them.

use hive_ring::{PlacedStage, Ring};
use serde::Serialize;

/// The loaded model, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<StageView>,
    /// Copies of stages, ready to take over.
    pub copies: Vec<StageView>,
    /// What its stages take on all machines, as planned, in bytes; copies do not count.
    pub bytes: u64,
}

/// A stage, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageView {
    /// The machine.
    pub node: String,
    /// Layers `[start, end)`.
    pub layers: [usize; 2],
    /// What computes there.
    pub device: String,
}

/// A model on its way into memory, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadingView {
    /// Its name.
    pub name: String,
    /// Layers that are there.
    pub layers: usize,
    /// Of so many.
    pub of: usize,
}

/// A loaded model, for people.
pub(crate) fn view(ring: &Ring) -> ModelView {
    let stage = |stage: &PlacedStage| StageView {
        node: stage.placement.name.clone(),
        layers: [stage.layers.start, stage.layers.end],
        device: stage.device.clone(),
    };
    ModelView {
        name: ring.model().name(),
        stages: ring.stages().iter().map(stage).collect(),
        copies: ring.copies().iter().map(stage).collect(),
        bytes: ring.stage_bytes().sum(),
    }
}
