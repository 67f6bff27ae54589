//! How far an update of the app has come, and what the next click leads to.

use serde::Serialize;
use specta::Type;

/// How far an update has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Update {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// Being looked for.
    Looking,
    /// There is none.
    Current,
    /// There is one.
    Found {
        /// Its version.
        version: String,
        /// What is new in it.
        notes: String,
    },
    /// On its way.
    Fetching {
        /// Its version.
        version: String,
        /// How much is here.
        percent: u32,
    },
    /// Here; it runs after a restart.
    Ready {
        /// Its version.
        version: String,
    },
    /// It did not work.
    Failed {
        /// Why.
        why: String,
    },
}

/// What a click leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Look for a newer version.
    Look,
    /// Fetch and install it.
    Fetch,
    /// Restart into it.
    Restart,
    /// It is busy already.
    Wait,
}

impl Update {
    /// What comes next, if somebody wants it to.
    pub fn next(&self) -> Next {
        match self {
            Self::Unknown | Self::Current | Self::Failed { .. } => Next::Look,
            Self::Found { .. } => Next::Fetch,
            Self::Ready { .. } => Next::Restart,
            Self::Looking | Self::Fetching { .. } => Next::Wait,
        }
    }

    /// The words of the menu's entry.
    pub fn words(&self) -> String {
        match self {
            Self::Unknown | Self::Current => "Check for Updates…".to_owned(),
            Self::Looking => "Checking for Updates…".to_owned(),
            Self::Found { version, .. } => format!("Update to {version}…"),
            Self::Fetching { version, percent } => format!("Downloading {version}: {percent}%"),
            Self::Ready { version } => format!("Restart to Update to {version}"),
            Self::Failed { .. } => "Update Failed. Try Again…".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_leads_on_from_wherever_it_is() {
        let (version, notes) = ("9.9.9".to_owned(), String::new());
        let found = Update::Found { version: version.clone(), notes };
        let fetching = Update::Fetching { version: version.clone(), percent: 40 };
        let next = |update: &Update| (update.next(), update.words());
        assert_eq!(next(&Update::Unknown), (Next::Look, "Check for Updates…".to_owned()));
        assert_eq!(next(&found), (Next::Fetch, "Update to 9.9.9…".to_owned()));
        assert_eq!(next(&fetching), (Next::Wait, "Downloading 9.9.9: 40%".to_owned()));
        assert_eq!(next(&Update::Ready { version }), (Next::Restart, "Restart to Update to 9.9.9".to_owned()));
        assert_eq!(Update::Failed { why: String::new() }.next(), Next::Look);
    }
}
