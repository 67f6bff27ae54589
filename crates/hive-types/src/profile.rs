//! What a machine says of itself.

use serde::{Deserialize, Serialize};

/// A machine in its own words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// What it calls itself.
    pub name: String,
    /// The version of HiveMind it runs.
    pub version: String,
    /// Its processor.
    pub chip: String,
    /// `macos` or `linux`.
    pub os: String,
    /// Threads that compute at the same time.
    pub threads: usize,
    /// Installed memory, in bytes.
    pub memory_bytes: u64,
    /// What its owner's programs and the system use of that, in bytes.
    pub taken_bytes: u64,
    /// What it offers the swarm at this moment, in bytes.
    pub offered_bytes: u64,
    /// Whether it computes for others now.
    pub sharing: bool,
    /// Why it does not, in words.
    pub not_sharing: Option<String>,
    /// Whether it computes on a GPU.
    pub gpu: bool,
    /// How fast it computes the starter model: tokens of an answer per second.
    pub decode_tokens_per_s: Option<f64>,
    /// Bytes of weights it reads per second on the way.
    pub bytes_per_s: Option<f64>,
    /// Tokens of a prompt per second.
    pub prefill_tokens_per_s: Option<f64>,
    /// The most memory its owner lets it give, in bytes, if that is set.
    pub cap_bytes: Option<u64>,
    /// What the layers it holds take of that, in bytes.
    pub held_bytes: u64,
    /// Whether that is more than its owner lets it give by now.
    pub over_cap: bool,
    /// The most it could offer with nothing else in memory, in bytes.
    pub limit_bytes: Option<u64>,
    /// The most it sends, in bits per second, if its owner has set that.
    pub sends_bits_per_s: Option<u64>,
    /// Models on its disk that can be asked.
    pub models: Vec<String>,
    /// What each model on its disk is; nothing until it has looked at all of them.
    pub copies: Option<Vec<ModelCopy>>,
    /// Answers it is computing a part of.
    pub sessions: usize,
    /// Where its power comes from.
    pub power: Power,
    /// How hot it is.
    pub heat: Heat,
}

/// A model on a machine's disk, as it tells others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelCopy {
    /// What it is called there; nothing for a file that has no name but its path.
    pub name: Option<String>,
    /// Tells whether it is the same elsewhere; nothing where it cannot be used.
    pub digest: Option<String>,
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Power {
    /// Whether it is the battery.
    pub on_battery: bool,
    /// Charge of the battery, where there is one.
    pub battery_percent: Option<u8>,
    /// Whether the owner asked the system to save energy.
    pub low_power_mode: bool,
}

/// How hot the machine is, as macOS grades it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heat {
    /// As it should be.
    #[default]
    Nominal,
    /// Warm; fans may be heard.
    Fair,
    /// Hot: the system slows down.
    Serious,
    /// Too hot to go on.
    Critical,
    /// Something that only a newer version knows.
    #[serde(other)]
    Unknown,
}
