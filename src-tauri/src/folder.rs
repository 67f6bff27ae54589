//! The app's data folder.

use std::path::PathBuf;

use hive_node::data::DataError;

/// The folder from the environment, or the default one.
pub(crate) fn data_folder() -> Result<PathBuf, DataError> {
    std::env::var_os("HIVEMIND_DATA_DIR")
        .map_or_else(hive_node::data::default_folder, |folder| Ok(PathBuf::from(folder)))
}
