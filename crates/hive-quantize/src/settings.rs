//! `config.json`: what it says of numbers, and what the new folder's says.

use std::path::Path;

use hive_weights::weights::Float;
use serde_json::{Map, Value as Json, json};

use crate::error::QuantizeError;
use crate::recipe::Recipe;

/// Far more than any has.
const MAX_BYTES: u64 = 8 << 20;

/// A model's `config.json`.
pub(crate) struct Settings(Map<String, Json>);

impl Settings {
    pub(crate) fn read(folder: &Path) -> Result<Self, QuantizeError> {
        let path = folder.join("config.json");
        let text = hive_text::regular::read(&path, MAX_BYTES).ok();
        match text.and_then(|text| hive_text::json::parse(&text).ok()) {
            Some(Json::Object(table)) => Ok(Self(table)),
            _ => Err(QuantizeError::Changed(path)),
        }
    }

    /// The type that mlx-lm converts a model's numbers to, if it does: where it looks for it.
    pub(crate) fn float(&self) -> Option<Float> {
        let of_text = self.0.get("text_config").map(|text| &text["dtype"]);
        match self.0.get("torch_dtype").filter(|kind| !kind.is_null()).or(of_text)?.as_str()? {
            "float32" => Some(Float::F32),
            "float16" => Some(Float::F16),
            "bfloat16" => Some(Float::Bf16),
            _ => None,
        }
    }

    /// The new folder's: sorted by key, as mlx-lm writes it.
    pub(crate) fn quantized(mut self, recipe: &Recipe, exceptions: Map<String, Json>) -> Json {
        let mut table = Map::new();
        table.insert("group_size".to_owned(), recipe.group.into());
        table.insert("bits".to_owned(), recipe.bits.into());
        table.insert("mode".to_owned(), json!("affine"));
        table.extend(exceptions);
        // What only the original has: its name, the parts that read images, and how its weights were stored.
        for key in ["_name_or_path", "vision_config"] {
            self.0.remove(key);
        }
        if let Some(Json::Object(text)) = self.0.get_mut("text_config") {
            text.remove("quantization");
            text.remove("quantization_config");
        }
        self.0.insert("quantization_config".to_owned(), Json::Object(table.clone()));
        self.0.insert("quantization".to_owned(), Json::Object(table));
        let mut sorted: Vec<(String, Json)> = self.0.into_iter().collect();
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        Json::Object(sorted.into_iter().collect())
    }
}
