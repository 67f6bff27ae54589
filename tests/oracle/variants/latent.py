"""Families whose router scores by sigmoid, in groups; two of them with latent attention."""

from .common import NULL, each, quantized

GLM = {
    "model_type": "glm4_moe",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "moe_intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-5,
    "vocab_size": 80,
    "max_position_embeddings": 4096,
    "rope_theta": 1000000.0,
    "rope_scaling": {},
    "partial_rotary_factor": 0.5,
    "use_qk_norm": False,
    "attention_bias": True,
    "tie_word_embeddings": False,
}
# A layer that predicts several tokens at once, which mlx-lm leaves out. It follows the third layer.
PREDICTING = [
    ["model.layers.3.eh_proj.weight", [64, 128], "float 0.3 0"],
    ["model.layers.3.enorm.weight", [64], "float 0.5 1"],
    ["model.layers.3.input_layernorm.weight", [64], "float 0.5 1"],
]


def below_zero(name):
    """Corrections that take scores below zero, where experts of groups that are left out have zero."""
    return "float 1 -1.2" if name.endswith("e_score_correction_bias") else None


def glm4_moe():
    mixed = quantized(
        4, 32,
        model__layers__0__mlp__down_proj=(8, 64),
        model__layers__1__mlp__switch_mlp__down_proj=(8, 64),
        model__layers__1__mlp__shared_experts__up_proj=False,
        model__layers__2__mlp__switch_mlp__up_proj=False,
        model__layers__2__self_attn__k_proj=(8, 32),
        lm_head=(8, 64),
    )
    usual = lambda name: None
    return each(
        GLM,
        ("unquantized", {}),
        ("unquantized, norms of heads, a predicting layer", {"use_qk_norm": True, "attention_bias": False}, usual, PREDICTING),
        ("4 bit, weights of experts as they are", {"quantization": quantized(4, 64), "norm_topk_prob": False, "routed_scaling_factor": 1.0}),
        ("8 bit in groups of 32, two of four groups", {"quantization": quantized(8, 32), "n_group": 4, "topk_group": 2}),
        ("mixed", {"quantization": mixed, "num_key_value_heads": 1}),
        ("five layers, two dense, two shared experts", {"num_hidden_layers": 5, "first_k_dense_replace": 2, "n_shared_experts": 2, "num_experts_per_tok": 1, "vocab_size": 61}),
        ("scores below zero", {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 2}, below_zero),
    )


LATENT = GLM | {
    "model_type": "glm4_moe_lite",
    "num_key_value_heads": 4,
    "head_dim": None,
    "use_qk_norm": None,
    "attention_bias": False,
    "partial_rotary_factor": None,
    "rope_scaling": None,
    "kv_lora_rank": 64,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "moe_layer_freq": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
}
YARN = {
    "type": "yarn",
    "factor": 40.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}


def joined(name):
    return "" if ".embed_q." in name or ".unembed_out." in name else None


# Keys and values of all heads in one matrix, as in folders that were converted before 2026.
ONE_MATRIX = [
    [f"model.layers.{layer}.self_attn.kv_b_proj.weight", [4 * (32 + 32), 64], "float 0.4 0"] for layer in range(3)
]


def latent(base):
    mixed = quantized(
        4, 32,
        model__layers__0__self_attn__embed_q=(8, 32),
        model__layers__0__self_attn__q_b_proj=False,
        model__layers__1__self_attn__unembed_out=False,
        model__layers__1__mlp__switch_mlp__gate_proj=(8, 32),
        model__layers__2__self_attn__kv_a_proj_with_mqa=(8, 64),
        model__layers__2__self_attn__unembed_out=(4, 64),
    )
    return each(
        base,
        ("unquantized", {}),
        ("unquantized, queries as one matrix, narrow values", {"q_lora_rank": NULL, "n_shared_experts": 2, "v_head_dim": 16}),
        ("4 bit, keys and values as they are", {"quantization": quantized(4, 64)}),
        ("8 bit in groups of 32", {"quantization": quantized(8, 32), "attention_bias": True}),
        ("mixed", {"quantization": mixed, "norm_topk_prob": False}),
        ("two of four groups, five layers", {"num_hidden_layers": 5, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 2, "vocab_size": 61}),
        ("yarn", {"rope_scaling": YARN}),
        ("yarn of another scale", {"rope_scaling": YARN | {"mscale_all_dim": 0.5}}),
        ("keys and values of all heads in one matrix", {}, joined, ONE_MATRIX),
    )


def glm4_moe_lite():
    yield from latent(LATENT)
    yield from each(LATENT, ("a predicting layer", {"routed_scaling_factor": 1.8}, lambda name: None, PREDICTING))


def deepseek_v3():
    base = LATENT | {"model_type": "deepseek_v3", "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": None}
    yield from latent(base)
    yield from each(base, ("Kimi K2, 4 bit", {"model_type": "kimi_k2", "rope_theta": 50000.0, "quantization": quantized(4, 32), "rope_scaling": YARN | {"factor": 32.0}, "n_group": 1}))


FAMILIES = {"glm4_moe": glm4_moe, "glm4_moe_lite": glm4_moe_lite, "deepseek_v3": deepseek_v3}
