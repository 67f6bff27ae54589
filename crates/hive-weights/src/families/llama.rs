//! Llama 2 and 3, SmolLM2, Mistral, and the families that are Llama but for one thing: Mixtral, `smollm3`, `granite`,
//! `phi3` and `olmo2`.

use super::keys::Keys;
use crate::config::{
    Activation, AttentionSpec, ConfigError, DenseSpec, ExpertsSpec, HeadNorms, LayerSpec, ModelConfig, NetworkSpec,
    Norms, Order, QueryGrowth, Router,
};

/// `llama`, `mistral`: windows where the configuration has them.
pub(super) fn llama(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    if let Keys::Gguf(..) = keys
        && keys.number(("", "expert_count"))?.is_some_and(|count| count > 0)
    {
        return mixtral(config, keys);
    }
    let windows = keys.windows(config.layers)?;
    let layer = |window| config.attending(AttentionSpec { window, ..config.plain_attention() });
    Ok(windows.into_iter().map(layer).collect())
}

/// `mixtral`: every network is a choice of two experts.
pub(super) fn mixtral(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    let experts = ExpertsSpec {
        count: keys.required(("num_local_experts", "expert_count"))?,
        per_token: keys.required(("num_experts_per_tok", "expert_used_count"))?,
        intermediate: config.intermediate,
        activation: Activation::Silu,
        router: Router::Softmax { normalized: true, order: Order::Descending },
        module: if matches!(keys, Keys::Gguf(..)) { "mlp" } else { "block_sparse_moe" },
        router_name: "gate",
        stacked: "switch_mlp",
        shared: None,
    };
    let layer = |window| LayerSpec {
        network: NetworkSpec::Experts(experts.clone()),
        ..config.attending(AttentionSpec { window, ..config.plain_attention() })
    };
    Ok(keys.windows(config.layers)?.into_iter().map(layer).collect())
}

/// `smollm3`: every fourth layer has no positions.
pub(super) fn smollm3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    let interval = keys.number(("no_rope_layer_interval", ""))?.unwrap_or(4).max(1);
    // One number per layer: whether it has positions.
    let has_rope = keys.numbers("no_rope_layers")?;
    let layer = |index: usize| {
        let mut attention = config.plain_attention();
        let rotates = has_rope.as_ref().and_then(|list| list.get(index)).map(|flag| *flag != 0);
        if !rotates.unwrap_or(!(index + 1).is_multiple_of(interval)) {
            attention.rope = None;
        }
        config.attending(attention)
    };
    Ok((0..config.layers).map(layer).collect())
}

/// `granite`: factors on the embedding, the scores, the residual and the logits.
pub(super) fn granite(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    // In GGUF, 0 stands for none.
    let factor = |json, gguf, left_out: f32| {
        let given = keys.real((json, gguf))?.filter(|factor| *factor != 0.0);
        Ok::<_, ConfigError>(given.unwrap_or(left_out))
    };
    config.ends.embedding = factor("embedding_multiplier", "embedding_scale", 1.0)?;
    config.ends.logits = 1.0 / factor("logits_scaling", "logit_scale", 1.0)?;
    let plain = config.plain_attention();
    let scale = factor("attention_multiplier", "attention.scale", plain.scale)?;
    let residual = factor("residual_multiplier", "residual_scale", 1.0)?;
    let layer = LayerSpec { residual, ..config.attending(AttentionSpec { scale, ..plain }) };
    Ok(vec![layer; config.layers])
}

/// `phi3`: joined matrices, and windows.
pub(super) fn phi3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    let rotated = keys.rotated(config.head_dim)?;
    let network = DenseSpec { is_joined: true, ..config.plain_network() };
    let layer = |window| LayerSpec {
        network: NetworkSpec::Dense(network.clone()),
        ..config.attending(AttentionSpec { window, rotated, is_joined: true, ..config.plain_attention() })
    };
    Ok(keys.windows(config.layers)?.into_iter().map(layer).collect())
}

/// `ministral3`: windows where the configuration has them, and queries that grow with their position.
pub(super) fn ministral3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    let beta = keys.rope_number("llama_4_scaling_beta")?.filter(|beta| *beta != 0.0);
    let context = keys.rope_number("original_max_position_embeddings")?.unwrap_or(8192.0);
    let windows = if keys.kinds()?.is_empty() { vec![None; config.layers] } else { keys.windows(config.layers)? };
    let query_growth = beta.map(|beta| QueryGrowth { beta, context });
    let layer = |window| config.attending(AttentionSpec { window, query_growth, ..config.plain_attention() });
    Ok(windows.into_iter().map(layer).collect())
}

/// `olmo2`: norms after each half instead of before, and over all queries and keys.
pub(super) fn olmo2(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    let attention = AttentionSpec { head_norms: HeadNorms::All, ..config.plain_attention() };
    let layer = LayerSpec { norms: Norms::After, ..config.attending(attention) };
    Ok(vec![layer; config.layers])
}
