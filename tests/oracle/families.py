"""Writes families/*.json: what mlx-lm computes with tiny made-up models of the families that people run.

Each file is one family with several variants. A variant says its configuration, its tensors (whose numbers follow from
their names, see formula.py), a prompt, the twenty tokens that follow by mlx-lm, and the logits at some positions. The
Rust side is crates/hive-model/tests/families.rs. To add a variant, add it to a module in variants/.

Usage: pip install -r requirements.txt && python families.py [FAMILY …]
"""

import json
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes, load_model

import formula
from variants import FAMILIES

gather_qmm = mx.gather_qmm


def without_global_scale(*arguments, global_scale=None, **others):
    """mlx-lm 0.32.2 passes on a scale that no tensor here has, and that MLX 0.32.2 does not take."""
    assert global_scale is None
    return gather_qmm(*arguments, **others)


mx.gather_qmm = without_global_scale

PROMPT, DECODED = 50, 20
# Logits after these tokens. Some end a chunk of seven; those from 49 on decide the answer.
PICKED = [0, 6, 27, 49, 53, 60, 68]
# The two likeliest tokens are always this far apart, in shares of the largest logit, so rounding cannot swap them.
SMALLEST_GAP = 0.01
SEEDS = 300
HERE = Path(__file__).parent


def kind_of(name, array, module):
    """The kind of a tensor of mlx-lm's module, which has its initial numbers."""
    part = name.rsplit(".", 1)[-1]
    if part == "weight" and array.ndim > 1:
        columns = max(array.shape[-2:]) if "conv" in name else array.shape[-1]
        return f"float {short(2 * (3 / columns) ** 0.5)} 0"
    if "norm" in name and part == "weight":
        return f"float 0.5 {short(array[0].item())}"
    spread = {"bias": 0.5, "sinks": 2, "A_log": 2, "dt_bias": 2, "e_score_correction_bias": 0.3, "layer_scalar": 0.4}[part]
    return f"float {spread} {1 if part == 'layer_scalar' else 0}"


def uncut(config):
    """Boundaries between layers at which a model cannot be cut: a later layer uses an earlier one's keys and values."""
    text_config = config.get("text_config", config)
    shared = text_config.get("num_kv_shared_layers", 0)
    kinds = text_config.get("layer_types", [])
    own = len(kinds) - shared
    source = {kind: layer for layer, kind in enumerate(kinds[:own])} if shared else {}
    return [at for at in range(1, len(kinds)) if any(source[kind] < at for kind in kinds[max(at, own) :] if shared)]


def short(number):
    return str(np.float32(number)).removesuffix(".0")


def tensors_of(config, kinds):
    """The tensors that an MLX folder with this configuration holds: those of the module, by their names.

    A kind of "" leaves a tensor out."""
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    table = config.get("quantization")
    predicate = getattr(model, "quant_predicate", None) or (lambda path, module: True)

    def quantized(path, module):
        if not hasattr(module, "to_quantized"):
            return False
        if path in table:
            return table[path]
        return module.weight.shape[-1] % table["group_size"] == 0

    if table:
        nn.quantize(
            model, table["group_size"], table["bits"], mode=table.get("mode", "affine"), class_predicate=quantized
        )
    modules = dict(model.named_modules())
    out = []
    for name, array in sorted(tree_flatten(model.parameters())):
        path, part = name.rsplit(".", 1) if "." in name else ("", name)
        module = modules[path]
        if hasattr(module, "bits") and part in ["weight", "scales", "biases"]:
            if part == "weight" and kinds(name) != "":
                shape = [*array.shape[:-1], array.shape[-1] * 32 // module.bits]
                mode = f"affine {module.bits} {module.group_size}" if module.mode == "affine" else module.mode
                out.append([path, shape, mode])
            continue
        kind = kinds(name)
        if kind is None:
            kind = kind_of(name, array, module)
        if kind:
            out.append([name, list(array.shape), kind])
    return out


def greedy(model, prompt, count):
    """The greedy answer of this many tokens, and the logits after each token but the last."""
    cache = make_prompt_cache(model)
    rows = [*np.array(model(mx.array([prompt]), cache=cache)[0])]
    decoded = []
    while True:
        decoded.append(int(rows[-1].argmax()))
        if len(decoded) == count:
            break
        rows.append(np.array(model(mx.array([[decoded[-1]]]), cache=cache)[0, 0]))
    assert all(row.dtype == np.float32 for row in rows)
    return decoded, np.array(rows)


def run(folder, prompt):
    """The greedy answer, the logits after each token but the last, and how far a single pass is from them."""
    model, _ = load_model(folder)
    decoded, rows = greedy(model, prompt, DECODED)
    whole = np.array(model(mx.array([prompt + decoded[:-1]]))[0])
    return decoded, rows, np.abs(whole - rows).max() / np.abs(whole).max()


def answered(name, config, kinds, unused):
    """A variant whose answer is well defined, and not one token again and again, if there is such a seed."""
    tensors = tensors_of(config, kinds) + unused
    best = None
    for number in range(SEEDS):
        # With a tied embedding, a token is often followed by itself; in time, a little variety is enough.
        if best and best[0] >= max(5, 8 - number // 10):
            break
        seed = f"{config['model_type']} {name} {number}"
        prompt = [int(n) % vocabulary(config) for n in formula.numbers(seed, PROMPT)]
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "config.json").write_text(json.dumps(config))
            digest = formula.write(folder, seed, tensors)
            decoded, rows, apart = run(folder, prompt)
        answer = np.sort(np.array(rows[PROMPT - 1 :]), axis=-1)
        gap = (answer[:, -1] - answer[:, -2]).min() / np.abs(rows).max()
        distinct = len(set(decoded))
        if gap > SMALLEST_GAP and (best is None or distinct > best[0]):
            picked = {str(at): [round(float(v), 6) for v in rows[at]] for at in PICKED}
            best = distinct, {
                "name": name,
                "seed": seed,
                "config": config,
                "tensors": tensors,
                "tokens": prompt,
                "decoded": decoded,
                "logits": picked,
                "uncut": uncut(config),
                "sha256": digest,
            }, gap, apart, np.abs(rows).max()
    assert best, f"{name}: no seed of {SEEDS} separates the tokens"
    distinct, variant, gap, apart, largest = best
    print(
        f"  {name:40} {distinct:2} tokens, gap {gap:.3f}, one pass off by {apart:.1e}, largest logit {largest:.1f}, "
        f"seed {variant['seed'].rsplit(' ', 1)[1]}",
        flush=True,
    )
    return variant


def vocabulary(config):
    return config.get("vocab_size") or config["text_config"]["vocab_size"]


def text(family, variants):
    """JSON with a line for each tensor and each row of logits."""
    compact = lambda value: json.dumps(value, ensure_ascii=False)
    joined = lambda rows: ",\n".join(f"   {row}" for row in rows)
    parts = []
    for variant in variants:
        fields = [f"  {compact(k)}: {compact(variant[k])}" for k in ["name", "seed", "config", "uncut", "sha256", "tokens", "decoded"]]
        fields.append(f'  "tensors": [\n{joined(map(compact, variant["tensors"]))}\n  ]')
        logits = joined(f"{compact(at)}: {compact(row)}" for at, row in variant["logits"].items())
        fields.append(f'  "logits": {{\n{logits}\n  }}')
        parts.append(" {\n" + ",\n".join(fields) + "\n }")
    return f'{{"family": {compact(family)}, "variants": [\n' + ",\n".join(parts) + "\n]}\n"


def main(wanted):
    for family, variants in FAMILIES.items():
        if wanted and family not in wanted:
            continue
        print(family, flush=True)
        made = [answered(*variant) for variant in variants()]
        (HERE / "families" / f"{family}.json").write_text(text(family, made))


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main(sys.argv[1:])
