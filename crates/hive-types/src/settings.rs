//! The settings that clients show.

use serde::{Deserialize, Serialize};

/// An accent colour; each has a light and a dark shade with enough contrast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Accent {
    #[default]
    Honey,
    Blue,
    Purple,
    Pink,
    Red,
    Green,
    Graphite,
}

/// Light or dark pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Look {
    /// As the system.
    #[default]
    Automatic,
    Light,
    Dark,
}
