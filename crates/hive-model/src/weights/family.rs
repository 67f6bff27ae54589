//! The tensors of the Llama family.
//!
//! A tensor that is not computed with changes the model's output. So a file with an unknown tensor is refused: norms of
//! queries and keys, a second norm, scales of a foreign quantization.

/// Matrices of a layer.
const MATRICES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const NORMS: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];
/// Parts of an affine-quantized matrix beside its weights.
const QUANTIZED: [&str; 2] = ["scales", "biases"];

/// Whether a tensor is one that this family computes with, or one that makes no difference.
pub(crate) fn is_known(name: &str, layers: usize) -> bool {
    is_computed(name, layers) || is_ignorable(name)
}

/// Whether a model of this family with this many layers computes with the tensor.
pub(crate) fn is_computed(name: &str, layers: usize) -> bool {
    let of_layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let (part, is_layers) = match of_layer {
        Some((number, part))
            if number.parse::<usize>().is_ok_and(|layer| layer < layers && layer.to_string() == number) =>
        {
            (part, true)
        }
        _ => (name, false),
    };
    let (base, kind) = part.rsplit_once('.').unwrap_or((part, ""));
    let matrix = kind == "weight" || QUANTIZED.contains(&kind);
    if is_layers {
        MATRICES.contains(&base) && (matrix || kind == "bias") || NORMS.contains(&base) && kind == "weight"
    } else {
        ["model.embed_tokens", "lm_head"].contains(&base) && matrix || name == "model.norm.weight"
    }
}

/// Tensors that follow from the configuration, or that predict further tokens.
fn is_ignorable(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name.starts_with("mtp.") || name.starts_with("model.mtp.")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(is_known(known, 32), "{known}");
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
            assert!(!is_known(unknown, 32), "{unknown}");
        }
    }
}
