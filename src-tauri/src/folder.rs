//! The data folder that the app works in.

use std::path::PathBuf;

use hive_node::data::DataError;

/// The one that was named, or the usual one.
pub(crate) fn data_folder() -> Result<PathBuf, DataError> {
    std::env::var_os("HIVEMIND_DATA_DIR")
        .map_or_else(hive_node::data::default_folder, |folder| Ok(PathBuf::from(folder)))
}
