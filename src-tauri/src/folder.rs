//! The app's data folder, and showing it.

use std::path::{Path, PathBuf};

use hive_node::data::DataError;

use crate::problem::Problem;

/// The folder from the environment, or the default one.
pub(crate) fn data_folder() -> Result<PathBuf, DataError> {
    std::env::var_os("HIVEMIND_DATA_DIR")
        .map_or_else(hive_node::data::default_folder, |folder| Ok(PathBuf::from(folder)))
}

/// Shows a folder in the system's file manager.
pub(crate) fn show(folder: &Path) -> Result<(), Problem> {
    // Debug builds let tests see what would be shown.
    let opener = std::env::var("HIVEMIND_OPENER").ok().filter(|_| cfg!(debug_assertions));
    let opened = match opener {
        Some(program) => open::with_detached(folder, program),
        None => open::that_detached(folder),
    };
    opened.map_err(Problem::of("not_shown"))
}

/// Shows the folder that models are downloaded to.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_models() -> Result<(), Problem> {
    let cache = hive_node::hugging_face_cache().ok_or_else(|| Problem::new("not_shown", "there is no home folder"))?;
    std::fs::create_dir_all(&cache).map_err(Problem::of("not_shown"))?;
    show(&cache)
}
