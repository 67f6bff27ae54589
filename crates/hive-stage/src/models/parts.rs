//! Names of the models of which this machine has parts.
//!
//! One whose files the hub itself has confirmed is named as there: `owner/name`, or `owner/name/file.gguf`. Of any other,
//! another machine has said what it is; its name says that it is in parts, and which of them.

use std::path::PathBuf;

use hive_net::border;
use hive_store::gguf_name::has_label;
use hive_store::{Known, MAIN, Manifest, ModelName, Part, PartCopy, PartStore};

/// The shortest abbreviation of a commit.
const SHORTEST_COMMIT: usize = 6;
/// The digits of a commit that are shown.
const SHOWN_COMMIT: usize = 12;
/// Digits of a digest that tell models apart.
const SHOWN_DIGITS: usize = 8;

/// The name of a model, if it is known.
pub(crate) fn name_of(copy: &PartCopy) -> Option<String> {
    let Known { digest, revision, .. } = copy.known()?;
    let Manifest { origin, gguf, .. } = copy.manifest();
    let at = match (origin, &revision) {
        // A branch with a folder in its name reads like a file; a commit is found by its beginning.
        (Some(origin), Some(branch)) if branch.contains('/') => {
            format!("@{}", origin.commit.get(..SHOWN_COMMIT).unwrap_or(&origin.commit))
        }
        (Some(_), Some(revision)) if revision != MAIN => format!("@{revision}"),
        _ => String::new(),
    };
    let base = match (origin, gguf) {
        (Some(origin), None) => format!("{}{at}", origin.repository),
        (Some(origin), Some(file)) => format!("{}{at}/{file}", origin.repository),
        (None, Some(file)) => file.to_string(),
        (None, None) => "a folder".to_owned(),
    };
    let name = if origin.is_some() && revision.is_some() {
        base
    } else {
        format!("{base} (parts, {})", digest.get(..SHOWN_DIGITS).unwrap_or(&digest))
    };
    border::is_plain(&name).then_some(name)
}

/// The file or folder of a model, by name. A name that fits several is none.
pub(super) fn find(store: &PartStore, name: &str) -> Option<PathBuf> {
    let copies = store.copies();
    if let Some(copy) = copies.iter().find(|copy| name_of(copy).as_deref() == Some(name)) {
        return Some(copy.path());
    }
    let wanted: ModelName = name.parse().ok()?;
    let mut fitting = copies.iter().filter(|copy| is_it(&wanted, copy));
    let found = fitting.next()?;
    fitting.next().is_none().then(|| found.path())
}

fn is_it(wanted: &ModelName, copy: &PartCopy) -> bool {
    let (Some(origin), Some(Known { revision: Some(revision), .. })) = (&copy.manifest().origin, copy.known()) else {
        return false;
    };
    let asked = wanted.revision();
    let is_revision =
        asked == revision || asked != MAIN && asked.len() >= SHORTEST_COMMIT && origin.commit.starts_with(asked);
    let is_part = match (wanted.part(), &copy.manifest().gguf) {
        (Part::Whole, _) => true,
        (Part::Quantization(label), Some(file)) => has_label(file.as_str(), label),
        (Part::File(name), Some(file)) => file.as_str() == name,
        (_, None) => false,
    };
    origin.repository == wanted.repository() && is_revision && is_part
}
