//! The models on this machine, as the windows list them.

use hive_node::ModelOnDisk;
use hive_node::settings::Settings;
use serde::Serialize;
use specta::Type;
use tauri::State;

use crate::folder;
use crate::problem::Problem;
use crate::shell::Shell;

/// A model on this machine's disk.
#[derive(Debug, PartialEq, Serialize, Type)]
pub(crate) struct OnDisk {
    /// Its name.
    name: String,
    /// Its size on disk, in bytes.
    #[specta(type = i32)]
    bytes: f64,
    /// Whether it is in memory.
    loaded: bool,
    /// Whether it can be removed.
    removable: bool,
    /// Other machines that have it.
    also_on: Vec<String>,
    /// Why it cannot be used, if it cannot.
    unusable: Option<String>,
}

/// The models on this machine: the default one first, those that cannot be used last.
#[tauri::command]
#[specta::specta]
pub(crate) async fn list_models(shell: State<'_, Shell>) -> Result<Vec<OnDisk>, Problem> {
    let preferred = Settings::read(&shell.folder)?.model;
    Ok(listed(shell.node.models().await, preferred.as_deref()))
}

/// Shows the folder that models are downloaded to.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_models() -> Result<(), Problem> {
    let cache = hive_node::hugging_face_cache().ok_or_else(|| Problem::new("not_shown", "there is no home folder"))?;
    std::fs::create_dir_all(&cache).map_err(Problem::of("not_shown"))?;
    folder::show(&cache)
}

fn listed(models: Vec<ModelOnDisk>, preferred: Option<&str>) -> Vec<OnDisk> {
    let on_disk = |model: ModelOnDisk| {
        let ModelOnDisk { name, bytes, loaded, removable, also_on, unusable, .. } = model;
        let unusable = unusable.map(|why| without_folders(&why));
        OnDisk { name, bytes: bytes as f64, loaded, removable, also_on, unusable }
    };
    let mut models: Vec<_> = models.into_iter().map(on_disk).collect();
    // Stable, so that models keep their order otherwise.
    models.sort_by_key(|model| (model.unusable.is_some(), Some(model.name.as_str()) != preferred));
    models
}

/// A message with file names in place of absolute paths. A path may contain spaces: it ends at a colon, or with the
/// message.
fn without_folders(message: &str) -> String {
    let (mut rest, mut shown) = (message, String::new());
    while let Some(from) = rest.match_indices('/').map(|(at, _)| at).find(|at| starts_a_word(rest, *at)) {
        let to = rest[from..].find(": ").map_or(rest.len(), |length| from + length);
        let name = rest[from..to].rfind('/').map_or(from, |slash| from + slash + 1);
        shown += &rest[..from];
        shown += &rest[name..to];
        rest = &rest[to..];
    }
    shown + rest
}

fn starts_a_word(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_none_or(|before| before.is_whitespace() || "\"'(".contains(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, unusable: Option<&str>) -> ModelOnDisk {
        ModelOnDisk {
            name: name.to_owned(),
            bytes: 1,
            loaded: false,
            removable: true,
            also_on: Vec::new(),
            lacking: Vec::new(),
            unusable: unusable.map(str::to_owned),
        }
    }

    #[test]
    fn the_default_model_is_first_and_a_broken_one_last() {
        let models = || vec![model("broken", Some("it is cut")), model("a", None), model("b", None)];
        let names = |preferred| listed(models(), preferred).into_iter().map(|model| model.name).collect::<Vec<_>>();
        assert_eq!(names(None), ["a", "b", "broken"]);
        assert_eq!(names(Some("b")), ["b", "a", "broken"]);
        assert_eq!(names(Some("gone")), ["a", "b", "broken"]);
        assert_eq!(listed(models(), None)[2].unusable.as_deref(), Some("it is cut"));
    }

    #[test]
    fn what_is_wrong_is_said_without_a_path() {
        for (message, shown) in [
            (
                "/Users/me/Application Support/x/config.json: EOF while parsing an object at line 1 column 21",
                "config.json: EOF while parsing an object at line 1 column 21",
            ),
            ("there is no model at /a b/c", "there is no model at c"),
            ("/a/b.gguf is neither a .gguf file nor a folder", "b.gguf is neither a .gguf file nor a folder"),
            ("the file is cut at 1/2; I/O failed", "the file is cut at 1/2; I/O failed"),
        ] {
            assert_eq!(without_folders(message), shown);
        }
    }
}
