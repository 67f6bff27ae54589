"""Families with several experts a layer."""

from .common import each, quantized
from .dense import BASE


def tied(name):
    """A router that cannot tell experts 2 to 6 apart."""
    return "float 0.8 0 zero 2 7" if name.endswith(".gate.weight") else None


def gates(base, value):
    """The router is quantized otherwise, as mlx-lm's own conversion does."""
    path = "mlp.gate" if "qwen" in base["model_type"] else "block_sparse_moe.gate"
    return {f"model.layers.{layer}.{path}": value for layer in range(base["num_hidden_layers"])}


EIGHT = {"group_size": 64, "bits": 8}


def qwen3_moe():
    base = BASE | {
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "rope_theta": 1000000.0,
    }
    four = {"moe_intermediate_size": 64}
    return each(
        base,
        ("unquantized", {}),
        ("weights of experts as they are, tied embedding", {"norm_topk_prob": False, "tie_word_embeddings": True}),
        ("every second layer sparse", {"decoder_sparse_step": 2, "num_hidden_layers": 5, "mlp_only_layers": [3]}),
        ("4 bit, router 8 bit", four | {"quantization": quantized(4, 64) | gates(base, EIGHT)}),
        ("8 bit in groups of 32, one expert of 16", {"quantization": quantized(8, 32), "num_experts": 16, "num_experts_per_tok": 1, "norm_topk_prob": False}),
        ("mixed", four | {"num_key_value_heads": 1, "quantization": quantized(
            4, 32,
            model__layers__0__mlp__switch_mlp__down_proj=(8, 64),
            model__layers__0__mlp__gate=False,
            model__layers__1__mlp__switch_mlp__gate_proj=False,
            model__layers__1__self_attn__o_proj=(8, 64),
            model__layers__2__mlp__switch_mlp__up_proj=(4, 64),
        )}),
        ("router ties", {"num_experts_per_tok": 4}, tied),
        ("router ties, quantized", four | {"num_experts_per_tok": 3, "norm_topk_prob": False, "quantization": quantized(4, 64) | gates(base, False)}, tied),
        ("all experts", {"num_experts": 4, "num_experts_per_tok": 4}),
    )


def mixtral():
    base = BASE | {
        "model_type": "mixtral",
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    }
    return each(
        base,
        ("unquantized", {}),
        ("unquantized, tied, one expert", {"tie_word_embeddings": True, "num_experts_per_tok": 1, "vocab_size": 61}),
        ("4 bit, router 8 bit", {"quantization": quantized(4, 64) | gates(base, EIGHT)}),
        ("8 bit in groups of 32", {"quantization": quantized(8, 32), "num_hidden_layers": 5, "num_key_value_heads": 1}),
        ("mixed", {"quantization": quantized(
            4, 32,
            model__layers__0__block_sparse_moe__switch_mlp__down_proj=(8, 64),
            model__layers__1__block_sparse_moe__gate=False,
            model__layers__1__block_sparse_moe__switch_mlp__up_proj=False,
            model__layers__2__self_attn__q_proj=(8, 64),
            lm_head=False,
        )}),
        ("router ties", {"num_experts_per_tok": 3}, tied),
        ("four of four experts", {"num_local_experts": 4, "num_experts_per_tok": 4}),
    )


FAMILIES = {"qwen3_moe": qwen3_moe, "mixtral": mixtral}
