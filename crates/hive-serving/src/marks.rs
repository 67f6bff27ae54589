//! What the owner has noted about models: which are pinned, and which have aliases. The format of `library.json`.

use std::collections::{BTreeMap, BTreeSet};

use hive_peers::data::DataError;
use hive_stage::models::FindError;
use hive_types::Alias;
use serde::{Deserialize, Serialize};

/// The file's name in the data folder.
pub const FILE: &str = "library.json";

/// The longest alias, in characters.
const LONGEST_ALIAS: usize = 64;

/// Why something was not noted.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// There is no such model on this machine.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It is not pinned.
    #[error("{0} is not pinned")]
    NotPinned(String),
    /// Not a name that an alias may have.
    #[error("\"{0}\" cannot be an alias: use 1 to {LONGEST_ALIAS} letters, digits, dots, hyphens and underscores")]
    Malformed(String),
    /// A model has that name.
    #[error("{0} is the name of a model; choose another alias")]
    Taken(String),
    /// There is no such alias.
    #[error("there is no alias \"{0}\"")]
    NoAlias(String),
    /// The file was not written.
    #[error("this is in effect until HiveMind stops, but could not be saved: {0}")]
    NotKept(#[from] DataError),
}

/// The file. Fields from a newer version are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// Names of models.
    pinned: BTreeSet<String>,
    /// Names of models, by alias.
    aliases: BTreeMap<String, String>,
}

impl Marks {
    pub(crate) fn pinned(&self) -> impl Iterator<Item = &str> {
        self.pinned.iter().map(String::as_str)
    }

    pub(crate) fn is_pinned(&self, model: &str) -> bool {
        self.pinned.contains(model)
    }

    pub(crate) fn pin(&mut self, model: &str) {
        self.pinned.insert(model.to_owned());
    }

    /// Returns `false` if the model was not pinned.
    pub(crate) fn unpin(&mut self, model: &str) -> bool {
        self.pinned.remove(model)
    }

    /// The model that an alias stands for.
    pub(crate) fn model_of(&self, alias: &str) -> Option<&str> {
        self.aliases.get(alias).map(String::as_str)
    }

    pub(crate) fn aliases(&self) -> Vec<Alias> {
        let alias = |(alias, model): (&String, &String)| Alias { alias: alias.clone(), model: model.clone() };
        self.aliases.iter().map(alias).collect()
    }

    pub(crate) fn aliases_of(&self, model: &str) -> Vec<String> {
        self.aliases.iter().filter(|(_, of)| *of == model).map(|(alias, _)| alias.clone()).collect()
    }

    /// An alias that there is already stands for the other model from now on.
    pub(crate) fn set_alias(&mut self, alias: &str, model: &str) -> Result<(), MarkError> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        if !(1..=LONGEST_ALIAS).contains(&alias.len()) || !alias.chars().all(is_plain) {
            return Err(MarkError::Malformed(alias.to_owned()));
        }
        self.aliases.insert(alias.to_owned(), model.to_owned());
        Ok(())
    }

    /// Returns `false` if there was no such alias.
    pub(crate) fn remove_alias(&mut self, alias: &str) -> bool {
        self.aliases.remove(alias).is_some()
    }

    /// Forgets a model that is removed.
    pub(crate) fn forget(&mut self, model: &str) {
        self.pinned.remove(model);
        self.aliases.retain(|_, of| of != model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_short_plain_word() {
        let mut marks = Marks::default();
        for alias in ["fast", "gpt-4o", "a.b_c-1", &"x".repeat(64)] {
            marks.set_alias(alias, "owner/name").unwrap();
            assert_eq!(marks.model_of(alias), Some("owner/name"));
        }
        for alias in ["", "owner/name", "two words", "schnell\n", "größe", "a:b", "a@b", &"x".repeat(65)] {
            assert!(matches!(marks.set_alias(alias, "owner/name"), Err(MarkError::Malformed(_))), "{alias}");
            assert_eq!(marks.model_of(alias), None);
        }
        assert_eq!(marks.aliases_of("owner/name").len(), 4);
    }

    #[test]
    fn an_alias_moves_to_another_model_and_goes_with_its_model() {
        let mut marks = Marks::default();
        marks.set_alias("fast", "owner/small").unwrap();
        marks.set_alias("fast", "owner/smaller").unwrap();
        marks.pin("owner/smaller");
        marks.pin("owner/large");
        assert_eq!(marks.aliases(), [Alias { alias: "fast".to_owned(), model: "owner/smaller".to_owned() }]);
        marks.forget("owner/smaller");
        assert_eq!(marks.aliases(), []);
        assert_eq!(marks.pinned().collect::<Vec<_>>(), ["owner/large"]);
        assert!(!marks.unpin("owner/smaller") && !marks.remove_alias("fast"));
    }

    #[test]
    fn the_file_of_another_version_is_read() {
        let newer = r#"{ "pinned": ["a/b"], "favourites": ["a/b"] }"#;
        let marks: Marks = serde_json::from_str(newer).unwrap();
        assert!(marks.is_pinned("a/b"));
    }
}
