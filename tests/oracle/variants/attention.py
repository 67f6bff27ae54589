"""Families that are Llama but for a few things in attention, norms or factors."""

from .common import each, quantized
from .dense import BASE, MIXED


def phi3():
    base = BASE | {"model_type": "phi3", "original_max_position_embeddings": 64}
    long = {
        "type": "longrope",
        "short_factor": [1.0 + 0.05 * i for i in range(6)],
        "long_factor": [1.0 + 0.8 * i for i in range(6)],
    }
    fused = quantized(
        4, 64,
        model__layers__0__self_attn__qkv_proj=(8, 64),
        model__layers__1__mlp__gate_up_proj=False,
        model__layers__1__mlp__down_proj=(8, 32),
        model__layers__2__self_attn__o_proj=(4, 32),
        lm_head=(8, 32),
    )
    return each(
        base,
        ("unquantized", {}),
        ("unquantized, tied, as many key-value heads", {"tie_word_embeddings": True, "num_key_value_heads": None}),
        ("4 bit, three quarters rotated", {"quantization": quantized(4, 64), "partial_rotary_factor": 0.75}),
        ("8 bit in groups of 32, longrope", {"quantization": quantized(8, 32), "rope_scaling": long, "partial_rotary_factor": 0.75}),
        ("longrope in the trained context", {"rope_scaling": long, "partial_rotary_factor": 0.75, "max_position_embeddings": 96, "original_max_position_embeddings": 96, "vocab_size": 61}),
        ("linear rope, five layers", {"rope_scaling": {"type": "linear", "factor": 4.0, "long_factor": []}, "num_hidden_layers": 5, "num_key_value_heads": 1}),
        ("mixed", {"quantization": fused}),
    )


def smollm3():
    base = BASE | {"model_type": "smollm3", "rope_theta": 5000000.0, "num_hidden_layers": 4}
    return each(
        base,
        ("unquantized, tied, the fourth layer without rope", {"tie_word_embeddings": True}),
        ("every second layer without rope", {"no_rope_layer_interval": 2, "num_hidden_layers": 5}),
        ("listed layers without rope, 4 bit", {"no_rope_layers": [0, 1, 1, 0], "quantization": quantized(4, 64)}),
        ("8 bit in groups of 32, tied", {"quantization": quantized(8, 32), "tie_word_embeddings": None}),
        ("mixed", {"num_hidden_layers": 3, "no_rope_layers": [1, 0, 1], "quantization": MIXED}),
        ("no layer without rope, biases", {"no_rope_layers": [1, 1, 1, 1], "attention_bias": True, "num_key_value_heads": 1, "vocab_size": 61}),
    )


def granite():
    base = BASE | {
        "model_type": "granite",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_multiplier": 0.125,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    }
    eight = {"group_size": 64, "bits": 8}
    usual = {f"model.layers.{n}.{part}": eight for n in range(3) for part in ["self_attn.o_proj", "mlp.down_proj"]}
    return each(
        base,
        ("unquantized", {}),
        ("unquantized, tied", {"tie_word_embeddings": True, "embedding_multiplier": 2.0, "residual_multiplier": 1.0}),
        ("4 bit, two parts 8 bit", {"quantization": quantized(4, 64) | usual | {"lm_head": eight}}),
        ("8 bit in groups of 32, biases", {"quantization": quantized(8, 32), "attention_bias": True, "mlp_bias": True}),
        ("mixed", {"quantization": MIXED}),
        ("five layers, linear rope", {"num_hidden_layers": 5, "num_key_value_heads": 1, "vocab_size": 61, "attention_multiplier": 0.5, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    )


def olmo2():
    base = BASE | {"model_type": "olmo2", "rope_theta": 500000.0}
    return each(
        base,
        ("unquantized", {}),
        ("unquantized, tied", {"tie_word_embeddings": True}),
        ("4 bit", {"quantization": quantized(4, 64)}),
        ("8 bit in groups of 32, heads of another width", {"quantization": quantized(8, 32), "head_dim": 32, "num_key_value_heads": 1}),
        ("mixed", {"quantization": MIXED}),
        ("five layers, as many key-value heads", {"num_hidden_layers": 5, "num_key_value_heads": None, "vocab_size": 61}),
    )


ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16,
    "llama_4_scaling_beta": 0.5,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
FULL, SLIDING = "full_attention", "sliding_attention"


def ministral3():
    base = BASE | {"model_type": "ministral3", "head_dim": 32, "rope_theta": None, "rope_parameters": ROPE}
    return each(
        base,
        ("unquantized", {}),
        ("unquantized, tied, another scale of the rope", {"tie_word_embeddings": True, "rope_parameters": ROPE | {"mscale_all_dim": 0.5}}),
        ("4 bit, no scale by position", {"quantization": quantized(4, 64), "rope_parameters": ROPE | {"llama_4_scaling_beta": 0.0}}),
        ("8 bit in groups of 32, one key-value head", {"quantization": quantized(8, 32), "num_key_value_heads": 1, "vocab_size": 61}),
        ("mixed", {"quantization": MIXED}),
        ("a window of 16 in three layers of four", {"num_hidden_layers": 4, "layer_types": [SLIDING, SLIDING, FULL, SLIDING], "sliding_window": 16}),
        ("plain rope", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "original_max_position_embeddings": 20, "llama_4_scaling_beta": 0.1}}),
    )


def mistral3():
    """Ministral or Mistral with pictures, whose part is left out."""
    pictures = [
        ["vision_tower.transformer.layers.0.attention.q_proj.weight", [32, 32], "float 0.5 0"],
        ["multi_modal_projector.linear_1.weight", [64, 32], "float 0.5 0"],
    ]
    mistral = BASE | {"model_type": "mistral", "head_dim": 32}
    plain = each(
        mistral,
        ("Mistral, unquantized", {}),
        ("Mistral, 4 bit", {"quantization": quantized(4, 64), "num_key_value_heads": 1, "rope_theta": 1000000000.0}),
    )
    for name, config, kinds, _ in [*ministral3(), *plain]:
        table = config.pop("quantization", None)
        if not config["tie_word_embeddings"]:
            config.pop("tie_word_embeddings")
        outer = {"model_type": "mistral3", "text_config": config, "vision_config": {"model_type": "pixtral"}}
        if table:
            outer["quantization"] = {f"language_model.{key}" if "." in key or key == "lm_head" else key: value for key, value in table.items()}
        yield name, outer, kinds, pictures


FAMILIES = {
    "phi3": phi3,
    "smollm3": smollm3,
    "granite": granite,
    "olmo2": olmo2,
    "ministral3": ministral3,
    "mistral3": mistral3,
}
