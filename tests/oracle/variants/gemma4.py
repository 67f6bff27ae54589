"""Gemma 4: windows, shared keys and values, an embedding for each layer, experts beside the MLP."""

from .common import NULL, each, quantized

FULL, SLIDING = "full_attention", "sliding_attention"
ROPE = {
    FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
}
# Like the models of 12B and more.
LARGE = {
    "model_type": "gemma4_text",
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "rms_norm_eps": 1e-6,
    "vocab_size": 80,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "use_double_wide_mlp": False,
    "sliding_window": 16,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
    "rope_parameters": ROPE,
    "max_position_embeddings": 4096,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
    "enable_moe_block": False,
}
# Like E2B and E4B.
SMALL = LARGE | {
    "attention_k_eq_v": False,
    "num_global_key_value_heads": None,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 80,
    "use_double_wide_mlp": True,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
}
EXPERTS = {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 3, "moe_intermediate_size": 64}


def small_embedding(name):
    """It is multiplied by the root of the width; small, it leaves room for what layers add to it."""
    if name.endswith("embed_tokens.weight"):
        return "float 0.1 0"
    return "float 0.5 1" if name.endswith(("router.scale", "per_expert_scale")) else None


def tied_router(name):
    return "float 0.8 0 zero 2 7" if name.endswith("router.proj.weight") else small_embedding(name)


def gemma4_text():
    eight = {"group_size": 64, "bits": 8}
    routers = {f"model.layers.{layer}.router.proj": eight for layer in range(5)}
    mixed = quantized(
        4, 32,
        model__embed_tokens=(8, 32),
        model__layers__0__self_attn__k_proj=(8, 64),
        model__layers__1__mlp__down_proj=False,
        model__layers__2__self_attn__o_proj=(4, 64),
        model__layers__3__per_layer_input_gate=False,
    )
    yield from each(
        LARGE,
        ("large, unquantized", {}, small_embedding),
        ("large, values of their own, untied, no cap", {"attention_k_eq_v": False, "tie_word_embeddings": False, "final_logit_softcapping": NULL, "num_global_key_value_heads": None}, small_embedding),
        ("large, 4 bit", {"quantization": quantized(4, 64), "final_logit_softcapping": 2.0}, small_embedding),
        ("experts, unquantized", EXPERTS, small_embedding),
        ("experts, 4 bit, router 8 bit", EXPERTS | {"quantization": quantized(4, 64) | routers}, small_embedding),
        ("experts, router ties", EXPERTS, tied_router),
    )
    yield from each(
        SMALL,
        ("small, unquantized", {}, small_embedding),
        ("small, 4 bit", {"quantization": quantized(4, 32), "num_key_value_heads": 1}, small_embedding),
        ("small, mixed, a window of 7", {"quantization": mixed, "sliding_window": 7}, small_embedding),
        ("small, nothing shared", {"num_kv_shared_layers": 0, "use_double_wide_mlp": False, "vocab_size": 61, "vocab_size_per_layer_input": 61}, small_embedding),
    )


UNUSED = [
    ["vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight", [32, 32], "float 0.5 0"],
    ["embed_vision.embedding_projection.weight", [64, 32], "float 0.5 0"],
    ["audio_tower.layers.0.norm_out.weight", [32], "float 0.5 1"],
]


def gemma4():
    """The same with pictures and sounds, whose parts are left out."""
    for name, config, kinds, _ in gemma4_text():
        table, size = config.pop("quantization", None), config["vocab_size"]
        outer = {"model_type": "gemma4", "text_config": config, "vocab_size": size, "vision_config": {"hidden_size": 32}}
        if table:
            outer["quantization"] = {f"language_model.{key}" if "." in key else key: value for key, value in table.items()}
        yield name, outer, kinds, UNUSED


FAMILIES = {"gemma4_text": gemma4_text, "gemma4": gemma4}
