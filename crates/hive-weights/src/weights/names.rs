//! The tensors that a model computes with.
//!
//! A tensor that is not computed with changes the model's output. So a file with an unknown tensor is refused: norms of
//! queries and keys, a second norm, scales of a foreign quantization.

use std::borrow::Cow;

use super::safetensors::fp8;
use crate::config::ModelConfig;

/// The table that, with a projection of the embedding, gives tokens an input of their own to every layer. Like the names
/// after it, without `.weight`.
pub const LAYER_TABLE: &str = "model.embed_tokens_per_layer";
/// The projection of the embedding to those inputs of all layers.
pub const LAYER_PROJECTION: &str = "model.per_layer_model_projection";
/// The norm of what was projected, for each layer's input by itself.
pub const LAYER_NORM: &str = "model.per_layer_projection_norm";

/// Parts of a quantized matrix beside its weights: MLX's, and those of one in FP8.
const QUANTIZED: [&str; 3] = ["scales", "biases", fp8::SCALES];

/// Whether a tensor is one that this model computes with, or one that makes no difference.
pub(crate) fn is_known(name: &str, config: &ModelConfig) -> bool {
    is_computed(name, config) || is_ignorable(name, config)
}

/// A tensor's name as in a model of text alone, of which the text's part of another model is one.
pub(crate) fn of_text(name: &str) -> Cow<'_, str> {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return format!("model.{rest}").into();
    }
    name.strip_prefix("language_model.").unwrap_or(name).into()
}

/// The layer that a tensor belongs to, if it belongs to one.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split_once('.')?.0.parse().ok()
}

/// Whether this model computes with the tensor.
pub(crate) fn is_computed(name: &str, config: &ModelConfig) -> bool {
    let of_layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let (part, layer) = match of_layer {
        Some((number, part)) => {
            let layer = number.parse::<usize>().ok().filter(|layer| layer.to_string() == number);
            match layer.and_then(|layer| config.specs.get(layer)) {
                Some(layer) => (part, Some(layer)),
                None => return false,
            }
        }
        None => (name, None),
    };
    let (base, kind) = part.rsplit_once('.').unwrap_or((part, ""));
    let matrix = kind == "weight" || QUANTIZED.contains(&kind);
    if let Some(layer) = layer {
        return layer.has_matrix(base) && (matrix || kind == "bias") || layer.has_vector(part);
    }
    let has_inputs = config.ends.layer_inputs.is_some();
    let is_matrix = ["model.embed_tokens", "lm_head"].contains(&base)
        || has_inputs && [LAYER_TABLE, LAYER_PROJECTION].contains(&base);
    let is_norm = base == "model.norm" || has_inputs && base == LAYER_NORM;
    is_matrix && matrix || is_norm && kind == "weight"
}

/// Modules that read images and sounds.
const SENSES: [&str; 16] = [
    "vision_tower.",
    "vision_model.",
    "visual.",
    "audio_tower.",
    "multi_modal_projector.",
    "mm_projector.",
    "embed_vision.",
    "embed_audio.",
    "vision_embedder.",
    "model.vision_tower.",
    "model.visual.",
    "model.audio_tower.",
    "model.multi_modal_projector.",
    "model.embed_vision.",
    "model.embed_audio.",
    "model.vision_embedder.",
];

/// Tensors that follow from the configuration, that predict further tokens, or that read images and sounds.
fn is_ignorable(name: &str, config: &ModelConfig) -> bool {
    let is_after_the_last = || {
        let number = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let layer = number.and_then(|(number, _)| number.parse::<usize>().ok());
        layer.is_some_and(|layer| (config.layers..config.layers + config.unused.layers).contains(&layer))
    };
    let is_of_no_use = || {
        let of_layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let of_layer = of_layer.and_then(|(number, part)| Some((number.parse::<usize>().ok()?, part)));
        of_layer.is_some_and(|(layer, part)| config.specs.get(layer).is_some_and(|spec| spec.ignores(part)))
    };
    name.ends_with("rotary_emb.inv_freq")
        || is_of_no_use()
        || name.starts_with("mtp.")
        || name.starts_with("model.mtp.")
        || config.unused.senses && SENSES.iter().any(|module| name.starts_with(module))
        || is_after_the_last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(layers: usize) -> ModelConfig {
        let json = serde_json::json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": layers, "intermediate_size": 128,
            "num_attention_heads": 4, "vocab_size": 100, "rms_norm_eps": 1e-5
        });
        ModelConfig::from_json(&json).unwrap()
    }

    #[test]
    fn what_is_computed_with_is_known_and_what_would_be_missing_is_not() {
        for known in [
            "model.embed_tokens.weight",
            "model.embed_tokens.scales",
            "lm_head.weight",
            "lm_head.biases",
            "model.norm.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.31.self_attn.q_proj.bias",
            "model.layers.31.mlp.down_proj.scales",
            "model.layers.3.input_layernorm.weight",
            "model.layers.3.self_attn.rotary_emb.inv_freq",
            "mtp.layers.0.weight",
        ] {
            assert!(is_known(known, &config(32)), "{known}");
        }
        for unknown in [
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.0.post_feedforward_layernorm.weight",
            "model.layers.0.post_attention_norm.weight",
            "model.layers.0.mlp.down_proj.weight_scale",
            "model.layers.0.mlp.down_proj.qweight",
            "model.layers.0.mlp.experts.0.up_proj.weight",
            "model.layers.0.mlp.gate.weight",
            "model.layers.0.input_layernorm.bias",
            "model.layers.x.input_layernorm.weight",
            "model.layers..input_layernorm.weight",
            "model.layers.32.input_layernorm.weight",
            "rope_freqs.weight",
            "rope_factors_long.weight",
            "lm_head.bias",
            "vision_tower.weight",
            "",
        ] {
            assert!(!is_known(unknown, &config(32)), "{unknown}");
        }
    }
}
