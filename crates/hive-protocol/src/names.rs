//! Names of models between machines.

use hive_net::border;

use crate::ModelSource;

/// The model that comes with HiveMind.
pub const STARTER_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The starter model's name for programs.
pub fn starter_name() -> &'static str {
    STARTER_FILE.trim_end_matches(".gguf")
}

/// Maximum width of a model name from another machine. A name on Hugging Face has 96 characters at most; a file's name
/// may follow it.
const MODEL_COLUMNS: usize = 160;

impl ModelSource {
    /// The name that people see for a model that another machine asks for; never a path.
    pub fn name(&self) -> String {
        match self {
            Self::Path(_) => "a file of its own".to_owned(),
            Self::Named(None, _) => starter_name().to_owned(),
            Self::Named(Some(name), _) => border::line(name, MODEL_COLUMNS),
        }
    }
}
