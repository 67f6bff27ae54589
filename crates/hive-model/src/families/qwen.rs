//! Qwen 2, 2.5 and 3, dense and of experts.

use super::keys::Keys;
use crate::config::{
    Activation, ConfigError, ExpertsSpec, HeadNorms, LayerSpec, ModelConfig, NetworkSpec, Order, Router,
};

/// `qwen2`: Llama with biases of queries, keys and values, which are loaded wherever a file has them.
pub(super) fn qwen2(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["silu"])?;
    // The configurations name a window that hardly any model uses; without the key, none does.
    let windows = match keys.flag("use_sliding_window") {
        Some(true) => keys.windows(config.layers)?,
        _ => vec![None; config.layers],
    };
    let layer = |window| {
        let mut layer = config.plain_layer();
        layer.attention.window = window;
        layer
    };
    Ok(windows.into_iter().map(layer).collect())
}

/// `qwen3`: norms of each query and key.
pub(super) fn qwen3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    let mut layers = qwen2(config, keys)?;
    for layer in &mut layers {
        layer.attention.head_norms = HeadNorms::Each;
    }
    Ok(layers)
}

/// `qwen3_moe`: Qwen 3 with experts in most layers.
pub(super) fn qwen3_moe(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    let experts = ExpertsSpec {
        count: keys.required(("num_experts", "expert_count"))?,
        per_token: keys.required(("num_experts_per_tok", "expert_used_count"))?,
        intermediate: keys.required(("moe_intermediate_size", "expert_feed_forward_length"))?,
        activation: Activation::Silu,
        router: Router::Softmax { normalized: keys.flag("norm_topk_prob").unwrap_or(true), order: Order::Ascending },
        module: "mlp",
        router_name: "gate",
        stacked: "switch_mlp",
        shared: None,
    };
    let step = keys.number(("decoder_sparse_step", "")).unwrap_or(1).max(1);
    let dense = keys.numbers("mlp_only_layers").unwrap_or_default();
    let mut layers = qwen3(config, keys)?;
    for (index, layer) in layers.iter_mut().enumerate() {
        if !dense.contains(&index) && (index + 1).is_multiple_of(step) {
            layer.network = NetworkSpec::Experts(experts.clone());
        }
    }
    Ok(layers)
}
