//! Requests for a model.

use hive_stage::models;
use serde::{Deserialize, Serialize};

/// A model, and the number of machines to run it on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The model's name; `None` is the starter model.
    pub model: Option<String>,
    /// The exact number of machines; `None` leaves it to the plan.
    pub stages: Option<usize>,
}

impl ModelRequest {
    /// The model with this name, on as many machines as the plan says.
    pub fn named(name: &str) -> Self {
        Self { model: Some(name.to_owned()).filter(|name| name != models::starter_name()), stages: None }
    }
}
