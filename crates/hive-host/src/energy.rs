//! Power and thermal state.

use serde::{Deserialize, Serialize};

/// The power source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// Whether it runs on battery.
    pub on_battery: bool,
    /// Charge of the battery, where there is one.
    pub battery_percent: Option<u8>,
    /// Whether the owner asked the system to save energy.
    pub low_power_mode: bool,
}

/// Thermal state, as macOS grades it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
}
