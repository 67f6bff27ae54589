//! Which files of a repository make up the model that was asked for. Pure: from the hub's list to a selection.
//!
//! A model in safetensors is everything that readers of such folders look for: configuration, weights and their index,
//! tokenizer, templates; all in the root, since folders hold the same model for other programs. A model in GGUF is one
//! file, or all parts of a split one. Programs (`.py`, pickles) are never chosen.

use std::collections::BTreeMap;

use crate::checksum::Checksum;
use crate::error::{Choice, FindError};
use crate::file_name::FileName;
use crate::gguf_name::{has_label, is_model, joined, label, part_of};
use crate::name::{ModelName, Part};

/// A file in the hub's list; a hub may leave size and checksum out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: FileName,
    pub(crate) bytes: Option<u64>,
    pub(crate) checksum: Option<Checksum>,
}

/// The files of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// In the order in which they appear in the cache: what makes the folder a model comes last.
    pub(crate) files: Vec<Entry>,
    /// The file that is the model, if it is GGUF: the first part of a split one.
    pub(crate) gguf: Option<FileName>,
}

/// Endings of the files beside the weights.
const BESIDE: [&str; 6] = [".json", ".jsonl", ".txt", ".jinja", ".model", ".tiktoken"];
/// A folder of templates that belongs to the tokenizer.
const TEMPLATES: &str = "additional_chat_templates/";
/// Endings of Python pickles.
const PICKLES: [&str; 6] = [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

/// Chooses the files of `model` from all there are.
pub(crate) fn choose(model: &ModelName, all: Vec<Entry>) -> Result<Chosen, FindError> {
    let repository = model.repository();
    let is_folder = is_folder(&all);
    match model.part() {
        Part::Whole if is_folder => Ok(Chosen { files: folder(all), gguf: None }),
        part => {
            let models = ggufs(&all);
            if models.is_empty() && *part == Part::Whole {
                let pickle = all.iter().find(|entry| ends_with(&entry.name, &PICKLES));
                return Err(match pickle {
                    Some(pickle) => FindError::OnlyPickle { model: repository, example: pickle.name.to_string() },
                    None => FindError::NoWeights { model: repository },
                });
            }
            let whole = one_of(model, &models)?;
            gguf(&repository, whole, &models[whole])
        }
    }
}

/// Whether the root is a model in safetensors.
fn is_folder(all: &[Entry]) -> bool {
    let in_root =
        |ending: &str| all.iter().any(|entry| entry.name.depth() == 0 && entry.name.as_str().ends_with(ending));
    all.iter().any(|entry| entry.name.as_str() == "config.json") && in_root(".safetensors")
}

/// The files of a model in safetensors.
fn folder(all: Vec<Entry>) -> Vec<Entry> {
    let is_weights = |entry: &Entry| entry.name.depth() == 0 && entry.name.as_str().ends_with(".safetensors");
    // Mistral uploads its weights twice: once more in the format of its own programs.
    let is_usual = |entry: &Entry| is_weights(entry) && entry.name.as_str().starts_with("model");
    let has_usual = all.iter().any(is_usual);
    let is_second = |entry: &Entry| has_usual && entry.name.as_str().starts_with("consolidated");
    let is_beside = |entry: &Entry| {
        let is_template = entry.name.as_str().starts_with(TEMPLATES) && entry.name.depth() == 1;
        (entry.name.depth() == 0 || is_template) && ends_with(&entry.name, &BESIDE)
    };
    let mut files: Vec<Entry> =
        all.into_iter().filter(|entry| (is_weights(entry) || is_beside(entry)) && !is_second(entry)).collect();
    files.sort_by_key(|entry| (entry.name.as_str() == "config.json", entry.name.clone()));
    files
}

/// The GGUF models of a repository: their parts, by their path without the number of a part.
type Models<'a> = BTreeMap<String, Vec<&'a Entry>>;

fn ggufs(all: &[Entry]) -> Models<'_> {
    let mut models = Models::new();
    for entry in all.iter().filter(|entry| is_model(entry.name.as_str()) && is_found(&entry.name)) {
        models.entry(joined(entry.name.as_str())).or_default().push(entry);
    }
    for parts in models.values_mut() {
        parts.sort_by(|one, other| one.name.cmp(&other.name));
    }
    models
}

/// The one that was asked for.
fn one_of<'a>(model: &ModelName, models: &'a Models) -> Result<&'a String, FindError> {
    let fits = |whole: &&String| match model.part() {
        Part::Whole => true,
        Part::Quantization(label) => has_label(whole, label),
        Part::File(file) => **whole == joined(file) || whole.rsplit('/').next() == Some(&joined(file)),
    };
    let mut fitting: Vec<&String> = models.keys().filter(fits).collect();
    if let Part::File(file) = model.part()
        && fitting.contains(&&joined(file))
    {
        fitting.retain(|whole| **whole == joined(file));
    }
    let [only] = fitting.as_slice() else {
        let asked = match model.part() {
            Part::Whole => None,
            Part::Quantization(asked) | Part::File(asked) => Some(asked.clone()),
        };
        let there = models.iter().map(|(whole, parts)| choice(model, models, whole, parts)).collect();
        return Err(FindError::Which { model: model.repository(), asked, there });
    };
    Ok(only)
}

/// All parts of a GGUF model, the first one last.
fn gguf(repository: &str, whole: &str, parts: &[&Entry]) -> Result<Chosen, FindError> {
    let [first, others @ ..] = parts else { return Err(FindError::NoWeights { model: repository.to_owned() }) };
    let expected = part_of(first.name.as_str()).map_or(1, |(_, of)| of as usize);
    if parts.len() != expected || part_of(first.name.as_str()).is_some_and(|(number, _)| number != 1) {
        let missing = expected.saturating_sub(parts.len()).max(1);
        return Err(FindError::MissingPart { model: repository.to_owned(), file: whole.to_owned(), missing });
    }
    let files = others.iter().chain([first]).map(|entry| (*entry).clone()).collect();
    Ok(Chosen { files, gguf: Some(first.name.clone()) })
}

/// A GGUF model with the shortest name that means only it.
fn choice(model: &ModelName, models: &Models, whole: &str, parts: &[&Entry]) -> Choice {
    let base = ModelName { part: Part::Whole, ..model.clone() };
    let label = label(whole).filter(|label| models.keys().filter(|whole| has_label(whole, label)).count() == 1);
    let name = match label {
        Some(label) => format!("{base}:{label}"),
        None => format!("{base}/{whole}"),
    };
    Choice { name, bytes: parts.iter().map(|entry| entry.bytes).sum() }
}

fn ends_with(name: &FileName, endings: &[&str]) -> bool {
    let name = name.as_str().to_ascii_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Whether a model there is found again once it is in the cache: a Mac leaves files that begin with a dot, and what lies
/// deeper is not looked for.
fn is_found(name: &FileName) -> bool {
    name.depth() <= 2 && !name.as_str().split('/').any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, files: &[&str]) -> Result<Vec<String>, FindError> {
        let entry = |file: &&str| Entry { name: FileName::new(file).unwrap(), bytes: Some(1_000), checksum: None };
        let chosen = choose(&name.parse().unwrap(), files.iter().map(entry).collect())?;
        Ok(chosen.files.iter().map(|entry| entry.name.to_string()).collect())
    }

    #[test]
    fn of_a_folder_come_the_files_that_readers_need_and_no_programs() {
        let files = [
            "README.md",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer.model",
            "merges.txt",
            "chat_template.jinja",
            "generation_config.json",
            "modeling_evil.py",
            "pytorch_model.bin",
            "consolidated.safetensors",
            "onnx/model.onnx",
            "original/model.safetensors",
            "additional_chat_templates/tools.jinja",
            "a-Q4_0.gguf",
        ];
        let expected = [
            "additional_chat_templates/tools.jinja",
            "chat_template.jinja",
            "generation_config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer.model",
            "config.json",
        ];
        assert_eq!(chosen("a/b", &files).unwrap(), expected);
        assert_eq!(chosen("a/b:q4_0", &files).unwrap(), ["a-Q4_0.gguf"]);
        // Weights with another name are the only ones there are.
        let files = ["config.json", "consolidated.safetensors"];
        assert_eq!(chosen("a/b", &files).unwrap(), ["consolidated.safetensors", "config.json"]);
    }

    const GGUF: [&str; 7] = [
        "README.md",
        "config.json",
        "m-Q4_K_M.gguf",
        "Q8_0/m-Q8_0-00002-of-00002.gguf",
        "Q8_0/m-Q8_0-00001-of-00002.gguf",
        "mmproj-m-F16.gguf",
        "m.imatrix.gguf",
    ];

    #[test]
    fn of_a_gguf_repository_comes_one_model_with_all_its_parts() {
        assert_eq!(chosen("a/b:q4_k_m", &GGUF).unwrap(), ["m-Q4_K_M.gguf"]);
        let split = ["Q8_0/m-Q8_0-00002-of-00002.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf"];
        for name in ["a/b:Q8_0", "a/b/m-Q8_0.gguf", "a/b/Q8_0/m-Q8_0-00001-of-00002.gguf"] {
            assert_eq!(chosen(name, &GGUF).unwrap(), split, "{name}");
        }
        assert_eq!(chosen("a/b", &["x/only.gguf", "mmproj.gguf"]).unwrap(), ["x/only.gguf"]);
    }

    #[test]
    fn a_name_that_does_not_say_which_is_answered_with_what_there_is() {
        let there = |name: &str, files: &[&str]| match chosen(name, files) {
            Err(FindError::Which { there, .. }) => there.into_iter().map(|choice| choice.name).collect::<Vec<_>>(),
            other => panic!("{name}: {other:?}"),
        };
        for name in ["a/b", "a/b:Q5_K_M", "a/b/m.gguf"] {
            assert_eq!(there(name, &GGUF), ["a/b:Q8_0", "a/b:Q4_K_M"]);
        }
        let message = chosen("a/b", &GGUF).unwrap_err().to_string();
        assert_eq!(message, "a/b has several models; choose one of a/b:Q8_0 (2.0 kB), a/b:Q4_K_M (1.0 kB)");
        let twice = ["x-Q4_0.gguf", "y-Q4_0.gguf"];
        assert_eq!(there("a/b@v1:Q4_0", &twice), ["a/b@v1/x-Q4_0.gguf", "a/b@v1/y-Q4_0.gguf"]);
    }

    #[test]
    fn pickles_adapters_and_half_uploaded_models_are_refused() {
        let error = chosen("a/b", &["config.json", "pytorch_model.bin", "tokenizer.json"]).unwrap_err();
        assert!(matches!(&error, FindError::OnlyPickle { example, .. } if example == "pytorch_model.bin"), "{error:?}");
        let error = chosen("a/b", &["adapter_model.safetensors", "adapter_config.json"]).unwrap_err();
        assert!(matches!(error, FindError::NoWeights { .. }), "{error:?}");
        for files in [&["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"][..], &["m-00002-of-00002.gguf"]] {
            let error = chosen("a/b", files).unwrap_err();
            assert!(matches!(error, FindError::MissingPart { missing: 1, .. }), "{error:?}");
        }
        let error = chosen("a/b:Q4_0", &["config.json", "model.safetensors"]).unwrap_err();
        assert_eq!(error.to_string(), "a/b has no GGUF files; ask for a/b itself");
    }
}
