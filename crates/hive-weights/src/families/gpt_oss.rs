//! gpt-oss: experts everywhere, windows in every other layer, and attention that may go nowhere.

use super::keys::Keys;
use crate::config::{
    Activation, AttentionSpec, ConfigError, ExpertsSpec, LayerSpec, ModelConfig, NetworkSpec, Order, Router,
};

/// `gpt_oss`.
pub(super) fn gpt_oss(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.rotates_whole_heads(config.head_dim)?;
    let experts = ExpertsSpec {
        count: keys.required(("num_local_experts", "expert_count"))?,
        per_token: keys.required(("num_experts_per_tok", "expert_used_count"))?,
        intermediate: config.intermediate,
        activation: Activation::Clamped { limit: keys.real(("swiglu_limit", ""))?.unwrap_or(7.0) },
        // The softmax over the scores of those picked is the same.
        router: Router::Softmax { normalized: true, order: Order::Ascending },
        module: "mlp",
        router_name: "router",
        stacked: "experts",
        shared: None,
    };
    let windows = if keys.kinds()?.is_empty() {
        let window = keys.number(("sliding_window", "attention.sliding_window"))?.unwrap_or(128);
        (0..config.layers).map(|layer| layer.is_multiple_of(2).then_some(window)).collect()
    } else {
        keys.windows(config.layers)?
    };
    let layer = |window| LayerSpec {
        network: NetworkSpec::Experts(experts.clone()),
        ..config.attending(AttentionSpec { window, has_sinks: true, ..config.plain_attention() })
    };
    Ok(windows.into_iter().map(layer).collect())
}
