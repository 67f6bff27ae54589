//! GLM 4.5, 4.6 and 4.7: experts beside one that every token passes, picked by sigmoid; half of each head is rotated.

use super::keys::Keys;
use crate::config::{
    Activation, AttentionSpec, ConfigError, ExpertsSpec, HeadNorms, LayerSpec, ModelConfig, NetworkSpec, Router,
    SharedSpec,
};

/// `glm4_moe`.
pub(super) fn glm4_moe(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    config.unused.layers = config.unused.layers.max(1);
    let experts = experts(keys)?;
    let dense = keys.number(("first_k_dense_replace", "leading_dense_block_count"))?.unwrap_or(1);
    let has_norms = match keys.has_tensor("model.layers.0.self_attn.q_norm.weight") {
        None => keys.flag(("use_qk_norm", ""))?.unwrap_or(false),
        Some(has_norms) => has_norms,
    };
    let attention = AttentionSpec {
        rotated: keys.rotated(config.head_dim)?,
        head_norms: if has_norms { HeadNorms::Each } else { HeadNorms::None },
        ..config.plain_attention()
    };
    let layer = |index: usize| {
        let mut layer = config.attending(attention.clone());
        if index >= dense {
            layer.network = NetworkSpec::Experts(experts.clone());
        }
        layer
    };
    Ok((0..config.layers).map(layer).collect())
}

/// Experts picked by sigmoid, beside those that every token passes.
pub(super) fn experts(keys: &Keys<'_>) -> Result<ExpertsSpec, ConfigError> {
    let intermediate = keys.required(("moe_intermediate_size", "expert_feed_forward_length"))?;
    // In GGUF, 0 stands for none.
    let scale = keys.real(("routed_scaling_factor", "expert_weights_scale"))?;
    let scale = scale.filter(|scale| *scale != 0.0 || matches!(keys, Keys::Json(_)));
    let shared = keys.number(("n_shared_experts", "expert_shared_count"))?.filter(|count| *count > 0);
    Ok(ExpertsSpec {
        count: keys.required(("n_routed_experts", "expert_count"))?,
        per_token: keys.required(("num_experts_per_tok", "expert_used_count"))?,
        intermediate,
        activation: Activation::Silu,
        router: Router::Sigmoid {
            normalized: keys.flag(("norm_topk_prob", "expert_weights_norm"))?.unwrap_or(true),
            scale: scale.unwrap_or(1.0),
            groups: keys.number(("n_group", "expert_group_count"))?.unwrap_or(1),
            picked_groups: keys.number(("topk_group", "expert_group_used_count"))?.unwrap_or(1),
        },
        module: "mlp",
        router_name: "gate",
        stacked: "switch_mlp",
        shared: match shared {
            Some(count) => {
                let intermediate = intermediate.checked_mul(count).ok_or(ConfigError::Missing("n_shared_experts"))?;
                Some(SharedSpec { name: "shared_experts", intermediate, is_gated: false })
            }
            None => None,
        },
    })
}
