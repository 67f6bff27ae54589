"""Writes tiny_llama.json: logits of a small made-up Llama 3 by mlx-lm, whose weights both sides make from a formula.

The Rust side of it is crates/hive-model/tests/tiny_llama.rs. It covers what the starter model has not: safetensors, a
separate output matrix, Llama 3's rope scaling, attention biases, 8-bit overrides, layers left unquantized.

Usage: pip install -r requirements.txt && python tiny_llama.py tiny_llama.json
"""

import json
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

CONFIG = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "rope_theta": 500000.0,
    "max_position_embeddings": 4096,
    "attention_bias": True,
    "tie_word_embeddings": False,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "quantization": {
        "group_size": 64,
        "bits": 4,
        "model.layers.1.mlp.down_proj": {"group_size": 32, "bits": 8},
        "model.layers.1.self_attn.v_proj": {"group_size": 64, "bits": 8},
        "model.layers.2.self_attn.q_proj": False,
    },
}
TOKENS = [(7 * i * i + 3 * i + 11) % 96 for i in range(90)]


def numbers(name, count):
    """`count` numbers in [-0.5, 0.5) from the tensor's name: a linear congruential generator, seeded by FNV-1a."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    out = np.empty(count, dtype=np.uint32)
    for i in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out[i] = state >> 33
    return out


def floats(name, count, scale, offset=0.0):
    return (numbers(name, count).astype(np.float32) / np.float32(2**31) - np.float32(0.5)) * np.float32(scale) + np.float32(offset)


def shapes():
    c = CONFIG
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    for layer in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.q_proj", q, c["hidden_size"], True
        yield prefix + "self_attn.k_proj", kv, c["hidden_size"], True
        yield prefix + "self_attn.v_proj", kv, c["hidden_size"], True
        yield prefix + "self_attn.o_proj", c["hidden_size"], q, True
        yield prefix + "mlp.gate_proj", c["intermediate_size"], c["hidden_size"], False
        yield prefix + "mlp.up_proj", c["intermediate_size"], c["hidden_size"], False
        yield prefix + "mlp.down_proj", c["hidden_size"], c["intermediate_size"], False
    yield "model.embed_tokens", c["vocab_size"], c["hidden_size"], False
    yield "lm_head", c["vocab_size"], c["hidden_size"], False


def weights():
    out = {}
    for name, rows, columns, bias in shapes():
        quantization = CONFIG["quantization"].get(name, CONFIG["quantization"])
        if quantization:
            bits, group = quantization["bits"], quantization["group_size"]
            words = rows * columns * bits // 32
            packed = numbers(name, words) ^ (numbers(name + "+", words) << np.uint32(16))
            out[name + ".weight"] = mx.array(packed.reshape(rows, -1))
            scale = floats(name + ".scales", rows * columns // group, 0.002, 0.02 if bits == 4 else 0.0015)
            out[name + ".scales"] = mx.array(scale.reshape(rows, -1))
            out[name + ".biases"] = mx.array((-scale * (7.5 if bits == 4 else 127.5)).astype(np.float32).reshape(rows, -1))
        else:
            out[name + ".weight"] = mx.array(floats(name, rows * columns, 0.3).reshape(rows, columns))
        if bias:
            out[name + ".bias"] = mx.array(floats(name + ".bias", rows, 0.5))
    for layer in range(CONFIG["num_hidden_layers"]):
        for norm in ["input_layernorm", "post_attention_layernorm"]:
            name = f"model.layers.{layer}.{norm}.weight"
            out[name] = mx.array(floats(name, CONFIG["hidden_size"], 0.5, 1.0))
    out["model.norm.weight"] = mx.array(floats("model.norm.weight", CONFIG["hidden_size"], 0.5, 1.0))
    return out


def main(path):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        mx.save_safetensors(str(folder / "model.safetensors"), weights())
        model, _ = load_model(folder)
        logits = model(mx.array([TOKENS]))[0]
    picked = {str(at): [round(v, 6) for v in logits[at].tolist()] for at in [0, 40, 89]}
    Path(path).write_text(json.dumps({"config": CONFIG, "tokens": TOKENS, "logits": picked}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
