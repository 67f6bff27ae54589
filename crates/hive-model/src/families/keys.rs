//! The keys of a configuration, by their names in `config.json` and in GGUF metadata.

use serde_json::Value as Json;

use crate::config::ConfigError;
use crate::weights::Gguf;
use crate::weights::gguf::{Numbers, Value};

/// Where a model's configuration is read from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys<'a> {
    /// `config.json`.
    Json(&'a Json),
    /// GGUF metadata; its keys begin with the architecture.
    Gguf(&'a Gguf, &'a str),
}

/// A key's name in `config.json` and, where it has one, in GGUF.
type Name = (&'static str, &'static str);

impl Keys<'_> {
    /// A whole number.
    pub(crate) fn number(&self, (json, gguf): Name) -> Option<usize> {
        match self {
            Self::Json(keys) => keys[json].as_u64(),
            Self::Gguf(file, architecture) => file.number(&format!("{architecture}.{gguf}")),
        }
        .map(|number| number as usize)
    }

    /// A whole number that the configuration has to have.
    pub(crate) fn required(&self, name: Name) -> Result<usize, ConfigError> {
        self.number(name).ok_or(ConfigError::Missing(match self {
            Self::Json(_) => name.0,
            Self::Gguf(..) => name.1,
        }))
    }

    /// A real number.
    pub(crate) fn real(&self, (json, gguf): Name) -> Option<f32> {
        match self {
            Self::Json(keys) => keys[json].as_f64(),
            Self::Gguf(file, architecture) => file.real(&format!("{architecture}.{gguf}")),
        }
        .map(|number| number as f32)
    }

    /// A yes or no.
    pub(crate) fn flag(&self, (json, gguf): Name) -> Option<bool> {
        match self {
            Self::Json(keys) => keys[json].as_bool(),
            Self::Gguf(file, architecture) => match file.value(&format!("{architecture}.{gguf}")) {
                Some(Value::Bool(flag)) => Some(*flag),
                _ => None,
            },
        }
    }

    /// Whether a GGUF file has this tensor, by its Hugging Face name; `None` for `config.json`.
    pub(crate) fn has_tensor(&self, name: &str) -> Option<bool> {
        match self {
            Self::Json(_) => None,
            Self::Gguf(file, _) => Some(file.contains(name)),
        }
    }

    /// Numbers of all layers in GGUF metadata.
    pub(crate) fn of_layers(&self, gguf: &str) -> Option<Vec<usize>> {
        match self {
            Self::Json(_) => None,
            Self::Gguf(file, architecture) => {
                let numbers = file.numbers(&format!("{architecture}.{gguf}"))?.integers();
                Some(numbers.map(|number| usize::try_from(number).unwrap_or(0)).collect())
            }
        }
    }

    /// Truth values of all layers in GGUF metadata.
    pub(crate) fn flags_of_layers(&self, gguf: &str) -> Option<Vec<bool>> {
        match self {
            Self::Json(_) => None,
            Self::Gguf(file, architecture) => file.numbers(&format!("{architecture}.{gguf}")).and_then(Numbers::flags),
        }
    }

    /// A text of `config.json`.
    pub(crate) fn text(&self, json: &str) -> Option<&str> {
        match self {
            Self::Json(keys) => keys[json].as_str(),
            Self::Gguf(..) => None,
        }
    }

    /// Whole numbers in a list of `config.json`.
    pub(crate) fn numbers(&self, json: &str) -> Option<Vec<usize>> {
        match self {
            Self::Json(keys) => {
                let list = keys[json].as_array()?;
                list.iter().map(|number| number.as_u64().map(|number| number as usize)).collect()
            }
            Self::Gguf(..) => None,
        }
    }

    /// A number beside the rotation's, by its name in `config.json`.
    pub(crate) fn rope_number(&self, key: &str) -> Option<f32> {
        match self {
            Self::Json(keys) => {
                let number = ["rope_parameters", "rope_scaling"].into_iter().find_map(|part| keys[part][key].as_f64());
                number.map(|number| number as f32)
            }
            Self::Gguf(_, architecture) => match key {
                "factor" => self.real(("", "rope.scaling.factor")),
                "original_max_position_embeddings" => self.real(("", "rope.scaling.original_context_length")),
                "llama_4_scaling_beta" => self.real(("", "attention.temperature_scale")),
                // DeepSeek's files have a tenth of it.
                "mscale_all_dim" => {
                    let tenths = if *architecture == "deepseek2" { 10.0 } else { 1.0 };
                    self.real(("", "rope.scaling.yarn_log_multiplier")).map(|by| by * tenths)
                }
                _ => None,
            },
        }
    }

    /// What `config.json` says of the rotation of one kind of layers: a number, or a text.
    pub(crate) fn rope_of_kind(&self, kind: &str, key: &str) -> Option<&Json> {
        match self {
            Self::Json(keys) => Some(&keys["rope_parameters"][kind][key]).filter(|value| !value.is_null()),
            Self::Gguf(..) => None,
        }
    }

    /// A number that means something else if `config.json` leaves it out than if it is null, which is none, as it is if
    /// GGUF metadata leave it out.
    pub(crate) fn unless_null(&self, (json, gguf): Name, left_out: f64) -> Option<f64> {
        match self {
            Self::Json(keys) => keys.get(json).map_or(Some(left_out), Json::as_f64),
            Self::Gguf(file, architecture) => file.real(&format!("{architecture}.{gguf}")),
        }
    }

    /// The kinds of the layers' attention, if the configuration names them.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        match self {
            Self::Json(keys) => keys["layer_types"].as_array().into_iter().flatten().filter_map(Json::as_str).collect(),
            Self::Gguf(..) => {
                let slides = self.flags_of_layers("attention.sliding_window_pattern").unwrap_or_default();
                slides.into_iter().map(|slides| if slides { "sliding_attention" } else { "full_attention" }).collect()
            }
        }
    }

    /// Refuses another activation than this; files may leave it out.
    pub(crate) fn has_activation(&self, wanted: &[&str]) -> Result<(), ConfigError> {
        for key in ["hidden_act", "hidden_activation"] {
            if let Some(name) = self.text(key).filter(|name| !wanted.contains(name)) {
                return Err(ConfigError::Unsupported(format!("{key} = {name}")));
            }
        }
        Ok(())
    }

    /// The first dimensions of a head that are rotated.
    pub(crate) fn rotated(&self, head_dim: usize) -> usize {
        match self {
            Self::Json(json) => {
                let factor = json["partial_rotary_factor"].as_f64();
                let factor = factor.or_else(|| json["rope_parameters"]["partial_rotary_factor"].as_f64());
                factor.map_or(head_dim, |factor| (head_dim as f64 * factor) as usize)
            }
            Self::Gguf(..) => self.number(("", "rope.dimension_count")).unwrap_or(head_dim),
        }
    }

    /// Refuses a rotation of only a part of each head.
    pub(crate) fn rotates_whole_heads(&self, head_dim: usize) -> Result<(), ConfigError> {
        let rotated = self.rotated(head_dim);
        if rotated == head_dim {
            return Ok(());
        }
        Err(ConfigError::Unsupported(format!("rotary embedding of only {rotated} of a head's {head_dim} dimensions")))
    }

    /// The window of each layer: how many tokens a token attends to, itself included.
    pub(crate) fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
        let kinds = self.kinds();
        if let Some(kind) = kinds.iter().find(|kind| !matches!(**kind, "full_attention" | "sliding_attention")) {
            return Err(ConfigError::Unsupported(format!("{kind} layers")));
        }
        if !kinds.is_empty() && kinds.len() != layers {
            return Err(ConfigError::Value { key: "the number of layer types", value: kinds.len().to_string() });
        }
        let json = match self {
            Self::Json(json) => json,
            Self::Gguf(..) => {
                let window = self.number(("", "attention.sliding_window")).filter(|window| *window > 0);
                let slides = |layer| kinds.get(layer).is_none_or(|kind| *kind == "sliding_attention");
                return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
            }
        };
        // Qwen: the layers below this one attend to everything.
        let full = match self.flag(("use_sliding_window", "")) {
            Some(true) => self.number(("max_window_layers", "")).unwrap_or(0),
            Some(false) => layers,
            None => 0,
        };
        let slides = |layer: usize| match kinds.get(layer) {
            Some(kind) => *kind == "sliding_attention",
            None => layer >= full,
        };
        let mut windows = vec![None; layers];
        for key in ["sliding_window", "attention_window"] {
            // One for all layers, or one for each.
            let given = json[key].as_array().map_or_else(|| std::slice::from_ref(&json[key]), Vec::as_slice);
            for (layer, window) in windows.iter_mut().enumerate().filter(|(layer, _)| slides(*layer)) {
                let Some(value) = given.get(layer % given.len().max(1)).filter(|value| !value.is_null()) else {
                    continue;
                };
                let unreadable = || ConfigError::Unsupported(format!("{key} = {value}"));
                // 0 and less is none.
                let number = value.as_i64().ok_or_else(unreadable)?;
                let number = usize::try_from(number).ok().filter(|window| *window > 0);
                *window = [*window, number].into_iter().flatten().min();
            }
        }
        if kinds.contains(&"sliding_attention") && windows.iter().all(Option::is_none) {
            return Err(ConfigError::Unsupported("sliding_attention layers without a window".to_owned()));
        }
        Ok(windows)
    }
}
