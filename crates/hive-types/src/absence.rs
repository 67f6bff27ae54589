//! Why a machine is away, and why one that is there does not share: as values, and in English.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::Condition;

/// Why an approved machine is away.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Absence {
    /// It has not been heard since this node started.
    NotHeard,
    /// It does not answer.
    Silent,
    /// This machine or the other one ended the pairing.
    Removed,
    /// It has not approved this machine.
    NotApproved {
        /// Its name.
        machine: String,
    },
    /// It broke off, perhaps because it has not approved this machine.
    BrokeOff,
    /// Its HiveMind is too old for this one.
    TooOld {
        /// Its name.
        machine: String,
    },
    /// Its HiveMind is too new for this one.
    TooNew {
        /// Its name.
        machine: String,
    },
    /// It runs another version of HiveMind, and nothing says which of the two is older.
    OtherVersion {
        /// Its name.
        machine: String,
    },
    /// All its known addresses are on other networks.
    ElsewhereOnly,
    /// Its addresses changed too often.
    TooManyAddresses,
    /// Something is in the way of its connection.
    Hindered {
        /// What.
        condition: Condition,
    },
    /// Another reason, or one that it gave.
    Other {
        /// The reason, in words.
        why: String,
    },
    /// Added by a newer version.
    #[cfg_attr(feature = "specta", specta(skip))]
    #[serde(other)]
    Unknown,
}

impl Display for Absence {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotHeard => f.write_str("it has not been heard yet"),
            Self::Silent => f.write_str("it does not answer"),
            Self::Removed => f.write_str("it was removed"),
            Self::NotApproved { machine } => write!(f, "{machine} has not approved this machine; pair them again"),
            Self::BrokeOff => f.write_str("it has not approved this machine, or broke off"),
            Self::TooOld { machine } => {
                write!(f, "{machine} runs an older HiveMind that this one does not understand; update {machine}")
            }
            Self::TooNew { machine } => {
                write!(f, "{machine} runs a newer HiveMind that this one does not understand; update this machine")
            }
            Self::OtherVersion { machine } => {
                write!(f, "{machine} runs another version of HiveMind; update the older of the two")
            }
            Self::ElsewhereOnly => f.write_str("it is on none of this machine's networks"),
            Self::TooManyAddresses => {
                f.write_str("too many different addresses were announced for it; it is tried again within a minute")
            }
            Self::Hindered { condition } => f.write_str(condition.explain()),
            Self::Other { why } => f.write_str(why),
            Self::Unknown => f.write_str("it is away for a reason that only a newer version knows"),
        }
    }
}

/// Why a machine does not share.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NotSharing {
    /// Its owner has switched sharing off.
    SwitchedOff,
    /// Its owner has paused sharing.
    Paused {
        /// How much longer, in minutes.
        minutes: u64,
    },
    /// HiveMind is being quit there.
    Quitting,
    /// It runs on battery.
    OnBattery,
    /// It saves energy.
    SavingEnergy,
    /// It is too hot.
    Hot,
    /// Somebody uses it.
    InUse,
    /// Its memory is short.
    ShortOfMemory,
    /// It shares with other machines, but not with the one that asks.
    NotWithYou,
    /// Added by a newer version.
    #[cfg_attr(feature = "specta", specta(skip))]
    #[serde(other)]
    Unknown,
}

impl Display for NotSharing {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SwitchedOff => "sharing is switched off",
            Self::Paused { minutes } => return write!(f, "paused for another {minutes} min"),
            Self::Quitting => "HiveMind is being quit",
            Self::OnBattery => "paused: on battery",
            Self::SavingEnergy => "paused: saving energy",
            Self::Hot => "paused: too hot",
            Self::InUse => "paused: in use",
            Self::ShortOfMemory => "paused: short of memory",
            Self::NotWithYou => "its owner does not share it with this machine",
            Self::Unknown => "it does not share for a reason that only a newer version knows",
        })
    }
}
