//! A model's configuration, from `config.json` or from GGUF metadata.

use serde_json::Value as Json;

use crate::weights::Gguf;
use crate::weights::gguf::Value;

/// Supported architectures, by their names in `config.json` or in GGUF.
const KNOWN_ARCHITECTURES: &[&str] = &["llama", "mistral"];

/// Limits that no real model comes near; larger numbers are corrupt and would size allocations.
const MAX_LAYERS: usize = 4096;
const MAX_WIDTH: usize = 1 << 20;

/// The configuration of a Llama-family model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The name in the file.
    pub architecture: String,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Epsilon under the root of the RMS norm.
    pub rms_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The longest context in tokens: the one that the model was trained for, or its sliding window if that is shorter.
    pub max_context: usize,
    /// The sliding window, if layers have one that is shorter than the trained context: how many tokens a token sees,
    /// itself included. Attention is computed without it, which makes no difference up to this length.
    pub sliding_window: Option<usize>,
    /// Whether the output projection is the embedding matrix.
    pub tied_embeddings: bool,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the periods.
    pub theta: f32,
    /// Scaling of positions or periods.
    pub scaling: RopeScaling,
}

/// Scaling of rotary positions beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: long periods are stretched, short ones kept, with a ramp in between.
    Llama3 {
        /// The factor for long periods.
        factor: f32,
        /// Wavelengths above `original_context / low` are long.
        low: f32,
        /// Wavelengths below `original_context / high` are short.
        high: f32,
        /// The context before scaling.
        original_context: f32,
    },
    /// Each period is multiplied by a factor of its own (GGUF stores Llama 3's scaling like this).
    Factors(Vec<f32>),
}

impl RopeScaling {
    /// Its numbers, by which something is divided or multiplied.
    fn numbers(&self) -> Vec<f32> {
        match self {
            Self::None => Vec::new(),
            Self::Linear { factor } => vec![*factor],
            Self::Llama3 { factor, low, high, original_context } => vec![*factor, *low, *high, *original_context],
            Self::Factors(factors) => factors.clone(),
        }
    }
}

impl Rope {
    /// The period of each pair of dimensions; `None` for plain powers of `theta`.
    pub fn periods(&self, head_dim: usize) -> Option<Vec<f32>> {
        let plain = self.plain_periods(head_dim);
        match &self.scaling {
            RopeScaling::None | RopeScaling::Linear { .. } => None,
            RopeScaling::Factors(factors) => Some(plain.iter().zip(factors).map(|(p, f)| p * f).collect()),
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let stretch = |&period: &f32| {
                    let wavelength = 2.0 * std::f32::consts::PI * period;
                    if wavelength > original_context / low {
                        period * factor
                    } else if wavelength > original_context / high {
                        let smooth = (original_context / wavelength - low) / (high - low);
                        period / ((1.0 - smooth) / factor + smooth)
                    } else {
                        period
                    }
                };
                Some(plain.iter().map(stretch).collect())
            }
        }
    }

    /// `theta^(2i / head_dim)`.
    pub(crate) fn plain_periods(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|i| self.theta.powf(2.0 * i as f32 / head_dim as f32)).collect()
    }

    /// The factor by which positions are multiplied.
    pub(crate) fn position_scale(&self) -> f32 {
        match self.scaling {
            RopeScaling::Linear { factor } => 1.0 / factor,
            _ => 1.0,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// The architecture is not implemented.
    #[error("the architecture \"{0}\" is not supported; supported are: {list}", list = KNOWN_ARCHITECTURES.join(", "))]
    Architecture(String),
    /// A key is missing.
    #[error("the configuration has no {0}")]
    Missing(&'static str),
    /// A value is impossible.
    #[error("the configuration says {key} = {value}, which is not possible")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A feature of the family is not implemented.
    #[error("the configuration asks for {0}, which is not supported")]
    Unsupported(String),
}

impl ModelConfig {
    /// Reads a Hugging Face `config.json`.
    pub fn from_json(json: &Json) -> Result<Self, ConfigError> {
        let architecture = json["model_type"].as_str().ok_or(ConfigError::Missing("model_type"))?;
        check_architecture(architecture)?;
        let number = |key: &'static str| json[key].as_u64().map(|n| n as usize).ok_or(ConfigError::Missing(key));
        let heads = number("num_attention_heads")?;
        let hidden = number("hidden_size")?;
        let layers = number("num_hidden_layers")?;
        let config = Self {
            architecture: architecture.to_owned(),
            layers,
            hidden,
            intermediate: number("intermediate_size")?,
            heads,
            kv_heads: number("num_key_value_heads").unwrap_or(heads),
            head_dim: number("head_dim").ok().or_else(|| hidden.checked_div(heads)).unwrap_or(0),
            vocabulary: number("vocab_size")?,
            rms_eps: json["rms_norm_eps"].as_f64().ok_or(ConfigError::Missing("rms_norm_eps"))? as f32,
            rope: rope_from_json(json)?,
            max_context: number("max_position_embeddings").unwrap_or(2048),
            sliding_window: window_from_json(json, layers)?,
            // Transformers writes the key only if it differs from the family's default; mlx-lm assumes true.
            tied_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(true),
            end_tokens: token_ids(&json["eos_token_id"]),
        };
        let rotated = json["partial_rotary_factor"]
            .as_f64()
            .or_else(|| json["rope_parameters"]["partial_rotary_factor"].as_f64());
        if let Some(rotated) = rotated.filter(|rotated| *rotated != 1.0) {
            return Err(ConfigError::Unsupported(format!("rotary embedding of only {rotated} of each head")));
        }
        // MLX has a key of its own; the original model's key may remain beside it.
        let foreign = json["quantization_config"]["quant_method"].as_str().filter(|_| json["quantization"].is_null());
        if let Some(method) = foreign.filter(|method| *method != "bitsandbytes") {
            return Err(ConfigError::Unsupported(format!("weights quantized by {method}")));
        }
        for (key, wanted) in [("hidden_act", "silu"), ("rope_traditional", "")] {
            match &json[key] {
                Json::String(name) if name != wanted => {
                    return Err(ConfigError::Unsupported(format!("{key} = {name}")));
                }
                Json::Bool(true) => return Err(ConfigError::Unsupported(key.to_owned())),
                _ => {}
            }
        }
        config.within_window().checked()
    }

    /// Reads a GGUF's metadata.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ConfigError> {
        let architecture = gguf.string("general.architecture").ok_or(ConfigError::Missing("general.architecture"))?;
        check_architecture(architecture)?;
        let key = |name: &str| format!("{architecture}.{name}");
        let number = |name: &'static str| gguf.number(&key(name)).map(|n| n as usize).ok_or(ConfigError::Missing(name));
        let heads = number("attention.head_count")?;
        let hidden = number("embedding_length")?;
        let head_dim = number("attention.key_length").ok().or_else(|| hidden.checked_div(heads)).unwrap_or(0);
        let vocabulary = match gguf.value("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => tokens.len(),
            _ => number("vocab_size")?,
        };
        // Older files have a factor without a type, or a key of their own for it.
        let factor = gguf.real(&key("rope.scaling.factor")).or_else(|| gguf.real(&key("rope.scale_linear")));
        let linear = |factor: f64| RopeScaling::Linear { factor: factor as f32 };
        let scaling = match gguf.string(&key("rope.scaling.type")) {
            Some("linear") => linear(factor.ok_or(ConfigError::Missing("rope.scaling.factor"))?),
            None => factor.filter(|factor| *factor != 1.0).map_or(RopeScaling::None, linear),
            Some("none") => RopeScaling::None,
            Some(other) => return Err(ConfigError::Unsupported(format!("rope scaling {other}"))),
        };
        let config = Self {
            architecture: architecture.to_owned(),
            layers: number("block_count")?,
            hidden,
            intermediate: number("feed_forward_length")?,
            heads,
            kv_heads: number("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            vocabulary,
            rms_eps: gguf
                .real(&key("attention.layer_norm_rms_epsilon"))
                .ok_or(ConfigError::Missing("attention.layer_norm_rms_epsilon"))? as f32,
            rope: Rope { theta: gguf.real(&key("rope.freq_base")).unwrap_or(10_000.0) as f32, scaling },
            max_context: number("context_length").unwrap_or(2048),
            sliding_window: number("attention.sliding_window").ok().filter(|window| *window > 0),
            // A GGUF without an output matrix uses the embedding; the caller, who knows the tensors, decides.
            tied_embeddings: true,
            // From the vocabulary; the caller adds them.
            end_tokens: Vec::new(),
        };
        if gguf.real(&key("rope.scaling.attn_factor")).is_some_and(|factor| factor != 1.0) {
            return Err(ConfigError::Unsupported("rope scaling with an attention factor".to_owned()));
        }
        if gguf.value(&key("attention.causal")) == Some(&Value::Bool(false)) {
            return Err(ConfigError::Unsupported("attention to what comes later".to_owned()));
        }
        match gguf.number(&key("rope.dimension_count")) {
            Some(rotated) if rotated != config.head_dim as u64 => {
                let what = format!("rotary embedding of only {rotated} of a head's {} dimensions", config.head_dim);
                Err(ConfigError::Unsupported(what))
            }
            _ => config.within_window().checked(),
        }
    }

    /// Size of one token in the KV cache of one layer, in bytes.
    pub fn kv_bytes_per_token(&self, activation_bytes: usize) -> u64 {
        (2 * self.kv_heads * self.head_dim * activation_bytes) as u64
    }

    /// Ends the context at the sliding window.
    fn within_window(mut self) -> Self {
        self.sliding_window = self.sliding_window.filter(|window| *window < self.max_context);
        self.max_context = self.sliding_window.unwrap_or(self.max_context);
        self
    }

    pub(crate) fn checked(self) -> Result<Self, ConfigError> {
        let value = |key, value: &dyn std::fmt::Display| Err(ConfigError::Value { key, value: value.to_string() });
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return value("the number of layers", &self.layers);
        }
        let widths = [
            ("the hidden size", self.hidden),
            ("the intermediate size", self.intermediate),
            ("the number of heads", self.heads),
            ("the number of key-value heads", self.kv_heads),
            ("the head size", self.head_dim),
            ("the context", self.max_context),
        ];
        for (key, width) in widths {
            if width == 0 || width > MAX_WIDTH * 64 || (key != "the context" && width > MAX_WIDTH) {
                return value(key, &width);
            }
        }
        if self.vocabulary == 0 || self.vocabulary > 1 << 24 {
            return value("the vocabulary", &self.vocabulary);
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return value("the number of key-value heads", &self.kv_heads);
        }
        if !self.head_dim.is_multiple_of(2) {
            return value("the head size", &self.head_dim);
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            return value("the norm's epsilon", &self.rms_eps);
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 0.0) {
            return value("the rotary base", &self.rope.theta);
        }
        if let Some(number) = self.rope.scaling.numbers().into_iter().find(|n| !(n.is_finite() && *n > 0.0)) {
            return value("a number of the rotary scaling", &number);
        }
        Ok(self)
    }
}

fn check_architecture(name: &str) -> Result<(), ConfigError> {
    if KNOWN_ARCHITECTURES.contains(&name) { Ok(()) } else { Err(ConfigError::Architecture(name.to_owned())) }
}

fn rope_from_json(json: &Json) -> Result<Rope, ConfigError> {
    // Newer files have theta and scaling together in `rope_parameters`.
    let parameters = if json["rope_parameters"].is_object() { &json["rope_parameters"] } else { &json["rope_scaling"] };
    let real = |value: &Json, key: &'static str| value[key].as_f64().map(|n| n as f32).ok_or(ConfigError::Missing(key));
    let theta = real(json, "rope_theta").or_else(|_| real(parameters, "rope_theta")).unwrap_or(10_000.0);
    let kind = parameters["rope_type"].as_str().or_else(|| parameters["type"].as_str());
    let has_factor = parameters["factor"].as_f64().is_some_and(|factor| factor != 1.0);
    let scaling = match kind {
        None if has_factor => {
            return Err(ConfigError::Unsupported("rope scaling without a type".to_owned()));
        }
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: real(parameters, "factor")? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: real(parameters, "factor")?,
            low: real(parameters, "low_freq_factor").unwrap_or(1.0),
            high: real(parameters, "high_freq_factor").unwrap_or(4.0),
            original_context: real(parameters, "original_max_position_embeddings").unwrap_or(8192.0),
        },
        Some(other) => return Err(ConfigError::Unsupported(format!("rope scaling {other}"))),
    };
    Ok(Rope { theta, scaling })
}

/// The sliding window, if a layer has one.
fn window_from_json(json: &Json, layers: usize) -> Result<Option<usize>, ConfigError> {
    let kinds: Vec<&str> = json["layer_types"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    if let Some(kind) = kinds.iter().find(|kind| !matches!(**kind, "full_attention" | "sliding_attention")) {
        return Err(ConfigError::Unsupported(format!("{kind} layers")));
    }
    let is_switched_off = match json["use_sliding_window"].as_bool() {
        Some(uses) => !uses || json["max_window_layers"].as_u64().is_some_and(|full| full >= layers as u64),
        None => false,
    };
    let slides = if kinds.is_empty() { !is_switched_off } else { kinds.contains(&"sliding_attention") };
    if !slides {
        return Ok(None);
    }
    let mut narrowest = None;
    for key in ["sliding_window", "attention_window"] {
        // One for all layers, or one for each.
        let windows = json[key].as_array().map_or_else(|| std::slice::from_ref(&json[key]), Vec::as_slice);
        for window in windows.iter().filter(|window| !window.is_null()) {
            let unreadable = || ConfigError::Unsupported(format!("{key} = {window}"));
            // 0 and less is none.
            let window = window.as_i64().ok_or_else(unreadable)?;
            let window = usize::try_from(window).ok().filter(|window| *window > 0);
            narrowest = [narrowest, window].into_iter().flatten().min();
        }
    }
    if narrowest.is_none() && !kinds.is_empty() {
        return Err(ConfigError::Unsupported("sliding_attention layers without a window".to_owned()));
    }
    Ok(narrowest)
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
            ("layer_types", json!(["full_attention", "sliding_attention"]), "sliding_attention layers"),
            ("layer_types", json!(["full_attention", "chunked_attention"]), "chunked_attention layers"),
            ("sliding_window", json!("wide"), "sliding_window = \"wide\""),
            ("partial_rotary_factor", json!(0.5), "rotary embedding of only 0.5"),
            (
                "rope_parameters",
                json!({ "partial_rotary_factor": 0.25, "rope_theta": 1e4 }),
                "rotary embedding of only 0.25",
            ),
            ("rope_scaling", json!({ "factor": 4.0 }), "rope scaling without a type"),
            ("rope_scaling", json!({ "rope_type": "yarn", "factor": 4.0 }), "rope scaling yarn"),
            ("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 }), "rope scaling dynamic"),
            ("rope_parameters", json!({ "rope_type": "longrope", "rope_theta": 1e4 }), "rope scaling longrope"),
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
    fn a_sliding_window_ends_the_context() {
        let context = |changes: &[(&str, Json)]| {
            let mut json = llama();
            json["model_type"] = "mistral".into();
            json["max_position_embeddings"] = 32_768.into();
            for (key, value) in changes {
                json[*key] = value.clone();
            }
            let config = ModelConfig::from_json(&json).unwrap();
            assert_eq!(config.sliding_window.unwrap_or(32_768), config.max_context);
            config.max_context
        };
        let kinds = |first: &str| ("layer_types", json!([first, "full_attention"]));
        // Mistral 7B v0.1, and where a window is written otherwise.
        assert_eq!(context(&[("sliding_window", json!(4096))]), 4096);
        assert_eq!(context(&[("attention_window", json!([512, 256]))]), 256);
        assert_eq!(context(&[("sliding_window", json!(4096)), kinds("sliding_attention")]), 4096);
        let partly = [("use_sliding_window", json!(true)), ("max_window_layers", json!(1))];
        assert_eq!(context(&[partly.as_slice(), &[("sliding_window", json!(4096))]].concat()), 4096);
        // Wider than the context.
        assert_eq!(context(&[("sliding_window", json!(131_072))]), 32_768);
        // Mistral 7B v0.3, and where a window is written but no layer uses it.
        for none in [json!(null), json!(0), json!(-1)] {
            assert_eq!(context(&[("sliding_window", none)]), 32_768);
        }
        let unused = ("sliding_window", json!(4096));
        assert_eq!(context(&[unused.clone(), ("use_sliding_window", json!(false))]), 32_768);
        assert_eq!(context(&[unused.clone(), kinds("full_attention")]), 32_768);
        let beyond = [("use_sliding_window", json!(true)), ("max_window_layers", json!(2))];
        assert_eq!(context(&[beyond.as_slice(), &[unused]].concat()), 32_768);
    }

    #[test]
    fn an_unknown_architecture_is_named_with_the_known_ones() {
        for name in ["mamba", "mistral3", "qwen2", "Llama"] {
            let mut json = llama();
            json["model_type"] = name.into();
            let message = ModelConfig::from_json(&json).unwrap_err().to_string();
            assert!(message.contains(&format!("\"{name}\"")) && message.contains("llama, mistral"), "{message}");
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
        ] {
            let mut json = llama();
            json[key] = value;
            assert!(matches!(ModelConfig::from_json(&json), Err(ConfigError::Value { .. })), "{key}");
        }
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
