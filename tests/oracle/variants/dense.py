"""Families with attention and one MLP a layer."""

from .common import each, quantized

BASE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 80,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
MIXED = quantized(
    4,
    64,
    model__embed_tokens=(8, 32),
    model__layers__0__self_attn__k_proj=(8, 64),
    model__layers__0__mlp__up_proj=False,
    model__layers__1__self_attn__q_proj=False,
    model__layers__1__mlp__down_proj=(8, 32),
    model__layers__2__self_attn__v_proj=(4, 32),
    lm_head=(8, 64),
)
ODD = quantized(
    6,
    64,
    model__embed_tokens=(5, 32),
    model__layers__0__self_attn__v_proj=(3, 64),
    model__layers__1__mlp__gate_proj=(5, 64),
    model__layers__1__mlp__down_proj=(3, 32),
    model__layers__2__mlp__up_proj=(4, 64),
)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama():
    base = BASE | {"model_type": "llama", "head_dim": 16}
    return each(
        base,
        ("unquantized, tied", {"tie_word_embeddings": True}),
        ("4 bit, rope of Llama 3", {"quantization": quantized(4, 64), "rope_scaling": LLAMA3, "rope_theta": 500000.0}),
        ("8 bit in groups of 32, linear rope", {"quantization": quantized(8, 32), "rope_scaling": {"type": "linear", "factor": 4.0}}),
        ("mixed", {"quantization": MIXED}),
        ("heads wider than the hidden state", {"head_dim": 32, "num_key_value_heads": 1, "num_hidden_layers": 5, "vocab_size": 61}),
        ("biases everywhere", {"attention_bias": True, "mlp_bias": True, "num_attention_heads": 6, "num_key_value_heads": 3}),
        ("6 bit, with 3 and 5", {"quantization": ODD}),
    )


def qwen2():
    base = BASE | {"model_type": "qwen2", "rope_theta": 1000000.0}
    window = {"use_sliding_window": False, "sliding_window": 32, "max_window_layers": 2}
    return each(
        base,
        ("unquantized, tied", {"tie_word_embeddings": True}),
        ("unquantized, one key-value head", {"num_key_value_heads": 1, "vocab_size": 61} | window),
        ("4 bit, tied", {"quantization": quantized(4, 64), "tie_word_embeddings": True}),
        ("8 bit in groups of 32", {"quantization": quantized(8, 32), "num_hidden_layers": 5}),
        ("mixed", {"quantization": MIXED}),
        # As in Qwen2.5 0.5B: seven query heads to a key-value head.
        ("14 heads to 2", {"hidden_size": 224, "num_attention_heads": 14, "quantization": quantized(4, 32), "rope_theta": None}),
        ("linear rope", {"rope_scaling": {"type": "linear", "factor": 4.0}, "num_key_value_heads": 4}),
        ("yarn", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
    )


def qwen3():
    base = BASE | {"model_type": "qwen3", "rope_theta": 1000000.0, "head_dim": 32, "attention_bias": False}
    return each(
        base,
        ("unquantized, tied", {"tie_word_embeddings": True}),
        ("unquantized, narrow heads", {"head_dim": 8, "num_key_value_heads": 1, "vocab_size": 61, "num_hidden_layers": 5}),
        ("4 bit, tied", {"quantization": quantized(4, 64), "tie_word_embeddings": True}),
        ("8 bit in groups of 32", {"quantization": quantized(8, 32)}),
        ("mixed", {"quantization": MIXED}),
        ("six heads to three", {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 48, "rms_norm_eps": 1e-3}),
        ("rope parameters", {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
        ("yarn", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
    )


def qwen3_floats():
    """Qwen3 in MLX's formats with floating points."""
    base = BASE | {"model_type": "qwen3", "head_dim": 32}
    eight = {"group_size": 64, "bits": 8}
    modes = {"mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
    tables = {mode: {"group_size": group, "bits": bits, "mode": mode} for mode, (group, bits) in modes.items()}
    return each(
        base,
        *((mode, {"quantization": table}) for mode, table in tables.items()),
        ("nvfp4, tied", {"quantization": tables["nvfp4"], "tie_word_embeddings": True}),
        ("mxfp4, some tensors in 8 bit", {"quantization": tables["mxfp4"] | {"lm_head": eight, "model.embed_tokens": eight, "model.layers.1.mlp.down_proj": eight | {"mode": "affine"}}}),
        ("4 bit, some tensors in mxfp8 and nvfp4", {"quantization": quantized(4, 64) | {"model.layers.0.self_attn.o_proj": tables["mxfp8"], "model.layers.2.mlp.up_proj": tables["nvfp4"]}}),
    )


FAMILIES = {"qwen3_floats": qwen3_floats, "llama": llama, "qwen2": qwen2, "qwen3": qwen3}
