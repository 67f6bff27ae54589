//! `adapter_config.json`: which program wrote it, and the factor on what the adapter adds.

use serde::Deserialize;
use serde_json::Value as Json;

use super::error::AdapterError;

/// Who wrote the adapter, which decides the names and the order of its matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// mlx-lm: `lora_a` is `[columns, rank]`, `lora_b` is `[rank, rows]`.
    Mlx,
    /// PEFT: `lora_A.weight` is `[rank, columns]`, `lora_B.weight` is `[rows, rank]`.
    Peft,
}

impl Form {
    /// The module that a tensor belongs to, and whether it is the first matrix of its pair.
    pub(super) fn parts(self, name: &str) -> Option<(&str, bool)> {
        let (first, second) = match self {
            Self::Mlx => (".lora_a", ".lora_b"),
            Self::Peft => (".lora_A.weight", ".lora_B.weight"),
        };
        // PEFT's models put the model that they wrap below two modules of their own.
        let name = if self == Self::Peft { name.strip_prefix("base_model.model.").unwrap_or(name) } else { name };
        let first = name.strip_suffix(first).map(|module| (module, true));
        first.or_else(|| name.strip_suffix(second).map(|module| (module, false)))
    }
}

/// What the file says of the adapter.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) form: Form,
    scaling: Scaling,
}

#[derive(Debug)]
enum Scaling {
    Fixed(f32),
    /// Divided by the rank, or by its root.
    Alpha {
        alpha: f32,
        of_modules: Vec<(String, f32)>,
        by_root: bool,
    },
}

/// mlx-lm's file.
#[derive(Deserialize)]
struct Mlx {
    #[serde(default)]
    fine_tune_type: Option<String>,
    #[serde(default)]
    lora_parameters: Json,
}

#[derive(Deserialize)]
struct MlxParameters {
    scale: f32,
}

/// Settings of PEFT that change what an adapter computes, and what they stand for. Others change how it was trained.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("alora_invocation_tokens", "activation by tokens (aLoRA)"),
    ("use_dora", "DoRA"),
    ("fan_in_fan_out", "transposed matrices (fan_in_fan_out)"),
    ("lora_bias", "biases of its own (lora_bias)"),
    ("layer_replication", "layers that are repeated (layer_replication)"),
    ("trainable_token_indices", "embeddings of its own (trainable_token_indices)"),
    ("target_parameters", "parameters of experts (target_parameters)"),
];

/// Starting points of PEFT that change the model's own matrices before training: the adapter holds the difference to those.
const CHANGED_STARTS: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Settings {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, AdapterError> {
        let refuse = |error: serde_json::Error| AdapterError::Config(error.to_string());
        let json: Json = serde_json::from_slice(bytes).map_err(refuse)?;
        if let Some(kind) = json.get("peft_type") {
            return Self::of_peft(kind, &json);
        }
        let Mlx { fine_tune_type, lora_parameters } = serde_json::from_value(json).map_err(refuse)?;
        match fine_tune_type.as_deref() {
            None | Some("lora") => {}
            Some("dora") => return Err(unsupported("DoRA")),
            Some(other) => return Err(unsupported(&format!("fine-tuning of type {other:?}"))),
        }
        let MlxParameters { scale } = serde_json::from_value(lora_parameters)
            .map_err(|error| AdapterError::Config(format!("its lora_parameters: {error}")))?;
        Ok(Self { form: Form::Mlx, scaling: Scaling::Fixed(scale) })
    }

    fn of_peft(kind: &Json, json: &Json) -> Result<Self, AdapterError> {
        if !kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("lora")) {
            return Err(unsupported(kind.as_str().unwrap_or("another method than LoRA")));
        }
        if let Some((_, what)) = UNSUPPORTED.iter().find(|(key, _)| is_set(&json[*key])) {
            return Err(unsupported(what));
        }
        if is_set(&json["bias"]) && json["bias"] != "none" {
            return Err(unsupported("biases of its own"));
        }
        if let Some(start) = json["init_lora_weights"].as_str()
            && CHANGED_STARTS.iter().any(|changed| start.to_lowercase().starts_with(changed))
        {
            return Err(unsupported(&format!(
                "an initialization that changes the model's own weights (init_lora_weights {start:?})"
            )));
        }
        let of_modules = json["alpha_pattern"].as_object().into_iter().flatten().map(|(pattern, alpha)| {
            let is_plain = pattern.chars().all(|c| c.is_alphanumeric() || ['_', '.'].contains(&c));
            match alpha.as_f64().filter(|_| is_plain) {
                Some(alpha) => Ok((pattern.clone(), alpha as f32)),
                None => Err(unsupported(&format!("the alpha_pattern {pattern:?}"))),
            }
        });
        let alpha =
            json["lora_alpha"].as_f64().ok_or_else(|| AdapterError::Config("it has no lora_alpha".to_owned()))?;
        let scaling = Scaling::Alpha {
            alpha: alpha as f32,
            of_modules: of_modules.collect::<Result<_, _>>()?,
            by_root: is_set(&json["use_rslora"]),
        };
        Ok(Self { form: Form::Peft, scaling })
    }

    /// The factor on what the adapter adds to a module.
    pub(super) fn scale(&self, module: &str, rank: usize) -> Result<f32, AdapterError> {
        let scale = match &self.scaling {
            Scaling::Fixed(scale) => *scale,
            Scaling::Alpha { alpha, of_modules, by_root } => {
                let is_of = |pattern: &str| {
                    module.strip_suffix(pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'))
                };
                let alpha = of_modules.iter().find(|(pattern, _)| is_of(pattern)).map_or(*alpha, |(_, alpha)| *alpha);
                alpha / if *by_root { (rank as f32).sqrt() } else { rank as f32 }
            }
        };
        if scale.is_finite() { Ok(scale) } else { Err(AdapterError::Scale { module: module.to_owned(), scale }) }
    }
}

/// Whether a setting says anything.
fn is_set(json: &Json) -> bool {
    match json {
        Json::Null | Json::Bool(false) => false,
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
        _ => true,
    }
}

fn unsupported(what: &str) -> AdapterError {
    AdapterError::Unsupported(what.to_owned())
}
