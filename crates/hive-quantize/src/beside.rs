//! The files beside the weights that belong to a model: tokenizer, templates, defaults of generation, licence. Programs
//! are not copied, as they are not downloaded.

use std::path::{Path, PathBuf};

use crate::error::QuantizeError;

/// Names that are whole, and those that begin or end so. All in lower case.
const NAMES: [&str; 8] = [
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "chat_template.json",
];
const BEGINNINGS: [&str; 6] = ["tokenizer", "license", "licence", "notice", "use_policy", "copying"];
/// Templates and vocabularies.
const ENDINGS: [&str; 3] = [TEMPLATE, ".tiktoken", ".model"];
const TEMPLATE: &str = ".jinja";
/// Programs, and pickles, which may hold one: never copied, whatever they are called.
const PROGRAMS: [&str; 7] = [".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"];

/// A folder of templates that belongs to the tokenizer.
const TEMPLATES: &str = "additional_chat_templates";

/// The largest of them; vocabularies have tens of megabytes.
const MAX_BYTES: u64 = 1 << 30;

/// A file that belongs to a model.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Beside {
    /// Its path in the model's folder.
    pub(crate) name: String,
    /// Where it is read.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Those of a model's folder, by name.
///
/// # Errors
/// [`QuantizeError::Read`]: a folder cannot be listed, or a file is a link that leads nowhere.
pub(crate) fn files(model: &Path) -> Result<Vec<Beside>, QuantizeError> {
    let mut found = found_in(model, belongs)?;
    let templates = model.join(TEMPLATES);
    if templates.is_dir() {
        let templates = found_in(&templates, |name| name.ends_with(TEMPLATE))?;
        found.extend(templates.into_iter().map(|file| Beside { name: format!("{TEMPLATES}/{}", file.name), ..file }));
    }
    found.sort();
    Ok(found)
}

/// Whether a file of this name, in lower case, belongs to the model.
fn belongs(name: &str) -> bool {
    let is_program = PROGRAMS.iter().any(|ending| name.ends_with(ending));
    let is_named = NAMES.contains(&name)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || ENDINGS.iter().any(|ending| name.ends_with(ending));
    is_named && !is_program
}

fn found_in(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Beside>, QuantizeError> {
    let unread = |path: &Path| {
        let path = path.to_owned();
        |source| QuantizeError::Read { path, source }
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unread(folder))? {
        let path = entry.map_err(unread(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with('.') || !is_wanted(&name.to_lowercase()) {
            continue;
        }
        // A link, as the cache has them, counts as what it leads to. Nothing but a file is ever read.
        let about = std::fs::metadata(&path).map_err(unread(&path))?;
        if about.is_file() && about.len() <= MAX_BYTES {
            found.push(Beside { name: name.to_owned(), bytes: about.len(), path });
        }
    }
    Ok(found)
}
