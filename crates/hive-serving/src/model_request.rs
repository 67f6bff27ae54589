//! What is asked for of models: which one, over how many machines.

use hive_stage::{aside, models};
use serde::{Deserialize, Serialize};

/// Which model, over how many machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// By name; `None` is the starter model.
    pub model: Option<String>,
    /// Over exactly so many machines; `None` leaves it to the plan.
    pub stages: Option<usize>,
}

impl ModelRequest {
    /// A model by the name that [`models::names`] gives it, placed as the plan has it.
    pub fn named(name: &str) -> Self {
        Self { model: Some(name.to_owned()).filter(|name| name != models::starter_name()), stages: None }.usual()
    }

    /// The same request by the model's usual name: by several names it would be loaded several times.
    pub(crate) fn usual(&self) -> Self {
        let usual = |name: &String| aside(|| models::usual_name(name));
        Self { model: self.model.as_ref().map(usual), stages: self.stages }
    }
}
