//! The catalogue: models that can be fetched, and whether the machines that are here have room for them.

use serde::{Deserialize, Serialize};

/// What to look for: `GET /hive/v1/catalogue`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueQuery {
    /// Words of a name, a family, a repository, a size or a task that a model is good at; `None` is everything.
    pub search: Option<String>,
    /// Tokens of the conversation for which there must be room, instead of the usual lengths.
    pub context: Option<u64>,
}

/// Models that were found, the best match first.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogueView {
    /// The models.
    pub models: Vec<CatalogueModel>,
    /// The error in the owner's own `catalogue.toml`, if there is one; the built-in models are listed all the same.
    pub problem: Option<String>,
}

/// A model of the catalogue.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogueModel {
    /// Its name, for people.
    pub name: String,
    /// Its family, as configurations name it.
    pub family: String,
    /// Its parameters.
    pub parameters: u64,
    /// Parameters that a token uses, if not all of them.
    pub active_parameters: Option<u64>,
    /// The longest conversation that it was made for, in tokens.
    pub context: u64,
    /// Its licence: an SPDX identifier, or its own name.
    pub licence: String,
    /// The tasks it is good at.
    pub good_at: Vec<String>,
    /// Whether it was trained to call tools.
    pub tools: bool,
    /// Whether it can think before it answers.
    pub thinking: bool,
    /// Whether HiveMind reads images with it.
    pub images: bool,
    /// Its quantizations.
    pub variants: Vec<CatalogueVariant>,
}

/// A model in one quantization, as a repository has it.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogueVariant {
    /// The name by which it is fetched and loaded.
    pub model: String,
    /// The quantization, for people.
    pub quantization: String,
    /// Bits per weight, on average.
    pub bits_per_weight: f64,
    /// Size of its files, in bytes.
    pub bytes: u64,
    /// Whether that is an estimate.
    pub approximate: bool,
    /// Whether it is on this machine's disk.
    pub on_disk: bool,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Whether there is room for it, by the length of a conversation, the shortest first; empty without a node.
    pub fits: Vec<FitView>,
}

/// Whether a model fits with a conversation of one length.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FitView {
    /// Length of the conversation, in tokens.
    pub context: u64,
    /// The verdict.
    pub fit: Fit,
    /// The machines that would hold it, in the order that a token passes them.
    pub machines: Vec<String>,
    /// Tokens of the longest conversation for which these machines would have room; 0 if it does not fit.
    pub room_tokens: u64,
    /// Predicted speed of one conversation.
    pub decode_tokens_per_s: Option<f64>,
}

/// Whether there is room for a model.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Fit {
    /// It fits, with room left on every machine.
    Comfortable,
    /// It fits, and leaves less than a tenth of a machine's shared memory.
    Snug {
        /// The machine with the smallest part left.
        machine: String,
        /// The memory left there, in bytes.
        left_bytes: u64,
    },
    /// It does not fit.
    NeedsMore {
        /// The missing memory in all, in bytes.
        bytes: u64,
        /// Advice, in words.
        advice: String,
    },
    /// Nobody has looked.
    #[default]
    Unknown,
}
