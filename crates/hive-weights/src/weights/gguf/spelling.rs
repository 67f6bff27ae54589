//! The names of tensors in GGUF, and in Hugging Face's checkpoints.

/// A part of a layer: our name, and the file's.
type Names = &'static [(&'static str, &'static str)];

/// Of all architectures, unless they have another.
const PARTS: Names = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("mlp.switch_mlp.up_proj", "ffn_up_exps"),
    ("mlp.switch_mlp.down_proj", "ffn_down_exps"),
    ("input_layernorm", "attn_norm"),
];
/// The norm between the halves of a layer.
const BETWEEN: Names = &[("post_attention_layernorm", "ffn_norm")];
/// The same, where it is called after attention.
const AFTER_ATTENTION: Names = &[("post_attention_layernorm", "post_attention_norm")];
/// The norms of layers that have some after a half.
const AFTER: Names = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const PHI3: Names = &[("self_attn.qkv_proj", "attn_qkv"), ("mlp.gate_up_proj", "ffn_up")];
const GPT_OSS: Names = &[
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
];
const DELTA: Names = &[
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
];
/// Both projections to heads' shares are one tensor.
const JOINED_SHARES: Names = &[("linear_attn.in_proj_b", "ssm_ba"), ("linear_attn.in_proj_a", "ssm_ba")];
const SHARED_EXPERT: Names = &[
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
];
const SHARED_EXPERTS: Names = &[
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];
const LATENT: Names = &[
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("self_attn.embed_q", "attn_k_b"),
    ("self_attn.unembed_out", "attn_v_b"),
];
const GEMMA4: Names = &[
    ("router.proj", "ffn_gate_inp"),
    ("experts.switch_glu.gate_proj", "ffn_gate_exps"),
    ("experts.switch_glu.up_proj", "ffn_up_exps"),
    ("experts.switch_glu.down_proj", "ffn_down_exps"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
];
/// Parts whose whole names differ, with the kind at the end.
const WHOLE: Names = &[
    ("self_attn.sinks", "attn_sinks.weight"),
    ("linear_attn.A_log", "ssm_a"),
    ("linear_attn.dt_bias", "ssm_dt.bias"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("layer_scalar", "layer_output_scale.weight"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
];
const OUTER: Names = &[
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
];

/// How the tensors of an architecture are called.
#[derive(Debug)]
pub(super) struct Spelling {
    /// The names of parts, the first that suits.
    tables: &'static [Names],
}

/// The tensor that holds the gates and ups of all experts, in files that have them in one.
pub(super) const GATES_AND_UPS: &str = "ffn_gate_up_exps";

impl Spelling {
    pub(super) fn of(architecture: Option<&str>) -> Self {
        Self {
            tables: match architecture.unwrap_or_default() {
                "gemma2" | "gemma3" | "olmo2" => &[AFTER, PARTS],
                "gemma4" => &[AFTER, GEMMA4, PARTS],
                "phi3" => &[BETWEEN, PHI3, PARTS],
                "gpt-oss" => &[AFTER_ATTENTION, GPT_OSS, PARTS],
                "qwen35" => &[AFTER_ATTENTION, DELTA, PARTS],
                "qwen35moe" => &[AFTER_ATTENTION, DELTA, SHARED_EXPERT, PARTS],
                "qwen3next" => &[AFTER_ATTENTION, JOINED_SHARES, DELTA, SHARED_EXPERT, PARTS],
                "glm4moe" => &[AFTER_ATTENTION, SHARED_EXPERTS, PARTS],
                "deepseek2" => &[BETWEEN, LATENT, SHARED_EXPERTS, PARTS],
                _ => &[BETWEEN, PARTS],
            },
        }
    }

    fn parts(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.tables.iter().copied().flatten()
    }

    /// `model.layers.3.mlp.up_proj.weight` is stored as `blk.3.ffn_up.weight`.
    pub(super) fn stored(&self, name: &str) -> String {
        if let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == part) {
                return format!("blk.{layer}.{theirs}");
            }
            let (base, suffix) = part.rsplit_once('.').unwrap_or((part, ""));
            let renamed = self.parts().find(|(ours, _)| *ours == base).map_or(base, |(_, theirs)| theirs);
            return format!("blk.{layer}.{renamed}.{suffix}");
        }
        let (base, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
        let renamed = OUTER.iter().find(|(ours, _)| *ours == base).map_or(base, |(_, theirs)| theirs);
        format!("{renamed}.{suffix}")
    }

    /// The name in Hugging Face's checkpoints.
    pub(super) fn ours(&self, stored: &str) -> String {
        if let Some((layer, part)) = stored.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            if let Some((ours, _)) = WHOLE.iter().find(|(_, theirs)| *theirs == part) {
                return format!("model.layers.{layer}.{ours}");
            }
            let (base, suffix) = part.rsplit_once('.').unwrap_or((part, ""));
            let base = if base == GATES_AND_UPS { "ffn_gate_exps" } else { base };
            let renamed = self.parts().find(|(_, theirs)| *theirs == base).map_or(base, |(ours, _)| ours);
            return format!("model.layers.{layer}.{renamed}.{suffix}");
        }
        let (base, suffix) = stored.rsplit_once('.').unwrap_or((stored, ""));
        let renamed = OUTER.iter().find(|(_, theirs)| *theirs == base).map_or(base, |(ours, _)| ours);
        format!("{renamed}.{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        for (architecture, name, stored) in [
            ("llama", "model.layers.12.mlp.up_proj.weight", "blk.12.ffn_up.weight"),
            ("llama", "model.layers.7.self_attn.q_proj.bias", "blk.7.attn_q.bias"),
            ("llama", "model.norm.weight", "output_norm.weight"),
            ("llama", "lm_head.weight", "output.weight"),
            ("qwen3", "model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
            ("qwen3", "model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("qwen3", "model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
            ("qwen3moe", "model.layers.3.mlp.gate.weight", "blk.3.ffn_gate_inp.weight"),
            ("qwen3moe", "model.layers.3.mlp.switch_mlp.down_proj.weight", "blk.3.ffn_down_exps.weight"),
            ("olmo2", "model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"),
            ("olmo2", "model.layers.0.post_feedforward_layernorm.weight", "blk.0.post_ffw_norm.weight"),
            ("gpt-oss", "model.layers.1.self_attn.sinks", "blk.1.attn_sinks.weight"),
            ("gpt-oss", "model.layers.1.mlp.experts.up_proj.bias", "blk.1.ffn_up_exps.bias"),
            ("gpt-oss", "model.layers.1.post_attention_layernorm.weight", "blk.1.post_attention_norm.weight"),
            ("phi3", "model.layers.1.mlp.gate_up_proj.weight", "blk.1.ffn_up.weight"),
            ("qwen35", "model.layers.2.linear_attn.A_log", "blk.2.ssm_a"),
            ("qwen35", "model.layers.2.linear_attn.dt_bias", "blk.2.ssm_dt.bias"),
            ("qwen3next", "model.layers.2.linear_attn.in_proj_b.weight", "blk.2.ssm_ba.weight"),
            ("glm4moe", "model.layers.2.mlp.gate.e_score_correction_bias", "blk.2.exp_probs_b.bias"),
            ("deepseek2", "model.layers.2.self_attn.embed_q.weight", "blk.2.attn_k_b.weight"),
            ("gemma4", "model.layers.2.router.per_expert_scale", "blk.2.ffn_down_exps.scale"),
            ("gemma4", "model.embed_tokens_per_layer.weight", "per_layer_token_embd.weight"),
        ] {
            let spelling = Spelling::of(Some(architecture));
            assert_eq!((spelling.stored(name).as_str(), spelling.ours(stored).as_str()), (stored, name));
        }
    }
}
