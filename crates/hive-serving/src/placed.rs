//! Where models were placed, as it is kept on disk.

use hive_net::PeerId;
use serde::{Deserialize, Serialize};

use crate::model_request::ModelRequest;

/// Where it is kept in the data folder.
pub const FILE: &str = "placements.json";

/// Layers on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedLayers {
    /// The machine.
    pub(crate) machine: PeerId,
    /// What it was called then.
    pub(crate) name: String,
    /// Layers `[first, end)`.
    pub(crate) layers: [usize; 2],
}

/// A model's stages, in the order a token passes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedModel {
    /// What was asked for.
    #[serde(rename = "wish")]
    pub(crate) wanted: ModelRequest,
    /// Where it is.
    pub(crate) stages: Vec<PlacedLayers>,
}

/// The file. What a newer version has written beside this is passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placements {
    pub(crate) in_memory: Vec<PlacedModel>,
    pub(crate) by_hand: Vec<PlacedModel>,
}
