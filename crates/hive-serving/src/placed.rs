//! The format of `placements.json`, which records where models are placed.

use hive_net::PeerId;
use serde::{Deserialize, Serialize};

use crate::model_request::ModelRequest;

/// The file's name in the data folder.
pub const FILE: &str = "placements.json";

/// A range of layers on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedLayers {
    /// The machine.
    pub(crate) machine: PeerId,
    /// The machine's name at that time.
    pub(crate) name: String,
    /// Layers `[first, end)`.
    pub(crate) layers: [usize; 2],
}

/// A model's stages, in the order a token passes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedModel {
    /// The request that the model was loaded for.
    #[serde(rename = "wish")]
    pub(crate) wanted: ModelRequest,
    /// Its stages.
    pub(crate) stages: Vec<PlacedLayers>,
}

/// The file. Fields from a newer version are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placements {
    pub(crate) in_memory: Vec<PlacedModel>,
    #[serde(rename = "by_hand")]
    pub(crate) manual: Vec<PlacedModel>,
}
