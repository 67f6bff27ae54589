//! `DeepSeek` V3 and R1, Kimi K2, and GLM 4.7 Flash: latent attention, and experts beside one that every token passes.

use super::glm::experts;
use super::keys::Keys;
use crate::config::{ConfigError, LatentSpec, LayerSpec, Mixer, ModelConfig, NetworkSpec};

/// `deepseek_v3`, `kimi_k2`: the norms within attention have an epsilon of their own.
pub(super) fn deepseek_v3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    layers(config, keys, 1e-6)
}

/// `glm4_moe_lite`.
pub(super) fn glm4_moe_lite(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    let eps = config.rms_eps;
    layers(config, keys, eps)
}

fn layers(config: &mut ModelConfig, keys: &Keys<'_>, eps: f32) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    for (key, wanted) in [("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")] {
        if let Some(found) = keys.text(key).filter(|found| *found != wanted) {
            return Err(ConfigError::Unsupported(format!("{key} = {found}")));
        }
    }
    config.unused.layers = 1;
    let (rotated, unrotated) = (keys.required(("qk_rope_head_dim", ""))?, keys.required(("qk_nope_head_dim", ""))?);
    // YaRN also makes the scores grow.
    let grown = match (keys.rope_number("mscale_all_dim"), keys.rope_number("factor")) {
        (Some(by), Some(factor)) if by != 0.0 && factor > 1.0 => 0.1 * by * factor.ln() + 1.0,
        _ => 1.0,
    };
    let latent = LatentSpec {
        heads: config.heads,
        latent: keys.required(("kv_lora_rank", ""))?,
        rotated,
        unrotated,
        value_dim: keys.required(("v_head_dim", ""))?,
        query_rank: keys.number(("q_lora_rank", "")).filter(|rank| *rank > 0),
        scale: (rotated as f32 + unrotated as f32).powf(-0.5) * grown * grown,
        rope: config.rope.clone(),
        eps,
    };
    let experts = experts(keys)?;
    let dense = keys.number(("first_k_dense_replace", "")).unwrap_or(0);
    let step = keys.number(("moe_layer_freq", "")).unwrap_or(1).max(1);
    let layer = |index: usize| {
        let mut layer = config.plain_layer(Mixer::Latent(latent.clone()));
        if index >= dense && index.is_multiple_of(step) {
            layer.network = NetworkSpec::Experts(experts.clone());
        }
        layer
    };
    Ok((0..config.layers).map(layer).collect())
}
