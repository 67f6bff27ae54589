//! What models are called between machines.

use hive_net::border;

use crate::ModelSource;

/// The model that comes with HiveMind.
pub const STARTER_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// What programs call the starter model.
pub fn starter_name() -> &'static str {
    STARTER_FILE.trim_end_matches(".gguf")
}

/// Of a name that another machine gives: those of Hugging Face have 96 at most, and a file's is behind it.
const MODEL_COLUMNS: usize = 160;

impl ModelSource {
    /// What people call a model that another machine asks for; never a path.
    pub fn name(&self) -> String {
        match self {
            Self::Path(_) => "a file of its own".to_owned(),
            Self::Named(None, _) => starter_name().to_owned(),
            Self::Named(Some(name), _) => border::line(name, MODEL_COLUMNS),
        }
    }
}
