//! The files beside the weights that belong to a model: tokenizer, template, defaults of generation, licence.

use std::path::{Path, PathBuf};

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
/// Template, vocabularies, and the code that mlx-lm's tokenizers may need.
const ENDINGS: [&str; 4] = [".jinja", ".tiktoken", ".model", ".py"];

/// The largest of them; vocabularies have tens of megabytes.
const MAX_BYTES: u64 = 1 << 30;

/// Those of a folder, with their sizes, by name.
pub(crate) fn files(folder: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_lowercase();
        let belongs = NAMES.contains(&name.as_str())
            || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            || ENDINGS.iter().any(|ending| name.ends_with(ending));
        // A link, as the cache has them, counts as what it leads to. Nothing but a file is ever read.
        let about = std::fs::metadata(&path).ok().filter(|about| about.is_file() && about.len() <= MAX_BYTES);
        if let Some(about) = about.filter(|_| belongs && !name.starts_with('.')) {
            found.push((path, about.len()));
        }
    }
    found.sort();
    Ok(found)
}
