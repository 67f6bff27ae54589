"""Turns the starter model's GGUF into the folder that mlx-lm reads.

Usage: python starter_folder.py MODEL.gguf FOLDER
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

RENAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def rename(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return ".".join(["model.layers", parts[1], RENAMES[parts[2]], parts[3]])
    return ".".join([RENAMES[parts[0]], parts[1]])


def unpermute(rows, heads):
    """Converters store the rows of q and k in interleaved pairs; Hugging Face keeps the halves apart."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def text(value):
    return value if isinstance(value, str) else "".join(value)


def main(gguf, folder):
    folder.mkdir(parents=True, exist_ok=True)
    arrays, meta = mx.load(str(gguf), return_metadata=True)
    number = lambda key: meta[f"llama.{key}"].item()
    heads, kv_heads = number("attention.head_count"), number("attention.head_count_kv")

    weights = {}
    for name, array in arrays.items():
        if ".attn_q." in name:
            array = unpermute(array, heads)
        elif ".attn_k." in name:
            array = unpermute(array, kv_heads)
        weights[rename(name)] = array
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})

    tokens = meta["tokenizer.ggml.tokens"]
    types = np.array(meta["tokenizer.ggml.token_type"])
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"),
        "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "vocab_size": len(tokens),
        "rope_theta": number("rope.freq_base"),
        "max_position_embeddings": number("context_length"),
        "tie_word_embeddings": True,
        "bos_token_id": int(meta["tokenizer.ggml.bos_token_id"].item()),
        "eos_token_id": int(meta["tokenizer.ggml.eos_token_id"].item()),
        "quantization": {"group_size": 32, "bits": 4, "model.embed_tokens": {"group_size": 32, "bits": 8}},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))

    special = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, token in enumerate(tokens)
        if types[i] == 3
    ]
    tokenizer = {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[config["bos_token_id"]],
        "eos_token": tokens[config["eos_token_id"]],
        "chat_template": text(meta["tokenizer.chat_template"]),
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
