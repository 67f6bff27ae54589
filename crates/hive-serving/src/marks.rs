//! What the owner has noted about models: which are pinned, and which have aliases. The format of `library.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hive_peers::data::DataError;
use hive_stage::AdapterFilesError;
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
    /// There is no such model on this machine, or it cannot answer.
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
    /// The adapter cannot be used.
    #[error(transparent)]
    Adapter(#[from] AdapterFilesError),
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
    /// What requests for an alias get.
    aliases: BTreeMap<String, Target>,
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Target {
    /// The name of a model.
    Model(String),
    /// A model, changed by the adapter in a folder.
    Adapted { model: String, adapter: PathBuf },
}

impl Target {
    fn model(&self) -> &str {
        match self {
            Self::Model(model) | Self::Adapted { model, .. } => model,
        }
    }

    fn adapter(&self) -> Option<&Path> {
        match self {
            Self::Model(_) => None,
            Self::Adapted { adapter, .. } => Some(adapter),
        }
    }
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
        self.aliases.get(alias).map(Target::model)
    }

    /// The folder of the adapter that an alias stands for.
    pub(crate) fn adapter_of(&self, alias: &str) -> Option<&Path> {
        self.aliases.get(alias).and_then(Target::adapter)
    }

    pub(crate) fn aliases(&self) -> Vec<Alias> {
        let alias = |(alias, target): (&String, &Target)| Alias {
            alias: alias.clone(),
            model: target.model().to_owned(),
            adapter: target.adapter().map(|folder| folder.display().to_string()),
        };
        self.aliases.iter().map(alias).collect()
    }

    /// The aliases of a model with an adapter, or those without.
    pub(crate) fn aliases_of(&self, model: &str, with_adapter: bool) -> Vec<String> {
        let is_one = |target: &Target| target.model() == model && target.adapter().is_some() == with_adapter;
        self.aliases.iter().filter(|(_, target)| is_one(target)).map(|(alias, _)| alias.clone()).collect()
    }

    /// Checks that a name can be an alias.
    pub(crate) fn check_alias(alias: &str) -> Result<(), MarkError> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        if (1..=LONGEST_ALIAS).contains(&alias.len()) && alias.chars().all(is_plain) {
            return Ok(());
        }
        Err(MarkError::Malformed(alias.to_owned()))
    }

    /// The folders of all adapters.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = &Path> {
        self.aliases.values().filter_map(Target::adapter)
    }

    /// Whether anything is noted of a model.
    pub(crate) fn mentions(&self, model: &str) -> bool {
        self.is_pinned(model) || self.aliases.values().any(|target| target.model() == model)
    }

    /// An alias that there is already stands for the other model from now on.
    pub(crate) fn set_alias(&mut self, alias: &str, model: &str, adapter: Option<&Path>) -> Result<(), MarkError> {
        Self::check_alias(alias)?;
        let model = model.to_owned();
        let target = match adapter {
            Some(adapter) => Target::Adapted { model, adapter: adapter.to_owned() },
            None => Target::Model(model),
        };
        self.aliases.insert(alias.to_owned(), target);
        Ok(())
    }

    /// Returns `false` if there was no such alias.
    pub(crate) fn remove_alias(&mut self, alias: &str) -> bool {
        self.aliases.remove(alias).is_some()
    }

    /// Forgets a model that is removed.
    pub(crate) fn forget(&mut self, model: &str) {
        self.pinned.remove(model);
        self.aliases.retain(|_, of| of.model() != model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_short_plain_word() {
        let mut marks = Marks::default();
        for alias in ["fast", "gpt-4o", "a.b_c-1", &"x".repeat(64)] {
            marks.set_alias(alias, "owner/name", None).unwrap();
            assert_eq!(marks.model_of(alias), Some("owner/name"));
        }
        for alias in ["", "owner/name", "two words", "schnell\n", "größe", "a:b", "a@b", &"x".repeat(65)] {
            assert!(matches!(marks.set_alias(alias, "owner/name", None), Err(MarkError::Malformed(_))), "{alias}");
            assert_eq!(marks.model_of(alias), None);
        }
        assert_eq!(marks.aliases_of("owner/name", false).len(), 4);
        marks.set_alias("tuned", "owner/name", Some(Path::new("/a"))).unwrap();
        assert_eq!(marks.aliases_of("owner/name", true), ["tuned"]);
    }

    #[test]
    fn an_alias_moves_to_another_model_and_goes_with_its_model() {
        let mut marks = Marks::default();
        marks.set_alias("fast", "owner/small", Some(Path::new("/a"))).unwrap();
        assert_eq!(marks.adapter_of("fast"), Some(Path::new("/a")));
        marks.set_alias("fast", "owner/smaller", None).unwrap();
        assert_eq!(marks.adapter_of("fast"), None);
        marks.pin("owner/smaller");
        marks.pin("owner/large");
        let expected = Alias { alias: "fast".to_owned(), model: "owner/smaller".to_owned(), adapter: None };
        assert_eq!(marks.aliases(), [expected]);
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

    #[test]
    fn the_file_names_models_and_adapters() {
        let mut marks = Marks::default();
        marks.set_alias("fast", "a/b", None).unwrap();
        marks.set_alias("tuned", "a/b", Some(Path::new("/adapters/tuned"))).unwrap();
        let text = serde_json::to_string(&marks).unwrap();
        assert_eq!(
            text,
            r#"{"pinned":[],"aliases":{"fast":"a/b","tuned":{"model":"a/b","adapter":"/adapters/tuned"}}}"#
        );
        assert_eq!(serde_json::from_str::<Marks>(&text).unwrap(), marks);
    }
}
