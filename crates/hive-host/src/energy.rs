//! A machine's power and heat.

use serde::{Deserialize, Serialize};

/// Where the power comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Whether it is the battery.
    pub on_battery: bool,
    /// Charge of the battery, where there is one.
    pub battery_percent: Option<u8>,
    /// Whether the owner asked the system to save energy.
    pub low_power_mode: bool,
}

/// How hot the machine is, as macOS grades it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
}
