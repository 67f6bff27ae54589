//! The names of tensors in GGUF, and in Hugging Face's checkpoints.

/// Parts of a layer: our name, and the file's.
const PARTS: &[(&str, &str)] = &[
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
/// The norms of layers that have one before each half.
const BEFORE: &[(&str, &str)] = &[("post_attention_layernorm", "ffn_norm")];
/// The norms of layers that have some after a half.
const AFTER: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const OUTER: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// How the tensors of an architecture are called.
#[derive(Debug)]
pub(super) struct Spelling {
    norms: &'static [(&'static str, &'static str)],
}

/// Whether llama.cpp's converter permutes the rows of queries and keys.
pub(super) fn is_permuted(architecture: &str) -> bool {
    ["llama", "granite", "smollm3"].contains(&architecture)
}

impl Spelling {
    pub(super) fn of(architecture: Option<&str>) -> Self {
        let after = ["gemma2", "gemma3", "olmo2"];
        Self { norms: if architecture.is_some_and(|name| after.contains(&name)) { AFTER } else { BEFORE } }
    }

    fn parts(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        PARTS.iter().chain(self.norms)
    }

    /// `model.layers.3.mlp.up_proj.weight` is stored as `blk.3.ffn_up.weight`.
    pub(super) fn stored(&self, name: &str) -> String {
        let (base, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
        if let Some((layer, part)) = base.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            let renamed = self.parts().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| theirs);
            return format!("blk.{layer}.{renamed}.{suffix}");
        }
        let renamed = OUTER.iter().find(|(ours, _)| *ours == base).map_or(base, |(_, theirs)| theirs);
        format!("{renamed}.{suffix}")
    }

    /// The name in Hugging Face's checkpoints.
    pub(super) fn ours(&self, stored: &str) -> String {
        let (base, suffix) = stored.rsplit_once('.').unwrap_or((stored, ""));
        if let Some((layer, part)) = base.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            let renamed = self.parts().find(|(_, theirs)| *theirs == part).map_or(part, |(ours, _)| ours);
            return format!("model.layers.{layer}.{renamed}.{suffix}");
        }
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
        ] {
            let spelling = Spelling::of(Some(architecture));
            assert_eq!((spelling.stored(name).as_str(), spelling.ours(stored).as_str()), (stored, name));
        }
    }
}
