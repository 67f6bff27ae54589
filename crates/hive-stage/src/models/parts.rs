//! Names of the models of which this machine has parts.
//!
//! They come from a hub, and are named as there: `owner/name`, or `owner/name/file.gguf`. A commit is not shown: of two
//! of one repository, the one that was fetched last counts.

use std::path::PathBuf;

use hive_store::gguf_name::has_label;
use hive_store::{MAIN, Manifest, ModelName, Part, PartStore};

/// The name of a model, unless it is some machine's own.
pub(super) fn name_of(manifest: &Manifest) -> Option<String> {
    let repository = &manifest.origin.as_ref()?.repository;
    Some(match &manifest.gguf {
        Some(file) => format!("{repository}/{file}"),
        None => repository.clone(),
    })
}

/// The file or folder of a model, by name.
pub(super) fn find(store: &PartStore, name: &str) -> Option<PathBuf> {
    let wanted: ModelName = name.parse().ok()?;
    let is_it = |manifest: &Manifest| {
        let Some(origin) = &manifest.origin else { return false };
        let is_revision = wanted.revision() == MAIN || origin.commit.starts_with(wanted.revision());
        let is_part = match (wanted.part(), &manifest.gguf) {
            (Part::Whole, _) => true,
            (Part::Quantization(label), Some(file)) => has_label(file.as_str(), label),
            (Part::File(name), Some(file)) => file.as_str() == name,
            (_, None) => false,
        };
        origin.repository == wanted.repository() && is_revision && is_part
    };
    let copies = store.copies().into_iter().filter(|copy| copy.digest().is_some() && is_it(copy.manifest()));
    let age = |path: &PathBuf| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    copies.map(|copy| copy.path()).max_by_key(age)
}
