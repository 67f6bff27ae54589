"""Families in which most layers see a window of the last tokens only."""

from .common import each, quantized
from .dense import BASE


def gemma(name):
    """Gemma multiplies by 1 + w. Its output matrix is tied if the file has none."""
    if name.startswith("lm_head.") or ".lm_head." in name:
        return ""
    # The embedding is multiplied by the root of the width, and small beside what layers add to it.
    return "float 0.5 0" if "norm" in name else "float 0.1 0" if name.endswith("embed_tokens.weight") else None


def untied(name):
    return gemma(name) if "norm" in name else None


GEMMA = BASE | {
    "model_type": "gemma3_text",
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 16,
    "sliding_window_pattern": 3,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "tie_word_embeddings": None,
    "hidden_activation": "gelu_pytorch_tanh",
}


def gemma3_text():
    return each(
        GEMMA,
        ("unquantized, tied", {}, gemma),
        ("five layers, the window of 16 in two of three", {"num_hidden_layers": 5, "num_key_value_heads": 1, "vocab_size": 61}, gemma),
        ("4 bit, untied", {"quantization": quantized(4, 64)}, untied),
        ("8 bit in groups of 32, a window of 7", {"quantization": quantized(8, 32), "sliding_window": 7, "sliding_window_pattern": 2}, gemma),
        ("mixed", {"num_hidden_layers": 4, "quantization": quantized(
            4, 32,
            model__embed_tokens=(8, 64),
            model__layers__0__self_attn__k_proj=(8, 64),
            model__layers__1__mlp__down_proj=False,
            model__layers__2__self_attn__o_proj=(4, 64),
        )}, gemma),
        ("scale other than the head's", {"query_pre_attn_scalar": 8, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 50}, gemma),
        ("the window is wider than the conversation", {"sliding_window": 512, "sliding_window_pattern": 4, "num_hidden_layers": 5}, gemma),
    )


def gemma3():
    """The same with pictures, whose part is left out."""
    pictures = [
        ["vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight", [32, 32], "float 0.5 0"],
        ["vision_tower.vision_model.embeddings.patch_embedding.weight", [32, 4, 4, 3], "float 0.5 0"],
        ["multi_modal_projector.mm_input_projection_weight", [32, 64], "float 0.5 0"],
        ["multi_modal_projector.mm_soft_emb_norm.weight", [32], "float 0.5 0"],
    ]
    for name, config, kinds, _ in gemma3_text():
        config = config | {"model_type": "gemma3_text"}
        size, table = config.pop("vocab_size"), config.pop("quantization", None)
        outer = {"model_type": "gemma3", "text_config": config, "vocab_size": size, "vision_config": {"hidden_size": 32}}
        if table:
            rest = {f"language_model.{key}" if "." in key else key: value for key, value in table.items()}
            outer["quantization"] = rest
        yield name, outer, kinds, pictures


OSS = {
    "model_type": "gpt_oss",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 8,
    "num_experts_per_tok": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 80,
    "max_position_embeddings": 4096,
    "rope_theta": 150000.0,
    "sliding_window": 16,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
}
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 64,
}


def packed(eight):
    """4-bit floats for experts, and 8-bit numbers for all else, as in MXFP4-Q8 folders."""
    table = {"group_size": 32, "bits": 4, "mode": "mxfp4", "model.embed_tokens": eight, "lm_head": eight}
    for layer in range(OSS["num_hidden_layers"]):
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"]:
            table[f"model.layers.{layer}.self_attn.{part}"] = eight
        table[f"model.layers.{layer}.mlp.router"] = eight
    return table


def clamped(name):
    """Inner numbers far beyond the limit of 7."""
    return "float 24 0" if name.endswith(("experts.gate_proj.bias", "experts.up_proj.bias")) else None


def gpt_oss():
    affine = {"group_size": 64, "bits": 8}
    return each(
        OSS,
        ("unquantized", {}),
        ("unquantized, yarn", {"rope_scaling": YARN}),
        ("4-bit floats for experts, 8 bit for the rest, yarn", {"rope_scaling": YARN, "quantization": packed(affine)}),
        ("the same with modes, in groups of 32", {"quantization": packed({"group_size": 32, "bits": 8, "mode": "affine"}), "intermediate_size": 96}),
        ("4 bit", {"quantization": quantized(4, 64), "num_experts_per_tok": 2, "num_local_experts": 4}),
        ("inner numbers beyond the limit", {"num_experts_per_tok": 3, "intermediate_size": 32}, clamped),
        ("layers in another order, five of them", {
            "num_hidden_layers": 5,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 7,
            "num_key_value_heads": 1,
            "vocab_size": 61,
        }),
        ("router ties", {"num_experts_per_tok": 3}, lambda name: {"weight": "float 0.8 0 zero 2 7", "bias": "float 0.3 0 zero 0 8"}.get(name.rsplit(".", 1)[-1]) if ".router." in name else None),
    )


FAMILIES = {"gemma3_text": gemma3_text, "gemma3": gemma3, "gpt_oss": gpt_oss}
