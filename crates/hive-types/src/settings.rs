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

/// A language of the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
}

impl Language {
    /// The language of a locale, such as "de-AT" or "de_DE.UTF-8"; English for a language that the app does not speak.
    pub fn of(locale: &str) -> Self {
        match locale.split(['-', '_', '.', '@']).next() {
            Some(name) if name.eq_ignore_ascii_case("de") => Self::De,
            _ => Self::En,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_has_the_language_that_it_names_first() {
        for locale in ["de", "de-AT", "de_DE.UTF-8", "de@euro", "DE-ch"] {
            assert_eq!(Language::of(locale), Language::De, "{locale}");
        }
        for locale in ["", "C", "en-DE", "den", "fr_CH.UTF-8", "nds-DE"] {
            assert_eq!(Language::of(locale), Language::En, "{locale}");
        }
    }
}
