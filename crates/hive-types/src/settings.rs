//! What of the owner's settings is shown.

use serde::{Deserialize, Serialize};

/// An accent colour; each is shown in a light and a dark shade that can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are colours")]
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
