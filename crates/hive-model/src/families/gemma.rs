//! Gemma 3: windows in most layers, norms around each half, a rotation of its own for the windows.

use super::keys::Keys;
use crate::config::{
    Activation, AttentionSpec, ConfigError, DenseSpec, HeadNorms, LayerSpec, ModelConfig, NetworkSpec, Norms, Rope,
    RopeScaling,
};

/// `gemma3_text`, and the text's part of `gemma3`.
pub(super) fn gemma3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["gelu_pytorch_tanh"])?;
    config.ends.norms_from_one = true;
    // As bfloat16, in which the models were trained.
    config.ends.embedding = half::bf16::from_f32((config.hidden as f32).sqrt()).to_f32();
    let window = keys.number(("sliding_window", "attention.sliding_window")).filter(|window| *window > 0);
    let pattern = keys.number(("sliding_window_pattern", "")).unwrap_or(6).max(1);
    let theta = keys.real(("rope_local_base_freq", "")).unwrap_or(10_000.0);
    let scalar = keys.real(("query_pre_attn_scalar", "")).unwrap_or(config.head_dim as f32);
    let kinds = keys.kinds();
    let slides = |index: usize| match kinds.get(index) {
        Some(kind) => *kind == "sliding_attention",
        None => !(index + 1).is_multiple_of(pattern),
    };
    let full = AttentionSpec { head_norms: HeadNorms::Each, scale: scalar.powf(-0.5), ..config.plain_attention() };
    let rope = Some(Rope { theta, scaling: RopeScaling::None });
    let sliding = AttentionSpec { rope, window, ..full.clone() };
    let network = DenseSpec { activation: Activation::Gelu, ..config.plain_network() };
    let layer = |index: usize| LayerSpec {
        norms: Norms::Around,
        network: NetworkSpec::Dense(network.clone()),
        ..config.attending(if slides(index) { sliding.clone() } else { full.clone() })
    };
    Ok((0..config.layers).map(layer).collect())
}
