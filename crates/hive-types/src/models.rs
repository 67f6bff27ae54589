//! Models: in memory, on the disk, and where their layers go.

use serde::{Deserialize, Serialize};

/// The model in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<StageView>,
    /// Standby replicas of stages.
    pub copies: Vec<StageView>,
    /// What its stages take on all machines, as planned, in bytes; replicas do not count.
    pub bytes: u64,
}

/// A stage in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageView {
    /// The machine's name.
    pub node: String,
    /// Layers `[start, end)`, counted from 0.
    pub layers: [usize; 2],
    /// What computes there.
    pub device: String,
}

/// A model on its way into memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadingView {
    /// Its name.
    pub name: String,
    /// Layers that are there.
    pub layers: usize,
    /// All its layers.
    pub of: usize,
}

/// A model on this machine's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelOnDisk {
    /// Its name, as it is asked for.
    pub name: String,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Whether it can be removed: the starter model stays.
    pub removable: bool,
    /// Other machines that are here and have it too.
    pub also_on: Vec<String>,
    /// Other machines that are here and do not have it, or have another one by that name: in words, with what to do about it.
    pub lacking: Vec<String>,
    /// Why it cannot be asked, if it cannot.
    pub unusable: Option<String>,
}

/// Layers and the machine that has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageLayers {
    /// The machine: its name; in a request also the beginning of its id, or its three words.
    pub node: String,
    /// Layers `[start, end)`, counted from 0.
    pub layers: [usize; 2],
}

/// Which model: `POST /hive/v1/models/unload`, `DELETE /hive/v1/models`. Names have slashes, so they are not in the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    /// Its name.
    pub model: String,
}

/// What to load, and where, if somebody wants that otherwise than the plan has it: `POST /hive/v1/models/load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadRequest {
    /// Its name.
    pub model: String,
    /// Its stages, placed by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<Vec<StageLayers>>,
}

/// What to plan for: `GET /hive/v1/plan`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanQuery {
    /// The model's name; `None` is the starter model.
    pub model: Option<String>,
    /// Over exactly this number of machines; `None` leaves it to the plan.
    pub stages: Option<usize>,
}

/// Where the layers of a model would go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanView {
    /// The model's name.
    pub model: String,
    /// Its layers.
    pub layers: usize,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<PlannedStage>,
    /// Why, in sentences.
    pub reasons: Vec<String>,
    /// One conversation's speed as predicted, where the machines' speeds are known.
    pub decode_tokens_per_s: Option<f64>,
}

/// A stage of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedStage {
    /// The machine's name.
    pub node: String,
    /// Layers `[start, end)`, counted from 0.
    pub layers: [usize; 2],
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of KV cache.
    pub kv_bytes: u64,
    /// Bytes that it takes besides.
    pub base_bytes: u64,
}
