//! A machine's report about itself.

use serde::{Deserialize, Serialize};

use crate::{NotSharing, if_known};

/// A machine's report about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Profile {
    /// The name it gives itself.
    pub name: String,
    /// The version of HiveMind it runs.
    pub version: String,
    /// Its processor.
    pub chip: String,
    /// `macos` or `linux`.
    pub os: String,
    /// Hardware threads.
    pub threads: usize,
    /// Installed memory, in bytes.
    pub memory_bytes: u64,
    /// Memory used by its owner's programs and the system, in bytes.
    pub taken_bytes: u64,
    /// Memory it offers the swarm now, in bytes.
    pub offered_bytes: u64,
    /// Whether it shares now.
    pub sharing: bool,
    /// Why it does not share, in words.
    pub not_sharing: Option<String>,
    /// The same reason, as a value.
    #[serde(deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub why_not_sharing: Option<NotSharing>,
    /// Whether it computes on a GPU.
    pub gpu: bool,
    /// Decode speed with the starter model, in tokens per second.
    pub decode_tokens_per_s: Option<f64>,
    /// Weight bytes read per second while decoding.
    pub bytes_per_s: Option<f64>,
    /// Prefill speed, in tokens per second.
    pub prefill_tokens_per_s: Option<f64>,
    /// Its owner's memory limit, in bytes, if set.
    pub cap_bytes: Option<u64>,
    /// Memory used by the layers it holds, in bytes.
    pub held_bytes: u64,
    /// Whether that exceeds its owner's limit.
    pub over_cap: bool,
    /// The most memory it could offer if nothing else were in memory, in bytes.
    pub limit_bytes: Option<u64>,
    /// Its owner's limit on sending, in bits per second, if set.
    pub sends_bits_per_s: Option<u64>,
    /// Usable models on its disk.
    pub models: Vec<String>,
    /// Every model on its disk; `None` until all have been examined.
    pub copies: Option<Vec<ModelCopy>>,
    /// Whether it fetches missing layers.
    pub fetches: bool,
    /// Answers it is computing a part of.
    pub sessions: usize,
    /// Where its power comes from.
    pub power: Power,
    /// How hot it is.
    pub heat: Heat,
}

/// A model on a machine's disk, as reported to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelCopy {
    /// Its name there; `None` for a file known only by its path.
    pub name: Option<String>,
    /// Identifies its contents across machines; `None` if it cannot be used.
    pub digest: Option<String>,
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Power {
    /// Whether it runs on battery.
    pub on_battery: bool,
    /// Charge of the battery, where there is one.
    pub battery_percent: Option<u8>,
    /// Whether the owner asked the system to save energy.
    pub low_power_mode: bool,
}

/// Thermal state, as macOS grades it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heat {
    /// Normal.
    #[default]
    Nominal,
    /// Warm; fans may be heard.
    Fair,
    /// Hot: the system slows down.
    Serious,
    /// Too hot to continue.
    Critical,
    /// Added by a newer version.
    #[serde(other)]
    Unknown,
}
