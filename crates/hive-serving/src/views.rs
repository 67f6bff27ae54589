//! Views of loaded models.

use hive_ring::{PlacedStage, Ring};
use hive_types::{ModelView, StageView};

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
        copies: ring.standby_replicas().iter().map(stage).collect(),
        bytes: ring.stage_bytes().sum(),
    }
}
