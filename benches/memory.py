"""What a stage takes in memory, beside its file and what was planned for it: a random Llama of 1.17 billion weights as Q4_0, Q4_1 and 4-bit MLX.

`make` writes the three models (TinyLlama's shape, the starter's tokenizer; 2 GB in all). `measure` has each executable read a
prompt and answer with each model, in turn, and looks at the worker while it does. The peak is the most that was resident, pages of
files included; what is held is the worker's own memory, without them, while it answers.

Usage: memory.py make STARTER.gguf FOLDER
       memory.py measure FOLDER EXECUTABLE [EXECUTABLE…] [--threads N] [--rounds N] [--prompt-tokens N] [--tokens N]
"""

import argparse
import json
import pathlib
import random
import statistics
import struct
import subprocess
import threading
import time

LAYERS, HIDDEN, INNER, HEADS, KV_HEADS = 22, 2048, 5632, 32, 4
HEAD = HIDDEN // HEADS
MATRICES = [
    ("attn_q", "self_attn.q_proj", HIDDEN, HIDDEN),
    ("attn_k", "self_attn.k_proj", KV_HEADS * HEAD, HIDDEN),
    ("attn_v", "self_attn.v_proj", KV_HEADS * HEAD, HIDDEN),
    ("attn_output", "self_attn.o_proj", HIDDEN, HIDDEN),
    ("ffn_gate", "mlp.gate_proj", INNER, HIDDEN),
    ("ffn_up", "mlp.up_proj", INNER, HIDDEN),
    ("ffn_down", "mlp.down_proj", HIDDEN, INNER),
]
NORMS = [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")]
# A weight's deviation is then about that of a trained model.
SCALE = 0.004
FIXED = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def read_metadata(path):
    """The key-value part of a GGUF file: {key: (type, value)}; an array is (element type, [values])."""
    data, at = path.read_bytes(), 8

    def take(layout):
        nonlocal at
        (value,) = struct.unpack_from(layout, data, at)
        at += struct.calcsize(layout)
        return value

    def text():
        nonlocal at
        length = take("<Q")
        at += length
        return data[at - length : at]

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            of, count = take("<I"), take("<Q")
            return of, [value(of) for _ in range(count)]
        return take(FIXED[kind])

    _, count = take("<Q"), take("<Q")
    pairs = {}
    for _ in range(count):
        key, kind = text().decode(), take("<I")
        pairs[key] = (kind, value(kind))
    return pairs


def metadata_bytes(pairs):
    def text(value):
        return struct.pack("<Q", len(value)) + value

    def one(kind, value):
        if kind == 8:
            return text(value)
        if kind == 9:
            of, values = value
            return struct.pack("<IQ", of, len(values)) + b"".join(one(of, v) for v in values)
        return struct.pack(FIXED[kind], value)

    return b"".join(text(key.encode()) + struct.pack("<I", kind) + one(kind, value) for key, (kind, value) in pairs.items())


def repeated(pool, count):
    """`count` bytes of a pool, from one place of it on and around."""
    start = random.randrange(len(pool) // 64) * 64
    turned = pool[start:] + pool[:start]
    return (turned * (count // len(pool) + 1))[:count]


def half(value):
    return struct.pack("<e", value)


def blocks(kind):
    """Some random blocks of 32 weights."""
    scales = [SCALE * random.uniform(0.5, 1.5) for _ in range(1 << 14)]
    minimum = (lambda scale: half(-7.5 * scale)) if kind == "q4_1" else lambda scale: b""
    return b"".join(half(scale) + minimum(scale) + random.randbytes(16) for scale in scales)


def write_gguf(to, kind, starter):
    pairs = dict(starter)
    for key, value in [
        ("block_count", LAYERS), ("context_length", 8192), ("embedding_length", HIDDEN), ("feed_forward_length", INNER),
        ("attention.head_count", HEADS), ("attention.head_count_kv", KV_HEADS), ("rope.dimension_count", HEAD), ("vocab_size", vocabulary(starter)),
    ]:
        pairs[f"llama.{key}"] = (4, value)
    pairs["general.name"] = (8, b"Random 1.1B")
    number, block = {"q4_0": (2, 18), "q4_1": (3, 20)}[kind]
    pool = blocks(kind)
    tensors = []
    for layer in range(LAYERS):
        tensors += [(f"blk.{layer}.{name}.weight", (columns, rows), number) for name, _, rows, columns in MATRICES]
        tensors += [(f"blk.{layer}.{name}.weight", (HIDDEN,), 0) for name, _ in NORMS]
    tensors += [(f"{name}.weight", (HIDDEN, vocabulary(starter)), number) for name in ("token_embd", "output")]
    tensors.append(("output_norm.weight", (HIDDEN,), 0))
    infos, at, sizes = b"", 0, []
    for name, dims, type_number in tensors:
        elements = dims[0] * (dims[1] if len(dims) == 2 else 1)
        size = elements // 32 * block if type_number else elements * 4
        name = name.encode()
        infos += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", type_number, at)
        sizes.append(size)
        at += size + -size % 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + metadata_bytes(pairs) + infos
    ones = struct.pack("<f", 1.0) * HIDDEN
    with to.open("wb") as file:
        file.write(head + bytes(-len(head) % 32))
        for (_, _, type_number), size in zip(tensors, sizes):
            # Whole blocks, wherever the pool begins.
            file.write((pool * (size // len(pool) + 1))[:size] if type_number else ones)
            file.write(bytes(-size % 32))


def vocabulary(starter):
    return len(starter["tokenizer.ggml.tokens"][1][1])


def write_mlx(to, starter):
    to.mkdir(exist_ok=True)
    words = random.randbytes(1 << 20)
    scales = [SCALE * random.uniform(0.5, 1.5) for _ in range(1 << 16)]
    brain = lambda value: struct.pack("<f", value)[2:]
    scale_pool, bias_pool = b"".join(map(brain, scales)), b"".join(brain(-7.5 * scale) for scale in scales)
    tensors = {}
    matrices = [(f"model.layers.{layer}.{name}", rows, columns) for layer in range(LAYERS) for _, name, rows, columns in MATRICES]
    matrices += [(name, vocabulary(starter), HIDDEN) for name in ("model.embed_tokens", "lm_head")]
    for name, rows, columns in matrices:
        tensors[f"{name}.weight"] = ("U32", [rows, columns // 8], words)
        tensors[f"{name}.scales"] = ("BF16", [rows, columns // 64], scale_pool)
        tensors[f"{name}.biases"] = ("BF16", [rows, columns // 64], bias_pool)
    for name in [f"model.layers.{layer}.{name}" for layer in range(LAYERS) for _, name in NORMS] + ["model.norm"]:
        tensors[f"{name}.weight"] = ("BF16", [HIDDEN], brain(1.0) * HIDDEN)
    header, at = {}, 0
    for name, (kind, shape, _) in tensors.items():
        size = (4 if kind == "U32" else 2) * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (to / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, (kind, _, pool) in tensors.items():
            start, end = header[name]["data_offsets"]
            file.write(repeated(pool, end - start) if kind == "U32" else (pool * ((end - start) // len(pool) + 1))[: end - start])
    config = {
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": vocabulary(starter), "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192, "tie_word_embeddings": False, "rope_theta": 10000.0, "quantization": {"group_size": 64, "bits": 4},
    }
    (to / "config.json").write_text(json.dumps(config))
    tokens = [token.decode() for token in starter["tokenizer.ggml.tokens"][1][1]]
    kinds = starter["tokenizer.ggml.token_type"][1][1]
    special = [{"id": n, "content": token, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False} for n, (token, kind) in enumerate(zip(tokens, kinds)) if kind == 3]
    merges = [merge.decode() for merge in starter["tokenizer.ggml.merges"][1][1]]
    split = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]
    tokenizer = {
        "version": "1.0", "added_tokens": special, "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {token: n for n, token in enumerate(tokens)}, "merges": merges},
    }
    (to / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = starter["tokenizer.chat_template"][1].decode()
    (to / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}))


def make(starter, folder):
    random.seed(7)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = read_metadata(starter)
    for kind in ("q4_0", "q4_1"):
        write_gguf(folder / f"{kind}.gguf", kind, pairs)
    write_mlx(folder / "mlx4", pairs)


def figures(process):
    """Bytes, by name, of a process's status."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}


def workers(parent):
    """The processes below one that hold layers."""
    try:
        children = [int(child) for task in pathlib.Path(f"/proc/{parent}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        try:
            if pathlib.Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"hivemind-shard"):
                yield child
        except OSError:
            pass
        yield from workers(child)


def watched(command):
    """What a command says as JSON, and of its worker: most resident, most of its own, and its own share at the end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    most = {"peak": 0, "held": 0, "share": 0}

    def watch():
        while process.poll() is None:
            for worker in workers(process.pid):
                try:
                    now = figures(worker)
                    shares = pathlib.Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
                    share = next(int(line.split()[1]) * 1024 for line in shares if line.startswith("Pss:"))
                except (OSError, StopIteration):
                    continue
                most["peak"] = max(most["peak"], now.get("VmHWM", 0))
                most["held"] = max(most["held"], now.get("RssAnon", 0) + now.get("RssShmem", 0))
                most["share"] = share
            time.sleep(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    output = process.stdout.read()
    process.wait()
    watching.join()
    return json.loads(output), most


def size_of(model):
    files = [model] if model.is_file() else model.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def measure(folder, executables, threads, rounds, prompt, tokens):
    megabytes = lambda value: f"{value / 1e6:.0f}"
    print("| model | executable | file | cache | planned | held | peak | share | peak / (file + cache) | prompt tok/s | answer tok/s |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for model in (folder / "q4_0.gguf", folder / "q4_1.gguf", folder / "mlx4"):
        rows = {executable: [] for executable in executables}
        for number in range(rounds):
            for executable in executables if number % 2 == 0 else reversed(executables):
                command = [executable, "bench", model, "--threads", str(threads), "--prompt-tokens", str(prompt), "--tokens", str(tokens), "--repeat", "1", "--json"]
                rows[executable].append(watched(command))
        for executable, runs in rows.items():
            plan = json.loads(subprocess.run([executable, "plan", model, "--json"], check=True, capture_output=True).stdout)
            planned = sum(stage["weight_bytes"] + stage["kv_bytes"] + stage.get("base_bytes", 0) for stage in plan["stages"])
            median = lambda of: statistics.median(of(run) for run in runs)
            cache = median(lambda run: run[0]["stages"][0]["kv_bytes"])
            peak, file = max(run[1]["peak"] for run in runs), size_of(model)
            held = max(run[1]["held"] for run in runs)
            cells = [
                model.stem, pathlib.Path(executable).name, megabytes(file), megabytes(cache), megabytes(planned), megabytes(held), megabytes(peak),
                megabytes(max(run[1]["share"] for run in runs)), f"{peak / (file + cache):.3f}",
                f"{median(lambda run: run[0]['prefill_tokens_per_s']):.1f}", f"{median(lambda run: run[0]['decode_tokens_per_s']):.2f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


def main():
    arguments = argparse.ArgumentParser()
    commands = arguments.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("starter", type=pathlib.Path)
    making.add_argument("folder", type=pathlib.Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("folder", type=lambda path: pathlib.Path(path).resolve())
    measuring.add_argument("executables", nargs="+", type=lambda path: str(pathlib.Path(path).resolve()))
    measuring.add_argument("--threads", type=int, default=2)
    measuring.add_argument("--rounds", type=int, default=3)
    measuring.add_argument("--prompt-tokens", type=int, default=1000)
    measuring.add_argument("--tokens", type=int, default=32)
    arguments = arguments.parse_args()
    if arguments.command == "make":
        make(arguments.starter, arguments.folder)
    else:
        measure(arguments.folder, arguments.executables, arguments.threads, arguments.rounds, arguments.prompt_tokens, arguments.tokens)


if __name__ == "__main__":
    main()
