"""Qwen3-Next and Qwen3.5: most layers keep a state of fixed size instead of keys and values."""

from .common import each, quantized

NEXT = {
    "model_type": "qwen3_next",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 64,
    "moe_intermediate_size": 64,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "vocab_size": 80,
    "max_position_embeddings": 4096,
    "rope_theta": 10000000.0,
    "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
EIGHT = {"group_size": 64, "bits": 8}


def slow(name):
    """Some heads forget within a token, some remember the whole prompt."""
    return "float 6 -3" if name.endswith("A_log") else None


def routers(prefix, layers, value):
    return {f"{prefix}model.layers.{n}.mlp.{gate}": value for n in range(layers) for gate in ["gate", "shared_expert_gate"]}


def qwen3_next():
    mixed = quantized(
        4, 32,
        model__layers__0__linear_attn__in_proj_qkvz=(8, 64),
        model__layers__0__linear_attn__in_proj_ba=False,
        model__layers__1__linear_attn__out_proj=False,
        model__layers__1__mlp__switch_mlp__down_proj=(8, 64),
        model__layers__2__mlp__shared_expert__up_proj=False,
        model__layers__3__self_attn__q_proj=(8, 32),
        lm_head=(8, 64),
    )
    return each(
        NEXT,
        ("unquantized", {}, slow),
        ("unquantized, tied, weights of experts as they are", {"tie_word_embeddings": True, "norm_topk_prob": None}, slow),
        ("4 bit, routers 8 bit", {"quantization": quantized(4, 64) | routers("", 4, EIGHT)}, slow),
        ("8 bit in groups of 32, as many key heads", {"quantization": quantized(8, 32), "linear_num_key_heads": 4, "num_key_value_heads": 1}, slow),
        ("mixed", {"quantization": mixed}, slow),
        ("every second layer attends, dense layers between", {"full_attention_interval": 2, "num_hidden_layers": 5, "mlp_only_layers": [1], "decoder_sparse_step": 2, "vocab_size": 61}, slow),
        ("other sizes of heads, a convolution of 3, biases", {"linear_key_head_dim": 64, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 3, "attention_bias": True, "partial_rotary_factor": 0.5}, slow),
    )


ROPE = {
    "rope_type": "default",
    "rope_theta": 10000000.0,
    "partial_rotary_factor": 0.25,
    "mrope_interleaved": True,
    "mrope_section": [2, 1, 1],
}
TEXT = {key: value for key, value in NEXT.items() if not key.startswith(("num_experts", "shared_expert", "moe_", "mlp_only", "decoder_", "norm_topk", "rope_", "partial"))}
# Pictures, and a layer that predicts several tokens at once.
UNUSED = [
    ["vision_tower.blocks.0.attn.qkv.weight", [96, 32], "float 0.5 0"],
    ["vision_tower.patch_embed.proj.weight", [32, 2, 4, 4, 3], "float 0.5 0"],
    ["language_model.mtp.fc.weight", [64, 128], "float 0.5 0"],
    ["language_model.mtp.layers.0.input_layernorm.weight", [64], "float 0.5 1"],
]


def nested(outer, variants):
    """The language model is one part of the configuration, and of the names of tensors."""
    for name, config, kinds, unused in variants:
        table = config.pop("quantization", None)
        around = {"model_type": outer, "text_config": config, "vision_config": {"depth": 1}, "tie_word_embeddings": config["tie_word_embeddings"]}
        if table:
            around["quantization"] = {f"language_model.{key}" if "." in key or key == "lm_head" else key: value for key, value in table.items()}
        yield name, around, kinds, unused


def qwen3_5():
    base = TEXT | {"model_type": "qwen3_5_text", "rope_parameters": ROPE, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
    mixed = quantized(
        4, 32,
        model__layers__0__linear_attn__in_proj_qkv=(8, 64),
        model__layers__0__linear_attn__in_proj_a=False,
        model__layers__0__linear_attn__in_proj_b=(8, 32),
        model__layers__1__linear_attn__in_proj_z=False,
        model__layers__2__mlp__down_proj=(8, 64),
        model__layers__3__self_attn__q_proj=(8, 32),
        lm_head=(8, 64),
    )
    other = {"layer_types": None}
    yield from nested("qwen3_5", each(
        base,
        ("unquantized", {}, slow),
        ("unquantized, tied, with parts that are not computed", {"tie_word_embeddings": True}, slow, UNUSED),
        ("4 bit", {"quantization": quantized(4, 64)}, slow, UNUSED[:1]),
        ("8 bit in groups of 32, as many key heads", {"quantization": quantized(8, 32), "linear_num_key_heads": 4, "num_key_value_heads": 1}, slow),
        ("mixed", {"quantization": mixed}, slow),
        ("every second layer attends", other | {"full_attention_interval": 2, "num_hidden_layers": 5, "vocab_size": 61}, slow),
        ("other sizes of heads, half rotated", other | {"linear_key_head_dim": 64, "linear_value_head_dim": 16, "rope_parameters": ROPE | {"partial_rotary_factor": 0.5}, "attention_bias": True}, slow),
    ))
    # The configuration of the language model alone; names are those of the whole.
    yield from each(base | {"model_type": "qwen3_5"}, ("language model only", {}, slow))


def qwen3_5_moe():
    base = TEXT | {key: NEXT[key] for key in NEXT if key.startswith(("num_experts", "shared_expert", "moe_"))}
    base |= {"model_type": "qwen3_5_moe_text", "rope_parameters": ROPE, "intermediate_size": None}
    mixed = quantized(
        4, 32,
        model__layers__0__linear_attn__in_proj_qkv=(8, 64),
        model__layers__1__mlp__switch_mlp__down_proj=(8, 64),
        model__layers__1__mlp__gate=False,
        model__layers__2__mlp__shared_expert__up_proj=False,
        model__layers__3__self_attn__q_proj=(8, 32),
        lm_head=(8, 64),
    )
    return nested("qwen3_5_moe", each(
        base,
        ("unquantized", {}, slow),
        ("unquantized, tied, with parts that are not computed", {"tie_word_embeddings": True}, slow, UNUSED),
        ("4 bit, routers 8 bit", {"quantization": quantized(4, 64) | routers("", 4, EIGHT)}, slow, UNUSED[:1]),
        ("8 bit in groups of 32, one of 16 experts", {"quantization": quantized(8, 32), "num_experts": 16, "num_experts_per_tok": 1, "num_key_value_heads": 1}, slow),
        ("mixed", {"quantization": mixed}, slow),
        ("every second layer attends, weights of experts as they are", {"full_attention_interval": 2, "num_hidden_layers": 5, "norm_topk_prob": False, "vocab_size": 61}, slow),
    ))


FAMILIES = {"qwen3_next": qwen3_next, "qwen3_5": qwen3_5, "qwen3_5_moe": qwen3_5_moe}
