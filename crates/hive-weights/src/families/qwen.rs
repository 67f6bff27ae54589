//! Qwen 2, 2.5, 3, 3-Next and 3.5, dense and of experts.

use super::keys::Keys;
use crate::config::{
    Activation, AttentionSpec, ConfigError, DeltaSpec, ExpertsSpec, HeadNorms, LayerSpec, Mixer, ModelConfig,
    NetworkSpec, Order, Router, SharedSpec,
};

/// `qwen2`: Llama with biases of queries, keys and values, which are loaded wherever a file has them.
pub(super) fn qwen2(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    with_head_norms(config, keys, HeadNorms::None)
}

/// `qwen3`: norms of each query and key.
pub(super) fn qwen3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    with_head_norms(config, keys, HeadNorms::Each)
}

fn with_head_norms(
    config: &ModelConfig,
    keys: &Keys<'_>,
    head_norms: HeadNorms,
) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    // The configurations name a window that hardly any model uses; without the key, none does.
    let windows = match keys.flag(("use_sliding_window", ""))? {
        Some(true) => keys.windows(config.layers)?,
        _ => vec![None; config.layers],
    };
    let layer = |window| config.attending(AttentionSpec { head_norms, window, ..config.plain_attention() });
    Ok(windows.into_iter().map(layer).collect())
}

/// `qwen3_moe`: Qwen 3 with experts in most layers.
pub(super) fn qwen3_moe(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    let layers = qwen3(config, keys)?;
    with_experts(layers, keys, &experts(keys, true)?)
}

/// `qwen3_next`: gated delta nets in three of four layers, attention with a gate in the fourth, and experts beside one
/// that every token passes.
pub(super) fn qwen3_next(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    // GGUF has the first of both matrices in two, and the second is read like two.
    let is_fused = matches!(keys, Keys::Json(_));
    let layers = delta_or_attention(config, keys, is_fused)?;
    let experts = ExpertsSpec { shared: Some(shared(keys)?), ..experts(keys, matches!(keys, Keys::Gguf(..)))? };
    with_experts(layers, keys, &experts)
}

/// `qwen3_5`, the text's part: the same without experts.
pub(super) fn qwen3_5(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    delta_or_attention(config, keys, false)
}

/// `qwen3_5_moe`, the text's part.
pub(super) fn qwen3_5_moe(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    let layers = delta_or_attention(config, keys, false)?;
    let experts = ExpertsSpec { shared: Some(shared(keys)?), ..experts(keys, true)? };
    with_experts(layers, keys, &experts)
}

fn delta_or_attention(config: &ModelConfig, keys: &Keys<'_>, is_fused: bool) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    let value_heads = keys.required(("linear_num_value_heads", "ssm.time_step_rank"))?;
    // In GGUF, the width of all values.
    let value_dim = match keys.number(("", "ssm.inner_size"))? {
        Some(values) => values.checked_div(value_heads).unwrap_or(0),
        None => keys.required(("linear_value_head_dim", "ssm.inner_size"))?,
    };
    let delta = DeltaSpec {
        key_heads: keys.required(("linear_num_key_heads", "ssm.group_count"))?,
        value_heads,
        key_dim: keys.required(("linear_key_head_dim", "ssm.state_size"))?,
        value_dim,
        taps: keys.number(("linear_conv_kernel_dim", "ssm.conv_kernel"))?.unwrap_or(4),
        is_fused,
    };
    let attention = AttentionSpec {
        head_norms: HeadNorms::Each,
        rotated: keys.rotated(config.head_dim)?,
        is_gated: true,
        ..config.plain_attention()
    };
    // The kinds of layers that newer configurations also list follow from this number, as mlx-lm reads them.
    let interval = keys.number(("full_attention_interval", "full_attention_interval"))?.unwrap_or(4).max(1);
    let recurrent = keys.flags_of_layers("attention.recurrent_layers").unwrap_or_default();
    let layer = |index: usize| {
        let attends = recurrent.get(index).map_or((index + 1).is_multiple_of(interval), |recurrent| !recurrent);
        config.plain_layer(if attends { Mixer::Attention(attention.clone()) } else { Mixer::Delta(delta) })
    };
    Ok((0..config.layers).map(layer).collect())
}

fn experts(keys: &Keys<'_>, normalized: bool) -> Result<ExpertsSpec, ConfigError> {
    let normalized = keys.flag(("norm_topk_prob", ""))?.unwrap_or(normalized);
    Ok(ExpertsSpec {
        count: keys.required(("num_experts", "expert_count"))?,
        per_token: keys.required(("num_experts_per_tok", "expert_used_count"))?,
        intermediate: keys.required(("moe_intermediate_size", "expert_feed_forward_length"))?,
        activation: Activation::Silu,
        router: Router::Softmax { normalized, order: Order::Ascending },
        module: "mlp",
        router_name: "gate",
        stacked: "switch_mlp",
        shared: None,
    })
}

fn shared(keys: &Keys<'_>) -> Result<SharedSpec, ConfigError> {
    let intermediate = keys.required(("shared_expert_intermediate_size", "expert_shared_feed_forward_length"))?;
    Ok(SharedSpec { name: "shared_expert", intermediate, is_gated: true })
}

/// Puts experts into the layers that have them.
fn with_experts(
    mut layers: Vec<LayerSpec>,
    keys: &Keys<'_>,
    experts: &ExpertsSpec,
) -> Result<Vec<LayerSpec>, ConfigError> {
    let step = keys.number(("decoder_sparse_step", ""))?.unwrap_or(1).max(1);
    let dense = keys.numbers("mlp_only_layers")?.unwrap_or_default();
    for (index, layer) in layers.iter_mut().enumerate() {
        if !dense.contains(&index) && (index + 1).is_multiple_of(step) {
            layer.network = NetworkSpec::Experts(experts.clone());
        }
    }
    Ok(layers)
}
