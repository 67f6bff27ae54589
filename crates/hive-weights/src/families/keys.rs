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

/// A whole number of JSON; some programs write 8 as 8.0.
fn as_whole(value: &Json) -> Option<usize> {
    let whole = |real: &f64| real.fract() == 0.0 && *real >= 0.0 && *real < 1e15;
    let number = value.as_u64().or_else(|| value.as_f64().filter(whole).map(|real| real as u64));
    number.and_then(|number| usize::try_from(number).ok())
}

/// The value of a key, read as one of a type. A key that is left out or null has none.
///
/// # Errors
/// It is of another type. Treating a wrong type as missing would silently change the model.
fn typed<'a, T>(
    json: &'a Json,
    key: &'static str,
    read: impl FnOnce(&'a Json) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    let value = &json[key];
    if value.is_null() {
        return Ok(None);
    }
    read(value).map(Some).ok_or_else(|| ConfigError::Value { key, value: shown(value) })
}

/// A value as text, not too long for a message.
fn shown(value: &Json) -> String {
    const MAX_SHOWN: usize = 60;
    let text = match value {
        Json::Array(items) => format!("a list of {}", items.len()),
        Json::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain(['…']).collect()
}

/// A whole number of `config.json`.
pub(super) fn whole(json: &Json, key: &'static str) -> Result<Option<usize>, ConfigError> {
    typed(json, key, as_whole)
}

/// A real number of `config.json`.
pub(super) fn real(json: &Json, key: &'static str) -> Result<Option<f32>, ConfigError> {
    typed(json, key, |value| value.as_f64().map(|number| number as f32))
}

/// A yes or no of `config.json`.
pub(super) fn flag(json: &Json, key: &'static str) -> Result<Option<bool>, ConfigError> {
    typed(json, key, Json::as_bool)
}

/// A text of `config.json`.
pub(super) fn text<'a>(json: &'a Json, key: &'static str) -> Result<Option<&'a str>, ConfigError> {
    typed(json, key, Json::as_str)
}

/// A table of `config.json`.
pub(super) fn table<'a>(json: &'a Json, key: &'static str) -> Result<Option<&'a Json>, ConfigError> {
    typed(json, key, |value| value.is_object().then_some(value))
}

impl Keys<'_> {
    /// A whole number.
    pub(crate) fn number(&self, (json, gguf): Name) -> Result<Option<usize>, ConfigError> {
        match self {
            Self::Json(keys) => whole(keys, json),
            Self::Gguf(file, architecture) => {
                Ok(file.number(&format!("{architecture}.{gguf}")).map(|number| number as usize))
            }
        }
    }

    /// A whole number that the configuration has to have.
    pub(crate) fn required(&self, name: Name) -> Result<usize, ConfigError> {
        self.number(name)?.ok_or(ConfigError::Missing(match self {
            Self::Json(_) => name.0,
            Self::Gguf(..) => name.1,
        }))
    }

    /// A real number.
    pub(crate) fn real(&self, (json, gguf): Name) -> Result<Option<f32>, ConfigError> {
        match self {
            Self::Json(keys) => real(keys, json),
            Self::Gguf(file, architecture) => {
                Ok(file.real(&format!("{architecture}.{gguf}")).map(|number| number as f32))
            }
        }
    }

    /// A yes or no.
    pub(crate) fn flag(&self, (json, gguf): Name) -> Result<Option<bool>, ConfigError> {
        match self {
            Self::Json(keys) => flag(keys, json),
            Self::Gguf(file, architecture) => Ok(match file.value(&format!("{architecture}.{gguf}")) {
                Some(Value::Bool(flag)) => Some(*flag),
                _ => None,
            }),
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
    pub(crate) fn text(&self, json: &'static str) -> Result<Option<&str>, ConfigError> {
        match self {
            Self::Json(keys) => text(keys, json),
            Self::Gguf(..) => Ok(None),
        }
    }

    /// Whole numbers in a list of `config.json`, or truth values that stand for some.
    pub(crate) fn numbers(&self, json: &'static str) -> Result<Option<Vec<usize>>, ConfigError> {
        let number = |value: &Json| as_whole(value).or_else(|| value.as_bool().map(usize::from));
        match self {
            Self::Json(keys) => typed(keys, json, |list| list.as_array()?.iter().map(number).collect()),
            Self::Gguf(..) => Ok(None),
        }
    }

    /// A number beside the rotation's, by its name in `config.json`.
    pub(crate) fn rope_number(&self, key: &'static str) -> Result<Option<f32>, ConfigError> {
        match self {
            Self::Json(keys) => Ok(match real(&keys["rope_parameters"], key)? {
                None => real(&keys["rope_scaling"], key)?,
                number => number,
            }),
            Self::Gguf(_, architecture) => match key {
                "factor" => self.real(("", "rope.scaling.factor")),
                "original_max_position_embeddings" => self.real(("", "rope.scaling.original_context_length")),
                "llama_4_scaling_beta" => self.real(("", "attention.temperature_scale")),
                // DeepSeek's files have a tenth of it.
                "mscale_all_dim" => {
                    let tenths = if *architecture == "deepseek2" { 10.0 } else { 1.0 };
                    Ok(self.real(("", "rope.scaling.yarn_log_multiplier"))?.map(|by| by * tenths))
                }
                _ => Ok(None),
            },
        }
    }

    /// What `config.json` says of the rotation of one kind of layers.
    pub(crate) fn rope_of_kind(&self, kind: &'static str) -> Result<Option<&Json>, ConfigError> {
        match self {
            Self::Json(keys) => table(&keys["rope_parameters"], kind),
            Self::Gguf(..) => Ok(None),
        }
    }

    /// A number that means something else if `config.json` leaves it out than if it is null, which is none, as it is if
    /// GGUF metadata leave it out.
    pub(crate) fn unless_null(&self, (json, gguf): Name, left_out: f64) -> Result<Option<f64>, ConfigError> {
        match self {
            Self::Json(keys) if keys.get(json).is_none() => Ok(Some(left_out)),
            Self::Json(keys) => typed(keys, json, Json::as_f64),
            Self::Gguf(file, architecture) => Ok(file.real(&format!("{architecture}.{gguf}"))),
        }
    }

    /// The kinds of the layers' attention, if the configuration names them.
    pub(crate) fn kinds(&self) -> Result<Vec<&str>, ConfigError> {
        match self {
            Self::Json(keys) => {
                let kinds = typed(keys, "layer_types", |list| list.as_array()?.iter().map(Json::as_str).collect());
                Ok(kinds?.unwrap_or_default())
            }
            Self::Gguf(..) => {
                let slides = self.flags_of_layers("attention.sliding_window_pattern").unwrap_or_default();
                let kind = |slides| if slides { "sliding_attention" } else { "full_attention" };
                Ok(slides.into_iter().map(kind).collect())
            }
        }
    }

    /// Refuses another activation than this; files may leave it out.
    pub(crate) fn has_activation(&self, wanted: &[&str]) -> Result<(), ConfigError> {
        for key in ["hidden_act", "hidden_activation"] {
            if let Some(name) = self.text(key)?.filter(|name| !wanted.contains(name)) {
                return Err(ConfigError::Unsupported(format!("{key} = {name}")));
            }
        }
        Ok(())
    }

    /// The first dimensions of a head that are rotated.
    pub(crate) fn rotated(&self, head_dim: usize) -> Result<usize, ConfigError> {
        match self {
            Self::Json(json) => {
                let factor = |json| typed(json, "partial_rotary_factor", Json::as_f64);
                let factor = match factor(json)? {
                    None => factor(&json["rope_parameters"])?,
                    factor => factor,
                };
                Ok(factor.map_or(head_dim, |factor| (head_dim as f64 * factor) as usize))
            }
            Self::Gguf(..) => Ok(self.number(("", "rope.dimension_count"))?.unwrap_or(head_dim)),
        }
    }

    /// Refuses a rotation of only a part of each head.
    pub(crate) fn rotates_whole_heads(&self, head_dim: usize) -> Result<(), ConfigError> {
        let rotated = self.rotated(head_dim)?;
        if rotated == head_dim {
            return Ok(());
        }
        Err(ConfigError::Unsupported(format!("rotary embedding of only {rotated} of a head's {head_dim} dimensions")))
    }

    /// The window of each layer: how many tokens a token attends to, itself included.
    pub(crate) fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
        let kinds = self.kinds()?;
        if let Some(kind) = kinds.iter().find(|kind| !matches!(**kind, "full_attention" | "sliding_attention")) {
            return Err(ConfigError::Unsupported(format!("{kind} layers")));
        }
        if !kinds.is_empty() && kinds.len() != layers {
            return Err(ConfigError::Value { key: "the number of layer types", value: kinds.len().to_string() });
        }
        let json = match self {
            Self::Json(json) => json,
            Self::Gguf(..) => {
                let window = self.number(("", "attention.sliding_window"))?.filter(|window| *window > 0);
                let slides = |layer| kinds.get(layer).is_none_or(|kind| *kind == "sliding_attention");
                return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
            }
        };
        // Qwen: the layers below this one attend to everything.
        let full = match self.flag(("use_sliding_window", ""))? {
            Some(true) => self.number(("max_window_layers", ""))?.unwrap_or(0),
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
                let unreadable = || ConfigError::Unsupported(format!("{key} = {}", shown(value)));
                // 0 and less is none.
                let is_none = value.as_f64().is_some_and(|number| number <= 0.0);
                let number = if is_none { None } else { Some(as_whole(value).ok_or_else(unreadable)?) };
                *window = [*window, number].into_iter().flatten().min();
            }
        }
        if kinds.contains(&"sliding_attention") && windows.iter().all(Option::is_none) {
            return Err(ConfigError::Unsupported("sliding_attention layers without a window".to_owned()));
        }
        Ok(windows)
    }
}
