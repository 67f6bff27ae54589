//! The families of models: which there are, and how a configuration becomes a [`ModelConfig`].
//!
//! A family is a function from its keys to the layers' specification (`config/layers.rs`), and a row in the table here.
//! What is not known is refused by name.

mod deepseek;
mod gemma;
mod glm;
mod gpt_oss;
mod keys;
mod llama;
mod qwen;
mod rotation;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::config::{ConfigError, Ends, LayerSpec, MAX_HEAD_WIDTH, ModelConfig, Unused};
use crate::weights::Gguf;
use crate::weights::gguf::Value;
use crate::weights::safetensors::Fp8;
use keys::{Keys, flag, real, whole};

/// A family of models.
struct Family {
    /// Its `model_type` in `config.json`.
    json: &'static [&'static str],
    /// Its `general.architecture` in GGUF.
    gguf: &'static [&'static str],
    /// What keys mean that `config.json` may leave out, as JSON.
    defaults: &'static str,
    /// What its layers are made of. The rest of the configuration has been read and checked.
    layers: fn(&mut ModelConfig, &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError>,
}

const QWEN3_5: &str = r#"{"rope_theta": 1e5, "partial_rotary_factor": 0.25, "tie_word_embeddings": false,
    "max_position_embeddings": 131072}"#;

const FAMILIES: &[Family] = &[
    Family { json: &["llama", "mistral"], gguf: &["llama", "mistral"], defaults: "{}", layers: llama::llama },
    Family { json: &["qwen2"], gguf: &["qwen2"], defaults: r#"{"rope_theta": 1e6}"#, layers: qwen::qwen2 },
    Family { json: &["qwen3"], gguf: &["qwen3"], defaults: "{}", layers: qwen::qwen3 },
    Family { json: &["qwen3_moe"], gguf: &["qwen3moe"], defaults: "{}", layers: qwen::qwen3_moe },
    Family {
        json: &["qwen3_next"],
        gguf: &["qwen3next"],
        defaults: r#"{"tie_word_embeddings": false}"#,
        layers: qwen::qwen3_next,
    },
    Family { json: &["qwen3_5", "qwen3_5_text"], gguf: &["qwen35"], defaults: QWEN3_5, layers: qwen::qwen3_5 },
    Family {
        json: &["qwen3_5_moe", "qwen3_5_moe_text"],
        gguf: &["qwen35moe"],
        defaults: QWEN3_5,
        layers: qwen::qwen3_5_moe,
    },
    Family { json: &["gpt_oss"], gguf: &["gpt-oss"], defaults: "{}", layers: gpt_oss::gpt_oss },
    Family {
        json: &["gemma3_text", "gemma3"],
        gguf: &["gemma3"],
        defaults: r#"{"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
            "vocab_size": 262208, "rope_theta": 1e6, "max_position_embeddings": 131072,
            "sliding_window": 4096, "query_pre_attn_scalar": 256}"#,
        layers: gemma::gemma3,
    },
    Family {
        json: &["gemma4_text", "gemma4", "gemma4_unified"],
        gguf: &["gemma4"],
        defaults: r#"{"hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144, "num_attention_heads": 8,
            "num_key_value_heads": 1, "head_dim": 256, "rms_norm_eps": 1e-6, "vocab_size": 262144,
            "vocab_size_per_layer_input": 262144, "sliding_window": 512, "max_position_embeddings": 131072,
            "use_double_wide_mlp": true, "rope_parameters": {
                "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}"#,
        layers: gemma::gemma4,
    },
    Family {
        json: &["glm4_moe_lite"],
        gguf: &[],
        defaults: r#"{"rope_theta": 1e6, "first_k_dense_replace": 1, "n_shared_experts": 1,
            "routed_scaling_factor": 1.8, "tie_word_embeddings": false}"#,
        layers: deepseek::glm4_moe_lite,
    },
    Family {
        json: &["deepseek_v3", "kimi_k2", "kimi_k25"],
        gguf: &["deepseek2"],
        defaults: r#"{"tie_word_embeddings": false}"#,
        layers: deepseek::deepseek_v3,
    },
    Family { json: &["glm4_moe"], gguf: &["glm4moe"], defaults: "{}", layers: glm::glm4_moe },
    Family { json: &["ministral3"], gguf: &["mistral3"], defaults: "{}", layers: llama::ministral3 },
    Family { json: &["mixtral"], gguf: &[], defaults: r#"{"rope_theta": 1e6}"#, layers: llama::mixtral },
    Family { json: &["phi3"], gguf: &["phi3"], defaults: "{}", layers: llama::phi3 },
    Family { json: &["smollm3"], gguf: &["smollm3"], defaults: r#"{"rope_theta": 2e6}"#, layers: llama::smollm3 },
    Family { json: &["granite"], gguf: &["granite"], defaults: "{}", layers: llama::granite },
    Family { json: &["olmo2"], gguf: &["olmo2"], defaults: "{}", layers: llama::olmo2 },
];

fn find(name: &str, names: fn(&Family) -> &'static [&'static str]) -> Result<&'static Family, ConfigError> {
    FAMILIES.iter().find(|family| names(family).contains(&name)).ok_or_else(|| ConfigError::Architecture {
        name: name.to_owned(),
        known: FAMILIES.iter().flat_map(names).copied().collect(),
    })
}

impl ModelConfig {
    /// Reads a Hugging Face `config.json`.
    pub fn from_json(json: &Json) -> Result<Self, ConfigError> {
        let outer = json["model_type"].as_str().ok_or(ConfigError::Missing("model_type"))?;
        let (json, has_senses) = text_part(json);
        let architecture = json["model_type"].as_str().unwrap_or(outer);
        let named = |name| find(name, |family| family.json);
        let family = named(architecture).or_else(|_| named(outer))?;
        let json = &with_defaults(&json, family.defaults);
        let required = |key: &'static str| whole(json, key)?.ok_or(ConfigError::Missing(key));
        let heads = required("num_attention_heads")?;
        let hidden = required("hidden_size")?;
        // MLX has a key of its own; the original model's key may remain beside it.
        if json["quantization"].is_null() {
            Fp8::from_json(&json["quantization_config"]).map_err(ConfigError::Unsupported)?;
        }
        if json["rope_traditional"] == true {
            return Err(ConfigError::Unsupported("rope_traditional".to_owned()));
        }
        let head_dim = checked_head_dim(whole(json, "head_dim")?.or_else(|| hidden.checked_div(heads)))?;
        let config = Self {
            architecture: architecture.to_owned(),
            layers: required("num_hidden_layers")?,
            specs: Vec::new(),
            ends: Ends::default(),
            hidden,
            // Models of experts alone may have no other network.
            intermediate: match whole(json, "intermediate_size")? {
                None => whole(json, "moe_intermediate_size")?.ok_or(ConfigError::Missing("intermediate_size"))?,
                Some(width) => width,
            },
            heads,
            kv_heads: whole(json, "num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocabulary: required("vocab_size")?,
            rms_eps: real(json, "rms_norm_eps")?.ok_or(ConfigError::Missing("rms_norm_eps"))?,
            rope: rotation::from_json(json, head_dim)?,
            max_context: whole(json, "max_position_embeddings")?.unwrap_or(2048),
            // Transformers writes the key only if it differs from the family's default; mlx-lm assumes true.
            tied_embeddings: flag(json, "tie_word_embeddings")?.unwrap_or(true),
            end_tokens: token_ids(&json["eos_token_id"]),
            unused: Unused { senses: has_senses, layers: 0 },
        };
        config.with_layers(family, &Keys::Json(json))
    }

    /// Reads a GGUF's metadata.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ConfigError> {
        let architecture = gguf.string("general.architecture").ok_or(ConfigError::Missing("general.architecture"))?;
        let family = find(architecture, |family| family.gguf)?;
        let key = |name: &str| format!("{architecture}.{name}");
        let number = |name: &'static str| gguf.number(&key(name)).map(|n| n as usize).ok_or(ConfigError::Missing(name));
        let heads = number("attention.head_count")?;
        let hidden = number("embedding_length")?;
        // Of layers with a window, if others have another.
        let head_dim = number("attention.key_length_swa").or_else(|_| number("attention.key_length"));
        let head_dim = checked_head_dim(head_dim.ok().or_else(|| hidden.checked_div(heads)))?;
        // One for all layers, or one for each.
        let first = |name: &'static str| match gguf.numbers(&key(name)) {
            Some(each) => {
                each.integers().next().and_then(|n| usize::try_from(n).ok()).ok_or(ConfigError::Missing(name))
            }
            None => number(name),
        };
        // Only Gemma 4's layers have different numbers of them. Another family's would be read in a wrong order.
        let of_layers = gguf.numbers(&key("attention.head_count_kv")).map(|each| each.integers().collect::<Vec<_>>());
        let differs = of_layers.is_some_and(|each| each.windows(2).any(|pair| pair[0] != pair[1]));
        if differs && architecture != "gemma4" {
            let what = "layers with different numbers of key-value heads".to_owned();
            return Err(ConfigError::Unsupported(what));
        }
        let further = number("nextn_predict_layers").unwrap_or(0);
        let vocabulary = match gguf.value("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => tokens.len(),
            _ => number("vocab_size")?,
        };
        if gguf.value(&key("attention.causal")) == Some(&Value::Bool(false)) {
            return Err(ConfigError::Unsupported("attention to what comes later".to_owned()));
        }
        let config = Self {
            architecture: architecture.to_owned(),
            layers: number("block_count")?.saturating_sub(further),
            specs: Vec::new(),
            ends: Ends::default(),
            hidden,
            // Models of experts alone may have no other network.
            intermediate: first("feed_forward_length")
                .or_else(|missing| first("expert_feed_forward_length").map_err(|_| missing))?,
            heads,
            kv_heads: first("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            vocabulary,
            rms_eps: gguf
                .real(&key("attention.layer_norm_rms_epsilon"))
                .ok_or(ConfigError::Missing("attention.layer_norm_rms_epsilon"))? as f32,
            rope: rotation::from_gguf(gguf, architecture, head_dim)?,
            max_context: number("context_length").unwrap_or(2048),
            // A GGUF without an output matrix uses the embedding; the caller, who knows the tensors, decides.
            tied_embeddings: true,
            // From the vocabulary; the caller adds them.
            end_tokens: Vec::new(),
            unused: Unused { senses: false, layers: further },
        };
        config.with_layers(family, &Keys::Gguf(gguf, architecture))
    }

    /// The numbers are checked first, so that none that is corrupt sizes anything.
    fn with_layers(self, family: &Family, keys: &Keys<'_>) -> Result<Self, ConfigError> {
        let mut config = self.checked()?;
        config.specs = (family.layers)(&mut config, keys)?;
        config.checked()
    }
}

/// A head's width, checked before factors of its rotation are read: a layer keeps as many as it says.
fn checked_head_dim(width: Option<usize>) -> Result<usize, ConfigError> {
    match width.unwrap_or(0) {
        width if width <= MAX_HEAD_WIDTH => Ok(width),
        width => Err(ConfigError::Value { key: "the head size", value: width.to_string() }),
    }
}

/// The configuration of the text's part, and whether there are others: models that also read images or sounds have it
/// in a part of its own.
fn text_part(json: &Json) -> (Cow<'_, Json>, bool) {
    let Some(text) = json["text_config"].as_object() else { return (Cow::Borrowed(json), false) };
    let mut text = text.clone();
    let outer = ["quantization", "quantization_config", "eos_token_id", "tie_word_embeddings", "vocab_size"];
    for key in outer.into_iter().filter(|key| !json[*key].is_null()) {
        text.entry(key).or_insert_with(|| json[key].clone());
    }
    text.entry("model_type").or_insert_with(|| json["model_type"].clone());
    (Cow::Owned(Json::Object(text)), true)
}

/// Adds what the configuration leaves out.
fn with_defaults(json: &Json, defaults: &str) -> Json {
    let mut json = json.clone();
    let defaults: serde_json::Map<String, Json> = serde_json::from_str(defaults).unwrap_or_default();
    for (key, value) in defaults {
        // Newer files have it elsewhere, and those with several kinds of layers in a part of that.
        let newer = &json["rope_parameters"];
        if !newer[&key].is_null() || !newer["full_attention"][&key].is_null() {
            continue;
        }
        if json[&key].is_null() {
            json[&key] = value;
        }
    }
    json
}

/// `eos_token_id` is a number or a list of numbers.
pub(crate) fn token_ids(value: &Json) -> Vec<u32> {
    let one = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Json::Array(ids) => ids.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}
