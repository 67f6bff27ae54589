//! `DeepSeek` V3 and R1, Kimi K2, and GLM 4.7 Flash: latent attention, and experts beside one that every token passes.

use super::glm::experts;
use super::keys::Keys;
use crate::config::{ConfigError, LatentSpec, LayerSpec, Mixer, ModelConfig, NetworkSpec};

/// `deepseek_v3`, `kimi_k2`: the norms within attention have an epsilon of their own.
pub(super) fn deepseek_v3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    // In GGUF, the architecture is also that of GLM 4.7 Flash, whose epsilon is the others'.
    let eps = if matches!(keys, Keys::Gguf(..)) { config.rms_eps } else { 1e-6 };
    layers(config, keys, eps)
}

/// `glm4_moe_lite`.
pub(super) fn glm4_moe_lite(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    let eps = config.rms_eps;
    layers(config, keys, eps)
}

fn layers(config: &mut ModelConfig, keys: &Keys<'_>, eps: f32) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    for (key, wanted) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
        if let Some(found) = keys.text(key)?.filter(|found| *found != wanted) {
            return Err(ConfigError::Unsupported(format!("{key} = {found}")));
        }
    }
    let dense = keys.number(("first_k_dense_replace", "leading_dense_block_count"))?.unwrap_or(0);
    let correction = format!("model.layers.{dense}.mlp.gate.e_score_correction_bias");
    if let Some(corrected) = keys.has_tensor(&correction) {
        // Older files do not say it.
        match keys.number(("", "expert_gating_func"))? {
            Some(SIGMOID) => (),
            None if corrected => (),
            other => {
                let other = other.map_or("by softmax".to_owned(), |number| format!("by function {number}"));
                return Err(ConfigError::Unsupported(format!("experts picked {other}")));
            }
        }
    }
    // Of Mistral's models of this architecture.
    if keys.real(("", "attention.temperature_scale"))?.is_some_and(|growth| growth != 0.0) {
        return Err(ConfigError::Unsupported("queries that grow with their position".to_owned()));
    }
    config.unused.layers = config.unused.layers.max(1);
    let rotated = keys.required(("qk_rope_head_dim", "rope.dimension_count"))?;
    let of_keys = match keys.number(("", "attention.key_length_mla"))? {
        None => keys.number(("", KEYS))?,
        width => width,
    };
    let unrotated = match of_keys {
        Some(of_keys) => of_keys.saturating_sub(rotated),
        None => keys.required(("qk_nope_head_dim", KEYS))?,
    };
    let value_dim = match keys.number(("v_head_dim", "attention.value_length_mla"))? {
        Some(width) => width,
        None => keys.required(("v_head_dim", "attention.value_length"))?,
    };
    // YaRN also makes the scores grow.
    let grown = match (keys.rope_number("mscale_all_dim")?, keys.rope_number("factor")?) {
        (Some(by), Some(factor)) if by != 0.0 && factor > 1.0 => 0.1 * by * factor.ln() + 1.0,
        _ => 1.0,
    };
    let latent = LatentSpec {
        heads: config.heads,
        latent: keys.required(("kv_lora_rank", "attention.kv_lora_rank"))?,
        rotated,
        unrotated,
        value_dim,
        query_rank: keys.number(("q_lora_rank", "attention.q_lora_rank"))?.filter(|rank| *rank > 0),
        scale: (rotated as f32 + unrotated as f32).powf(-0.5) * grown * grown,
        rope: config.rope.clone(),
        eps,
    };
    let experts = experts(keys)?;
    let step = keys.number(("moe_layer_freq", ""))?.unwrap_or(1).max(1);
    let layer = |index: usize| {
        let mut layer = config.plain_layer(Mixer::Latent(latent.clone()));
        if index >= dense && index.is_multiple_of(step) {
            layer.network = NetworkSpec::Experts(experts.clone());
        }
        layer
    };
    Ok((0..config.layers).map(layer).collect())
}

/// The width of a key in GGUF metadata, of files that have keys and values in one matrix.
const KEYS: &str = "attention.key_length";
/// The number in GGUF metadata of the function that makes shares of a router's scores.
const SIGMOID: usize = 2;
