//! Models: in memory, on disk, and planned.

use serde::{Deserialize, Serialize};

use crate::Reason;

/// The model in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<StageView>,
    /// Standby replicas of its stages.
    pub copies: Vec<StageView>,
    /// Planned memory of its stages on all machines, in bytes, without replicas.
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
    /// The device that computes it.
    pub device: String,
}

/// A model that is being loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadingView {
    /// Its name.
    pub name: String,
    /// Layers loaded so far.
    pub layers: usize,
    /// Layers in all.
    pub of: usize,
    /// Bytes on the machines' disks of the layers that they are fetching.
    pub fetched_bytes: u64,
    /// Bytes of these layers in all; 0 while nothing is fetched.
    pub fetching_bytes: u64,
}

/// A model on this machine's disk.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct ModelOnDisk {
    /// Its name in requests.
    pub name: String,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// The size of all of it, in bytes, if only parts are here: other machines have the others, or they are fetched when
    /// they are needed.
    pub whole_bytes: Option<u64>,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Whether it stays in memory once it is loaded, and on the disk.
    pub pinned: bool,
    /// Its other names in requests.
    pub aliases: Vec<String>,
    /// Names in requests under which it answers with an adapter.
    pub adapted: Vec<String>,
    /// Whether it can be removed; the starter model cannot.
    pub removable: bool,
    /// Whether its files stay where they are when it is removed: it was opened by its path, and is only listed here.
    pub in_place: bool,
    /// Other online machines that have it too.
    pub also_on: Vec<String>,
    /// Other online machines that lack it, or have a different model of that name: in words, with what to do about it.
    pub lacking: Vec<String>,
    /// Why it cannot be used, if it cannot.
    pub unusable: Option<String>,
}

/// A range of layers and its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageLayers {
    /// The machine's name; in a request also a prefix of its id, or its fingerprint.
    pub node: String,
    /// Layers `[start, end)`, counted from 0.
    pub layers: [usize; 2],
}

/// Another name of a model: `GET` and `PUT /hive/v1/aliases`.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The other name.
    pub alias: String,
    /// The model's name.
    pub model: String,
    /// The LoRA adapter that answers under this name use: a folder, or `owner/name` from the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
}

/// An alias: `DELETE /hive/v1/aliases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasName {
    /// The other name.
    pub alias: String,
}

/// A model by name: `POST /hive/v1/models/unload`, `/pause`, `/pin` and `/unpin`, `DELETE /hive/v1/models`. Names contain
/// slashes: no path parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    /// Its name.
    pub model: String,
}

/// What to load, and where to override the plan: `POST /hive/v1/models/load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadRequest {
    /// Its name.
    pub model: String,
    /// Manual placement of its stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<Vec<StageLayers>>,
}

/// What to plan: `GET /hive/v1/plan`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanQuery {
    /// The model's name; `None` is the starter model.
    pub model: Option<String>,
    /// The exact number of machines; `None` leaves it to the planner.
    pub stages: Option<usize>,
}

/// A placement of a model's layers.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanView {
    /// The model's name.
    pub model: String,
    /// Its number of layers.
    pub layers: usize,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<PlannedStage>,
    /// The reasons, in sentences.
    pub reasons: Vec<String>,
    /// The same reasons, as values in the same order.
    #[cfg_attr(feature = "specta", specta(type = Vec<Reason>))]
    #[serde(deserialize_with = "crate::known::reasons", skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Reason>,
    /// Predicted speed of one conversation, if the machines' speeds are known.
    pub decode_tokens_per_s: Option<f64>,
}

/// A stage of a plan.
#[cfg_attr(feature = "specta", derive(specta::Type))]
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
    /// Fixed overhead in bytes.
    pub base_bytes: u64,
}

/// The token for the hub that models are fetched from: `GET /hive/v1/hub-token`. The token itself is told to nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HubToken {
    /// Whether HiveMind was given one. It counts before that of the environment.
    pub stored: bool,
    /// Whether the environment has one, or `hf auth login` left one.
    pub in_environment: bool,
}

/// A token as a person pasted it: `PUT /hive/v1/hub-token`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHubToken {
    /// The token.
    pub token: String,
}

/// A text whose tokens are to be counted: `POST /hive/v1/models/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCountRequest {
    /// The model's name; `None` is the model of new conversations.
    #[serde(default)]
    pub model: Option<String>,
    /// The text, of at most 2 MB.
    pub text: String,
}

/// The tokens of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenCount {
    /// The name of the model whose tokenizer counted.
    pub model: String,
    /// Their number.
    pub tokens: u64,
}
