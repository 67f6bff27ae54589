"""HiveMind beside mlx-lm, for families other than Llama: random models of about 1B, in turn in one run, as ratios.

It needs an executable of HiveMind, and mlx-lm for the Python that runs it; nothing is downloaded. On a machine without a GPU both compute on the CPU,
HiveMind with its own kernels. Each family takes some three minutes on a GPU, and ten on two cores. A family that cannot run is named, and the next one
follows. `--tiny` is a test of the script itself.

Usage: families.py --hivemind EXECUTABLE [--only qwen3,qwen3_moe,…] [--prompt N] [--tokens N] [--pairs N] [--mode affine|mxfp4] [--tiny] [--models FOLDER]
"""

import argparse
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import gpu

FULL, SLIDING = "full_attention", "sliding_attention"
COMMON = {"max_position_embeddings": gpu.CONTEXT, "rms_norm_eps": 1e-6, "vocab_size": 128_256}
FAMILIES = {
    "qwen3": COMMON | {
        "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 6144, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "qwen3_moe": COMMON | {
        "hidden_size": 1024, "num_hidden_layers": 16, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128,
        "moe_intermediate_size": 256, "num_experts": 64, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
        "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "gpt_oss": COMMON | {
        "hidden_size": 1024, "num_hidden_layers": 12, "intermediate_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64,
        "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "layer_types": [SLIDING, FULL] * 6, "rope_theta": 150_000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096, "truncate": False},
    },
    "qwen3_next": COMMON | {
        "hidden_size": 1024, "num_hidden_layers": 12, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128,
        "linear_num_value_heads": 16, "linear_num_key_heads": 8, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4, "num_experts": 64, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "shared_expert_intermediate_size": 256,
        "moe_intermediate_size": 256, "mlp_only_layers": [], "norm_topk_prob": True, "partial_rotary_factor": 0.25, "rope_theta": 1e7,
        "tie_word_embeddings": False, "attention_bias": False,
    },
    "gemma3_text": COMMON | {
        "hidden_size": 1152, "num_hidden_layers": 18, "intermediate_size": 6912, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 10_000.0, "query_pre_attn_scalar": 256,
    },
}
# Of each in --tiny: wide enough for groups of 64.
TINY = {
    "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "num_experts": 8, "num_local_experts": 8,
    "num_experts_per_tok": 2, "vocab_size": 4096, "num_hidden_layers": 8, "layer_types": [SLIDING, FULL] * 4,
}


def config_of(family, tiny):
    config = FAMILIES[family] | ({key: value for key, value in TINY.items() if key in FAMILIES[family]} if tiny else {})
    return {"model_type": family, **config}


def fill(folder, mode):
    """Writes random weights for the folder's configuration, quantized to 4 bits as mlx-lm does."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    utils = importlib.import_module("mlx_lm.utils")
    config = json.loads((folder / "config.json").read_text())
    model_class, args_class = utils._get_classes(config)
    mx.random.seed(7)
    model = model_class(args_class.from_dict(config))
    model.set_dtype(mx.bfloat16)
    model, config = utils.quantize_model(model, config, gpu.GROUP if mode == "affine" else 32, 4, mode=mode)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))


def measure(given, family, models):
    config = config_of(family, given.tiny)
    given.model = f"bench/{family}"
    make = lambda part: subprocess.run([sys.executable, __file__, "--fill", part, given.mode], check=True)
    peer = gpu.Peer(gpu.place(models, family, config, config["vocab_size"], make))
    try:
        for what, length, tokens, key, which in [
            (f"{family}: decode of {given.tokens} after {given.prompt}", given.prompt, given.tokens, "decode_tokens_per_s", 1),
            (f"{family}: prefill of {given.prompt}", given.prompt, 2, "prefill_tokens_per_s", 0),
        ]:
            gpu.beside(given, peer, what, length, tokens, key, which)
    finally:
        peer.end()


def main():
    if sys.argv[1:2] == ["--fill"]:
        return fill(pathlib.Path(sys.argv[2]), sys.argv[3])
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--hivemind", default=os.environ.get("HIVEMIND"), help="the executable; otherwise that of $HIVEMIND")
    arguments.add_argument("--only", type=gpu.several(list(FAMILIES)), default=list(FAMILIES), metavar="FAMILIES", help=", ".join(FAMILIES))
    arguments.add_argument("--prompt", type=gpu.count, default=512, help="tokens")
    arguments.add_argument("--tokens", type=gpu.count, default=128, help="of the answer")
    arguments.add_argument("--pairs", type=gpu.count, default=3, help="of runs in turn; the median counts")
    arguments.add_argument("--mode", choices=["affine", "mxfp4"], default="affine", help="of the weights")
    arguments.add_argument("--tiny", action="store_true", help="tests the script")
    arguments.add_argument("--models", type=pathlib.Path, metavar="FOLDER", help="keeps the models there for another run; otherwise they are removed")
    given = arguments.parse_args()
    found = given.hivemind and shutil.which(given.hivemind)
    if not found:
        arguments.error(f"there is no executable {given.hivemind or ''}: name it with --hivemind")
    given.hivemind = str(pathlib.Path(found).resolve())
    for which in gpu.ENDS:
        signal.signal(which, gpu.told_to_end)
    with tempfile.TemporaryDirectory() as scratch:
        models = (given.models or pathlib.Path(scratch) / "hub").resolve()
        models.mkdir(parents=True, exist_ok=True)
        given.environment = {**os.environ, "HF_HUB_CACHE": str(models), "HIVEMIND_DATA_DIR": str(pathlib.Path(scratch) / "data")}
        print(f"{gpu.card()[0]}, 4 bits, {given.mode}", flush=True)
        gpu.table("one session", "HiveMind tok/s", "mlx-lm tok/s", "ratio", "pairs")
        failed = []
        for family in given.only:
            began = time.monotonic()
            try:
                measure(given, family, models)
                print(f"({family}: {time.monotonic() - began:.0f} s)", flush=True)
            except (SystemExit, subprocess.CalledProcessError) as error:
                if str(error) == gpu.TOLD:
                    raise
                failed.append(family)
                print(f"{family} cannot run: {error}", flush=True)
    if failed:
        sys.exit(f"error: no figures for {', '.join(failed)}")


if __name__ == "__main__":
    main()
