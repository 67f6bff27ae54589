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

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::config::{ConfigError, Ends, LayerSpec, ModelConfig, Unused};
use crate::weights::Gguf;
use crate::weights::gguf::Value;
use keys::Keys;

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
        let whole = json["model_type"].as_str().ok_or(ConfigError::Missing("model_type"))?;
        let (json, has_senses) = text_part(json);
        let architecture = json["model_type"].as_str().unwrap_or(whole);
        let named = |name| find(name, |family| family.json);
        let family = named(architecture).or_else(|_| named(whole))?;
        let json = &with_defaults(&json, family.defaults);
        let number = |key: &'static str| json[key].as_u64().map(|n| n as usize).ok_or(ConfigError::Missing(key));
        let heads = number("num_attention_heads")?;
        let hidden = number("hidden_size")?;
        // MLX has a key of its own; the original model's key may remain beside it.
        let foreign = json["quantization_config"]["quant_method"].as_str().filter(|_| json["quantization"].is_null());
        if let Some(method) = foreign.filter(|method| *method != "bitsandbytes") {
            return Err(ConfigError::Unsupported(format!("weights quantized by {method}")));
        }
        if json["rope_traditional"] == true {
            return Err(ConfigError::Unsupported("rope_traditional".to_owned()));
        }
        let head_dim = number("head_dim").ok().or_else(|| hidden.checked_div(heads)).unwrap_or(0);
        let config = Self {
            architecture: architecture.to_owned(),
            layers: number("num_hidden_layers")?,
            specs: Vec::new(),
            ends: Ends::default(),
            hidden,
            // Models of experts alone may have no other network.
            intermediate: number("intermediate_size")
                .or_else(|missing| number("moe_intermediate_size").map_err(|_| missing))?,
            heads,
            kv_heads: number("num_key_value_heads").unwrap_or(heads),
            head_dim,
            vocabulary: number("vocab_size")?,
            rms_eps: json["rms_norm_eps"].as_f64().ok_or(ConfigError::Missing("rms_norm_eps"))? as f32,
            rope: rotation::from_json(json, head_dim)?,
            max_context: number("max_position_embeddings").unwrap_or(2048),
            // Transformers writes the key only if it differs from the family's default; mlx-lm assumes true.
            tied_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(true),
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
        let head_dim = head_dim.ok().or_else(|| hidden.checked_div(heads)).unwrap_or(0);
        // One for all layers, or one for each.
        let first = |name: &'static str| match gguf.numbers(&key(name)) {
            Some(each) => {
                each.integers().next().and_then(|n| usize::try_from(n).ok()).ok_or(ConfigError::Missing(name))
            }
            None => number(name),
        };
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
        // Newer files have it elsewhere.
        if !json["rope_parameters"][&key].is_null() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn llama() -> Json {
        json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
            "eos_token_id": [2, 3]
        })
    }

    #[test]
    fn what_would_be_computed_otherwise_is_refused_by_name() {
        for (key, value, words) in [
            (
                "layer_types",
                json!(["full_attention", "sliding_attention"]),
                "sliding_attention layers without a window",
            ),
            ("layer_types", json!(["full_attention"]), "the number of layer types = 1"),
            ("layer_types", json!(["full_attention", "chunked_attention"]), "chunked_attention layers"),
            ("sliding_window", json!("wide"), "sliding_window = \"wide\""),
            ("partial_rotary_factor", json!(0.5), "rotary embedding of only 8 of a head's 16"),
            (
                "rope_parameters",
                json!({ "partial_rotary_factor": 0.25, "rope_theta": 1e4 }),
                "rotary embedding of only 4 of a head's 16",
            ),
            ("rope_scaling", json!({ "factor": 4.0 }), "rope scaling without a type"),
            ("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 }), "rope scaling dynamic"),
            ("rope_parameters", json!({ "rope_type": "longrope", "rope_theta": 1e4 }), "the number of long_factor = 0"),
            ("rope_parameters", json!({ "rope_type": "su2", "rope_theta": 1e4 }), "rope scaling su2"),
            ("hidden_act", json!("gelu"), "hidden_act = gelu"),
            ("rope_traditional", json!(true), "rope_traditional"),
            ("quantization_config", json!({ "quant_method": "gptq", "bits": 4 }), "weights quantized by gptq"),
            ("quantization_config", json!({ "quant_method": "fp8" }), "weights quantized by fp8"),
        ] {
            let mut json = llama();
            json[key] = value;
            let message = ModelConfig::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(words), "{key}: {message}");
        }
        for (key, value) in [
            ("layer_types", json!(["full_attention", "full_attention"])),
            ("partial_rotary_factor", json!(1.0)),
            ("rope_scaling", json!(null)),
            ("hidden_act", json!("silu")),
            ("rope_traditional", json!(false)),
            ("quantization_config", json!({ "group_size": 64, "bits": 4 })),
            ("quantization_config", json!({ "quant_method": "bitsandbytes", "load_in_4bit": true })),
        ] {
            let mut json = llama();
            json[key] = value;
            assert!(ModelConfig::from_json(&json).is_ok(), "{key}");
        }
        let mut converted = llama();
        converted["quantization_config"] = json!({ "quant_method": "gptq" });
        converted["quantization"] = json!({ "group_size": 64, "bits": 4 });
        assert!(ModelConfig::from_json(&converted).is_ok(), "MLX's own key decides");
    }

    #[test]
    fn each_layer_has_the_window_that_the_configuration_gives_it() {
        let windows = |model: &str, changes: &[(&str, Json)]| {
            let mut json = llama();
            json["model_type"] = model.into();
            json["max_position_embeddings"] = 32_768.into();
            for (key, value) in changes {
                json[*key] = value.clone();
            }
            let config = ModelConfig::from_json(&json).unwrap();
            assert_eq!(config.max_context, 32_768);
            config.specs.iter().map(|layer| layer.attention().unwrap().window).collect::<Vec<_>>()
        };
        let kinds = |first: &str| ("layer_types", json!([first, "full_attention"]));
        // Mistral 7B v0.1, and where a window is written otherwise.
        assert_eq!(windows("mistral", &[("sliding_window", json!(4096))]), [Some(4096); 2]);
        assert_eq!(windows("mistral", &[("attention_window", json!([512, 256]))]), [Some(512), Some(256)]);
        let first = [("sliding_window", json!(4096)), kinds("sliding_attention")];
        assert_eq!(windows("llama", &first), [Some(4096), None]);
        let partly = [("use_sliding_window", json!(true)), ("max_window_layers", json!(1))];
        let partly = [partly.as_slice(), &[("sliding_window", json!(4096))]].concat();
        assert_eq!(windows("mistral", &partly), [None, Some(4096)]);
        assert_eq!(windows("qwen2", &partly), [None, Some(4096)]);
        // Mistral 7B v0.3, and where a window is written but no layer uses it.
        for none in [json!(null), json!(0), json!(-1)] {
            assert_eq!(windows("mistral", &[("sliding_window", none)]), [None; 2]);
        }
        let unused = ("sliding_window", json!(4096));
        assert_eq!(windows("qwen2", std::slice::from_ref(&unused)), [None; 2]);
        assert_eq!(windows("mistral", &[unused.clone(), ("use_sliding_window", json!(false))]), [None; 2]);
        assert_eq!(windows("mistral", &[unused.clone(), kinds("full_attention")]), [None; 2]);
        let beyond = [("use_sliding_window", json!(true)), ("max_window_layers", json!(2))];
        assert_eq!(windows("mistral", &[beyond.as_slice(), &[unused]].concat()), [None; 2]);
    }

    #[test]
    fn an_unknown_architecture_is_named_with_the_known_ones() {
        for name in ["mamba", "nemotron_h", "minimax_m2", "Llama"] {
            let mut json = llama();
            json["model_type"] = name.into();
            let message = ModelConfig::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(&format!("\"{name}\"")) && message.contains("llama, mistral, qwen2"), "{message}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for (key, value) in [
            ("num_hidden_layers", json!(0)),
            ("hidden_size", json!(1u64 << 60)),
            ("num_key_value_heads", json!(3)),
            ("rms_norm_eps", json!(1e300)),
            ("rope_theta", json!(0)),
            ("rope_scaling", json!({ "type": "linear", "factor": 0 })),
            ("rope_scaling", json!({ "type": "linear", "factor": -2.0 })),
            ("rope_scaling", json!({ "type": "llama3", "factor": 1e300 })),
            ("embedding_multiplier", json!(-1.0)),
            ("logits_scaling", json!(1e300)),
            ("attention_multiplier", json!(-1.0)),
            ("residual_multiplier", json!(1e300)),
        ] {
            let mut json = llama();
            if key.ends_with("multiplier") || key == "logits_scaling" {
                json["model_type"] = "granite".into();
            }
            json[key] = value;
            assert!(matches!(ModelConfig::from_json(&json), Err(ConfigError::Value { .. })), "{key}");
        }
    }

    /// A Llama with the keys of another family, and one more.
    fn read(family: &Json, key: &str, value: Json) -> Result<(), String> {
        let mut json = llama();
        for (key, value) in family.as_object().unwrap() {
            json[key] = value.clone();
        }
        json[key] = value;
        ModelConfig::from_json(&json).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn experts_that_cannot_be_are_refused() {
        let glm = json!({ "model_type": "glm4_moe", "n_routed_experts": 8, "moe_intermediate_size": 32,
            "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "partial_rotary_factor": 0.5 });
        let qwen = json!({ "model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 32, "num_experts_per_tok": 2 });
        for family in [&glm, &qwen] {
            assert_eq!(read(family, "num_experts_per_tok", json!(2)), Ok(()));
        }
        for (family, key, value, words) in [
            (&qwen, "num_experts_per_tok", json!(9), "the number of experts per token = 9"),
            (&qwen, "num_experts_per_tok", json!(0), "the number of experts per token = 0"),
            (&qwen, "num_experts", json!(0), "the number of experts = 0"),
            (&qwen, "num_experts", json!(1u64 << 40), "the number of experts = 1099511627776"),
            (&qwen, "num_experts", json!(null), "no num_experts"),
            (&qwen, "moe_intermediate_size", json!(0), "the intermediate size of an expert = 0"),
            (&glm, "n_group", json!(3), "the number of groups of experts = 3"),
            (&glm, "topk_group", json!(3), "the number of groups of experts per token = 3"),
            // One group of four cannot give five.
            (&glm, "num_experts_per_tok", json!(5), "the number of groups of experts per token = 1"),
            (&glm, "n_shared_experts", json!(1u64 << 40), "the intermediate size of the shared expert"),
            (&glm, "partial_rotary_factor", json!(1.5), "the number of rotated dimensions = 24"),
        ] {
            let message = read(family, key, value).unwrap_err();
            assert!(message.contains(words), "{key}: {message}");
        }
    }

    #[test]
    fn states_and_latent_rows_that_cannot_be_are_refused() {
        let qwen = json!({ "model_type": "qwen3_5", "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 16, "linear_value_head_dim": 16, "partial_rotary_factor": 0.5 });
        let deepseek = json!({ "model_type": "deepseek_v3", "n_routed_experts": 8, "num_experts_per_tok": 2,
            "moe_intermediate_size": 32, "kv_lora_rank": 48, "q_lora_rank": null, "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 32, "v_head_dim": 32 });
        for family in [&qwen, &deepseek] {
            assert_eq!(read(family, "bos_token_id", json!(1)), Ok(()));
        }
        for (family, key, value, words) in [
            (&qwen, "linear_num_value_heads", json!(3), "the number of value heads of linear attention = 3"),
            (&qwen, "linear_num_key_heads", json!(0), "the number of key heads of linear attention = 0"),
            (&qwen, "linear_key_head_dim", json!(1u64 << 40), "the size of a key of linear attention"),
            (&qwen, "linear_value_head_dim", json!(null), "no linear_value_head_dim"),
            (&qwen, "linear_conv_kernel_dim", json!(0), "the size of the convolution = 0"),
            (&deepseek, "kv_lora_rank", json!(0), "kv_lora_rank = 0"),
            (&deepseek, "v_head_dim", json!(1u64 << 40), "v_head_dim = 1099511627776"),
            (&deepseek, "qk_rope_head_dim", json!(15), "qk_rope_head_dim = 15"),
            (&deepseek, "qk_nope_head_dim", json!(null), "no qk_nope_head_dim"),
            (&deepseek, "scoring_func", json!("softmax"), "scoring_func = softmax"),
        ] {
            let message = read(family, key, value).unwrap_err();
            assert!(message.contains(words), "{key}: {message}");
        }
    }

    #[test]
    fn yarn_keeps_short_periods_and_stretches_long_ones() {
        let rope = |truncate: bool| {
            let mut json = llama();
            json["head_dim"] = json!(64);
            json["rope_theta"] = json!(150_000);
            json["rope_scaling"] = json!({
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                "original_max_position_embeddings": 4096, "truncate": truncate
            });
            ModelConfig::from_json(&json).unwrap().rope
        };
        let (rope, exact) = (rope(true), rope(false));
        let (plain, stretched) = (rope.plain_periods(64), rope.periods(64).unwrap());
        // Below the 8th pair and above the 18th.
        assert!((0..=8).all(|at| (stretched[at] / plain[at] - 1.0).abs() < 1e-5));
        assert!((18..32).all(|at| (stretched[at] / plain[at] - 32.0).abs() < 1e-3));
        assert!((rope.magnitude() - (0.1 * 32f32.ln() + 1.0)).abs() < 1e-6);
        // gpt-oss: the ramp begins at 8.09 and ends at 17.4.
        let exact = exact.periods(64).unwrap();
        assert!(
            (exact[17] / plain[17]) > (stretched[17] / plain[17]) && (exact[9] / plain[9]) < (stretched[9] / plain[9])
        );
    }

    #[test]
    fn a_model_that_also_reads_images_is_its_texts_part() {
        let text =
            json!({ "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "model_type": "gemma3_text" });
        let json =
            json!({ "model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106], "vision_config": {} });
        let config = ModelConfig::from_json(&json).unwrap();
        assert_eq!((config.architecture.as_str(), config.end_tokens.as_slice()), ("gemma3_text", &[1, 106][..]));
        assert!(config.unused.senses);
        // What the file leaves out is what it means in Transformers.
        assert_eq!((config.heads, config.kv_heads, config.head_dim, config.vocabulary), (8, 4, 256, 262_208));
        let mut unknown = json;
        unknown["model_type"] = "qwen4_vl".into();
        unknown["text_config"]["model_type"] = "qwen4_text".into();
        let message = ModelConfig::from_json(&unknown).unwrap_err().to_string();
        assert!(message.contains("\"qwen4_vl\""), "{message}");
    }

    #[test]
    fn llama3_stretches_long_periods_only() {
        let mut json = llama();
        json["rope_scaling"] = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        });
        json["rope_theta"] = json!(500_000.0);
        json["head_dim"] = json!(128);
        let rope = ModelConfig::from_json(&json).unwrap().rope;
        let (plain, stretched) = (rope.plain_periods(128), rope.periods(128).unwrap());
        assert_eq!(stretched[0], plain[0]);
        assert_eq!(stretched[63], plain[63] * 8.0);
        assert!(stretched.iter().zip(&plain).all(|(s, p)| s >= p && *s <= p * 8.0));
    }
}
