//! The built-in models and the owner's own.

use std::io::ErrorKind;
use std::path::Path;

use crate::model::CatalogueEntry;
use crate::parse::{ParseError, parse};

/// The owner's own entries, in HiveMind's data folder.
const OWN_FILE: &str = "catalogue.toml";

/// The models that can be fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    /// The owner's own models first.
    pub entries: Vec<CatalogueEntry>,
    /// The error in the owner's file, if there is one.
    pub problem: Option<String>,
}

impl Catalogue {
    /// The models that are built in.
    pub fn built_in() -> Self {
        match parse(include_str!("models.toml")) {
            Ok(entries) => Self { entries, problem: None },
            // The tests read every entry; this is for builds that did not run them.
            Err(error) => Self { entries: Vec::new(), problem: Some(format!("the built-in catalogue: {error}")) },
        }
    }

    /// The built-in models with those of the owner's file in this folder, if there is one.
    pub fn with_own(folder: &Path) -> Self {
        let built_in = Self::built_in();
        let file = folder.join(OWN_FILE);
        match std::fs::read_to_string(&file) {
            Ok(text) => built_in.extended(&text).unwrap_or_else(|(built_in, error)| Self {
                problem: Some(format!("{}, {error}", file.display())),
                ..built_in
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => built_in,
            Err(error) => Self { problem: Some(format!("cannot read {}: {error}", file.display())), ..built_in },
        }
    }

    /// Adds entries. One of the same name takes the other's place, and a repository belongs to the entry added last.
    fn extended(mut self, own: &str) -> Result<Self, (Self, ParseError)> {
        let own = match parse(own) {
            Ok(own) => own,
            Err(error) => return Err((self, error)),
        };
        let is_own_name = |name: &str| own.iter().any(|own| own.name.eq_ignore_ascii_case(name));
        let is_own = |model: &str| {
            own.iter().flat_map(|own| &own.variants).any(|variant| variant.model().eq_ignore_ascii_case(model))
        };
        self.entries.retain(|entry| !is_own_name(&entry.name));
        for entry in &mut self.entries {
            entry.variants.retain(|variant| !is_own(&variant.model()));
        }
        self.entries.retain(|entry| !entry.variants.is_empty());
        Ok(Self { entries: own.into_iter().chain(self.entries).collect(), problem: self.problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Families with a GGUF that HiveMind loads, of those that are in the catalogue.
    const GGUF: [&str; 9] =
        ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "granite", "smollm3", "olmo2", "mixtral"];

    #[test]
    fn every_built_in_entry_is_read_and_its_bytes_are_those_of_its_bits() {
        let Catalogue { entries, problem } = Catalogue::built_in();
        assert_eq!(problem, None);
        assert!(entries.len() >= 40, "{}", entries.len());
        for entry in &entries {
            assert!(!entry.good_at.is_empty() && !entry.licence.is_empty(), "{}", entry.name);
            for variant in &entry.variants {
                let bytes = entry.parameters as f64 * variant.bits_per_weight / 8.0;
                let part = variant.bytes as f64 / bytes;
                assert!((0.75..1.25).contains(&part), "{}: {part:.2} of its parameters' bits", variant.model());
                let is_gguf = variant.repository.to_lowercase().ends_with("gguf");
                assert_eq!(is_gguf, variant.file.is_some(), "{}", variant.model());
                assert!(!is_gguf || GGUF.contains(&entry.family.as_str()), "{}", variant.model());
            }
        }
    }

    #[test]
    fn an_entry_of_numbers_that_no_model_has_needs_no_more_than_its_files() {
        let mut entry = Catalogue::built_in().entries.remove(0);
        (entry.hidden, entry.vocabulary) = (i64::MAX as u64, i64::MAX as u64);
        (entry.active_parameters, entry.kv_bytes_per_token) = (Some(i64::MAX as u64), u64::MAX);
        for tied in [true, false] {
            entry.tied_embeddings = tied;
            let needs = entry.needs(&entry.variants[0]);
            assert!(needs.layer_bytes + needs.embedding_bytes + needs.head_bytes <= entry.variants[0].bytes);
        }
    }

    #[test]
    fn what_a_model_needs_is_what_its_files_have() {
        for entry in Catalogue::built_in().entries {
            for variant in &entry.variants {
                let needs = entry.needs(variant);
                let ends = if entry.tied_embeddings { 1 } else { 2 };
                let all = needs.layer_bytes * needs.layers as u64 + ends * needs.embedding_bytes;
                assert!(all.abs_diff(variant.bytes) < entry.layers as u64, "{}: {all}", variant.model());
                assert!(needs.unread_bytes < needs.layer_bytes, "{}", variant.model());
                // Keys and values of a token are a small part of a layer.
                assert!(needs.kv_bytes_per_token < 20_000, "{}: {}", entry.name, needs.kv_bytes_per_token);
                let reads_less = entry.active_parameters.is_some();
                assert_eq!(needs.unread_bytes > 0, reads_less, "{}", entry.name);
            }
        }
    }

    #[test]
    fn the_owners_file_adds_models_and_takes_the_place_of_others() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Catalogue::with_own(folder.path()), Catalogue::built_in());
        let built_in = Catalogue::built_in().entries;
        let model = |name: &str, repository: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nfamily = \"llama\"\nparameters = 1000\nlayers = 2\nhidden = 4\n\
                 vocabulary = 9\nkv_bytes_per_token = 8\ncontext = 100\nlicence = \"MIT\"\nvariants = [{{ repository = \
                 \"{repository}\", quantization = \"4-bit\", bits_per_weight = 4.0 }}]\n"
            )
        };
        let moved = built_in.iter().find(|entry| entry.name == "Qwen3 8B").unwrap().variants[0].model();
        let own = [model("mine", "me/mine"), model("phi-4", "me/phi"), model("moved", &moved)].join("\n");
        std::fs::write(folder.path().join(OWN_FILE), own).unwrap();
        let Catalogue { entries, problem } = Catalogue::with_own(folder.path());
        assert_eq!(problem, None);
        assert_eq!(entries.len(), built_in.len() + 2);
        let places = |name: &str| entries.iter().filter(|entry| entry.name.eq_ignore_ascii_case(name)).count();
        assert_eq!((entries[0].name.as_str(), places("Phi-4")), ("mine", 1));
        let having = entries.iter().filter(|entry| entry.variants.iter().any(|variant| variant.model() == moved));
        assert_eq!(having.map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["moved"]);
    }

    #[test]
    fn a_damaged_own_file_is_named_with_its_line_and_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(OWN_FILE);
        std::fs::write(&file, "[[model]]\nname = \"mine\"\nlayer = 3\n").unwrap();
        let Catalogue { entries, problem } = Catalogue::with_own(folder.path());
        assert_eq!(entries, Catalogue::built_in().entries);
        let problem = problem.unwrap();
        assert!(problem.contains("catalogue.toml, line 3: unknown field `layer`"), "{problem}");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let Catalogue { entries, problem } = Catalogue::with_own(folder.path());
        assert!(!entries.is_empty() && problem.unwrap().contains("cannot read"));
    }
}
