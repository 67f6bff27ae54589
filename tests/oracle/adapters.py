"""Writes adapters.json: what mlx-lm computes with LoRA adapters on some of the tiny models of families.py.

A variant says its model as those in families/ do. It also has adapter_config.json as mlx-lm writes it, the tensors of
adapters.safetensors (by the same formula, with the model's seed), a prompt, and the eight tokens that follow and the
logits at some positions, once without the adapter and once with it. To add a variant, add it to ADAPTED.

Usage: pip install -r requirements.txt && python adapters.py
"""

import json
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.lora import CONFIG_DEFAULTS
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model, save_config

import formula
from families import HERE, SEEDS, SMALLEST_GAP, greedy, short, tensors_of, uncut, vocabulary
from variants import FAMILIES

PROMPT, DECODED = 30, 8
# Logits after these tokens. The first two end a chunk of seven; those from 29 on decide the answer.
PICKED = [6, 27, 29, 33, 36]
# In shares of the largest logit: what the adapter changes at least, and what each of its matrices does by itself.
SMALLEST_CHANGE, SMALLEST_PART = 0.1, 0.005

LATENT = [f"self_attn.{part}" for part in ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"]]
DENSE = [f"mlp.{part}" for part in ["gate_proj", "up_proj", "down_proj"]]
# Family, variant, what differs in its configuration, how many of the last layers are adapted, and how. Without keys,
# mlx-lm adapts every linear layer.
ADAPTED = [
    ("llama", "heads wider than the hidden state", {}, 3, {"rank": 6, "scale": 2.5}),
    ("llama", "biases everywhere", {"intermediate_size": 100, "vocab_size": 61}, 2, {"rank": 5, "scale": 2.5}),
    ("qwen3", "4 bit, tied", {}, 2, {"rank": 10, "scale": 20.0, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}),
    ("qwen3_5", "unquantized", {}, 3, {"rank": 6, "scale": 2.5}),
    ("phi3", "unquantized", {}, 2, {"rank": 6, "scale": 2.5}),
    # Two layers are dense. In the others, these keys leave the experts as they are.
    ("deepseek_v3", "two of four groups, five layers", {}, 4, {"rank": 6, "scale": 2.5, "keys": LATENT + DENSE}),
]


def adapter_config(family, layers, parameters):
    """The adapter_config.json of `mlx_lm.lora`: all of its arguments."""
    lora = {"lora_parameters": {"dropout": 0.0} | parameters}
    return CONFIG_DEFAULTS | {"model": family, "train": True, "num_layers": layers} | lora


def adapter_tensors(model, config):
    """The tensors that mlx-lm trains and saves. What they add is about half as large as what is there."""
    model.freeze()
    parameters = config["lora_parameters"]
    linear_to_lora_layers(model, config["num_layers"], parameters)
    size = {"lora_a": 1, "lora_b": 0.5 / parameters["scale"]}
    for name, array in sorted(tree_flatten(model.trainable_parameters())):
        rows = array.shape[0]
        yield [name, list(array.shape), f"float {short(2 * size[name.rsplit('.', 1)[-1]] * (3 / rows) ** 0.5)} 0"]


def write_adapter(folder, seed, config, tensors):
    folder.mkdir()
    save_config(dict(config), folder / "adapter_config.json")
    digest = formula.write(folder, seed, tensors)
    (folder / "model.safetensors").rename(folder / "adapters.safetensors")
    return digest


def gap(rows):
    """How far the two likeliest tokens of the answer are apart, in shares of the largest logit."""
    answer = np.sort(rows[PROMPT - 1 :], axis=-1)
    return (answer[:, -1] - answer[:, -2]).min() / np.abs(rows).max()


def smallest_part(model, tokens, rows):
    """What the adapted matrix changes that changes least."""
    changes = []
    for _, module in model.named_modules():
        if "lora_b" in module:
            kept, module.lora_b = module.lora_b, mx.zeros_like(module.lora_b)
            without = np.array(model(mx.array([tokens]))[0])
            module.lora_b = kept
            changes.append(np.abs(without - rows)[PICKED].max() / np.abs(rows).max())
    return min(changes)


def answered(family, name, changes, layers, parameters):
    """A variant whose answers are well defined, varied and not the same, if there is such a seed."""
    _, config, kinds, unused = next(variant for variant in FAMILIES[family]() if variant[0] == name)
    config |= changes
    tensors = tensors_of(config, kinds) + unused
    lora = adapter_config(family, layers, parameters)
    for number in range(SEEDS):
        seed = f"{config['model_type']} {name} adapted {number}"
        prompt = [int(n) % vocabulary(config) for n in formula.numbers(seed, PROMPT)]
        with tempfile.TemporaryDirectory() as folder:
            folder, adapter = Path(folder), Path(folder) / "adapters"
            (folder / "config.json").write_text(json.dumps(config))
            digest = formula.write(folder, seed, tensors)
            parts = [*adapter_tensors(load_model(folder)[0], lora)]
            part_digest = write_adapter(adapter, seed, lora, parts)
            written = json.loads((adapter / "adapter_config.json").read_text())
            model, _ = load_model(folder)
            plain, plain_rows = greedy(model, prompt, DECODED)
            adapted, rows = greedy(load_adapters(model, str(adapter)).eval(), prompt, DECODED)
        smallest_gap = min(gap(plain_rows), gap(rows))
        change = np.abs(plain_rows - rows)[PROMPT - 1].max() / np.abs(plain_rows).max()
        varied = plain[0] != adapted[0] and min(len(set(plain)), len(set(adapted))) > 3
        if varied and smallest_gap > SMALLEST_GAP and change > SMALLEST_CHANGE:
            part = smallest_part(model, prompt + adapted[:-1], rows)
            if part > SMALLEST_PART:
                break
    else:
        raise AssertionError(f"{name}: no seed of {SEEDS} has such answers")
    print(
        f"{family:12} {name:34} gap {smallest_gap:.3f}, changed by {change:.2f}, by a matrix {part:.3f}, seed {number}",
        flush=True,
    )
    return {
        "family": family,
        "name": name,
        "seed": seed,
        "config": config,
        "uncut": uncut(config),
        "sha256": digest,
        "tokens": prompt,
        "tensors": tensors,
        "adapter": {"config": written, "sha256": part_digest, "tensors": parts},
        "without": answer(plain, plain_rows),
        "with": answer(adapted, rows),
    }


def answer(decoded, rows):
    return {"decoded": decoded, "logits": {str(at): [round(float(v), 6) for v in rows[at]] for at in PICKED}}


def text(value, key="variant", depth=0):
    """JSON with a line for each field of a variant, each tensor and each row of logits."""
    if key not in ["variants", "variant", "tensors", "adapter", "without", "with", "logits"]:
        return json.dumps(value)
    if isinstance(value, dict):
        (opens, closes), parts = "{}", [f"{json.dumps(k)}: {text(v, k, depth + 1)}" for k, v in value.items()]
    else:
        (opens, closes), parts = "[]", [text(v, key.removesuffix("s"), depth + 1) for v in value]
    indent = "\n" + " " * depth
    return opens + ",".join(f"{indent} {part}" for part in parts) + indent + closes


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    made = {"variants": [answered(*variant) for variant in ADAPTED]}
    (HERE / "adapters.json").write_text(text(made) + "\n")
