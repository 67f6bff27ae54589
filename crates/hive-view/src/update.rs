//! Progress of an app update, and the effect of the next click.

use hive_types::Language;
use serde::Serialize;
use specta::Type;

use crate::words::words;

/// Progress of an app update.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Update {
    /// Not checked.
    #[default]
    Unknown,
    /// Checking for a newer version.
    Looking,
    /// Up to date.
    Current,
    /// A newer version is available.
    Found {
        /// Its version.
        version: String,
        /// Its release notes.
        notes: String,
    },
    /// Downloading.
    Fetching {
        /// Its version.
        version: String,
        /// Progress in percent.
        percent: u32,
    },
    /// Installed; it runs after a restart.
    Ready {
        /// Its version.
        version: String,
    },
    /// The update failed.
    Failed {
        /// Why.
        why: String,
    },
}

/// The effect of a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Check for a newer version.
    Look,
    /// Download and install it.
    Fetch,
    /// Restart to run it.
    Restart,
    /// Nothing; a step is in progress.
    Wait,
}

impl Update {
    /// The next step.
    pub fn next(&self) -> Next {
        match self {
            Self::Unknown | Self::Current | Self::Failed { .. } => Next::Look,
            Self::Found { .. } => Next::Fetch,
            Self::Ready { .. } => Next::Restart,
            Self::Looking | Self::Fetching { .. } => Next::Wait,
        }
    }

    /// The label of the menu entry.
    pub(crate) fn words(&self, language: Language) -> String {
        let words = &words(language).update;
        match self {
            Self::Unknown | Self::Current => words.check.to_owned(),
            Self::Looking => words.checking.to_owned(),
            Self::Found { version, .. } => (words.found)(version),
            Self::Fetching { version, percent } => (words.fetching)(version, *percent),
            Self::Ready { version } => (words.ready)(version),
            Self::Failed { .. } => words.failed.to_owned(),
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
        let next = |update: &Update| (update.next(), update.words(Language::En));
        assert_eq!(next(&Update::Unknown), (Next::Look, "Check for Updates…".to_owned()));
        assert_eq!(next(&found), (Next::Fetch, "Update to 9.9.9…".to_owned()));
        assert_eq!(next(&fetching), (Next::Wait, "Downloading 9.9.9: 40%".to_owned()));
        assert_eq!(next(&Update::Ready { version }), (Next::Restart, "Restart to Update to 9.9.9".to_owned()));
        assert_eq!(Update::Failed { why: String::new() }.next(), Next::Look);
        assert_eq!(found.words(Language::De), "Auf 9.9.9 aktualisieren …");
    }
}
