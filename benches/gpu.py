"""HiveMind beside mlx-lm on this machine's GPU: random 4-bit Llamas of two sizes, in turn in one run, as ratios.

It needs a GPU (or a Mac), an executable of HiveMind, and mlx-lm for the Python that runs it; nothing is downloaded. Parts:

- decode: one session on one stage, a prompt of 512 tokens, 256 tokens of answer.
- prefill: prompts of 512 and 2,048 tokens.
- stages: two stages on the one card beside one.
- batch: 1, 4, 16 and 32 sessions at once through the API, beside one, and beside mlx-lm's `BatchGenerator`.
- failover: two stages on two nodes; a worker, or a whole node, is killed at a random token. Do the tokens stay the same, and how long is the pause?
- long: 16,000 tokens; memory beside the plan's figure, and the first token of a second turn beside that of the first.

The vocabulary is made up of words of four letters, a token each, so that prompts have an exact number of tokens; there is no end token.
`--shape tiny` is a test of the script itself on any machine. Without mlx-lm, its columns stay empty.

Usage: gpu.py --hivemind EXECUTABLE --shape 1b|8b|tiny [--only decode,prefill,…] [--pairs N] [--kills N] [--models FOLDER]
"""

import argparse
import importlib
import importlib.util
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import statistics
import string
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import surviving
from many import Node, together, user

PARTS = ["decode", "prefill", "stages", "batch", "failover", "long"]
# layers, hidden, inner, heads, heads of keys and values, vocabulary; the output matrix is never the embedding
SHAPES = {
    "tiny": (4, 256, 512, 8, 4, 4096),
    "1b": (16, 2048, 8192, 32, 8, 128_256),
    "8b": (32, 4096, 14_336, 32, 8, 128_256),
}
# Lengths in tokens. The tiny model only shows that the script works.
LENGTHS = {
    "decode": (512, 256), "prefill": (512, 2048), "batch": (64, 128), "failover": (2000, 200), "long": 16_000,
}
TINY_LENGTHS = {"decode": (64, 24), "prefill": (64, 128), "batch": (16, 24), "failover": (32, 60), "long": 1000}
SESSIONS = [1, 4, 16, 32]
CONTEXT = 32_768
GROUP = 64
# A weight's deviation is then about that of a trained model.
SCALE = 0.004
# Larger, so that the next token depends on the last one: answers would repeat one token otherwise, and hide what changes them.
EMBEDDING_SCALE = 0.4
CHUNK = 1 << 24
TURN = "<|turn|>"
TEMPLATE = "{% for message in messages %}" + TURN + " {{ message['content'] }}{% endfor %}" + TURN
# Printable characters and the end of a line as byte-level vocabularies write them; words follow.
CHARACTERS = ["Ġ", *map(chr, range(33, 127)), "Ċ"]
REVISION = "0" * 40
STARTING_S, ANSWER_S = 60, 300
ENDS = [signal.SIGINT, signal.SIGTERM]
TOLD = "error: told to end"


def word(token):
    letters = []
    for _ in range(4):
        token, letter = divmod(token, 26)
        letters.append(string.ascii_lowercase[letter])
    return "".join(letters)


def prompt(count, seed, vocabulary):
    """A message that makes a prompt of `count` tokens: two of them are the marks of the turns."""
    chance = random.Random(seed)
    return " ".join(word(chance.randrange(len(CHARACTERS), vocabulary - 1)) for _ in range(count - 2))


def numbers(count, vocabulary):
    """The tokens that `hivemind bench` uses."""
    return [(100 + i * 37 % 1000) % vocabulary for i in range(count)]


# The model.


def tensors(shape):
    """Name, rows and columns of every matrix, and the name of every norm."""
    layers, hidden, inner, heads, kv_heads, vocabulary = shape
    kv = hidden // heads * kv_heads
    matrices, norms = [("model.embed_tokens", vocabulary, hidden)], ["model.norm"]
    for layer in range(layers):
        sizes = {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
        }
        matrices += [(f"model.layers.{layer}.{name}", *size) for name, size in sizes.items()]
        norms += [f"model.layers.{layer}.{name}" for name in ("input_layernorm", "post_attention_layernorm")]
    return [*matrices, ("lm_head", vocabulary, hidden)], norms


def write_weights(path, shape):
    brain = lambda value: struct.pack("<f", value)[2:]
    chance = random.Random(7)
    # The minimum of a group belongs to its scale, so both pools have the same period.
    factors = [chance.uniform(0.5, 1.5) for _ in range(1 << 16)]
    pools = lambda of: {"scales": b"".join(brain(of * factor) for factor in factors), "biases": b"".join(brain(-7.5 * of * factor) for factor in factors)}
    usual, embedding, ones = pools(SCALE), pools(EMBEDDING_SCALE), {"weight": brain(1.0)}
    matrices, norms = tensors(shape)
    listed = []
    for name, rows, columns in matrices:
        listed.append((f"{name}.weight", "U32", [rows, columns // 8]))
        listed += [(f"{name}.{part}", "BF16", [rows, columns // GROUP]) for part in usual]
    listed += [(f"{name}.weight", "BF16", [shape[1]]) for name in norms]
    header, at = {"__metadata__": {"format": "mlx"}}, 0
    for name, kind, sizes in listed:
        size = (4 if kind == "U32" else 2) * sizes[0] * (sizes[1] if len(sizes) == 2 else 1)
        header[name] = {"dtype": kind, "shape": sizes, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name, kind, _ in listed:
            start, end = header[name]["data_offsets"]
            left = end - start
            pool = ((embedding if "embed" in name else usual) | ones)[name.rsplit(".", 1)[1]]
            while left:
                # No two rows are alike: rows that repeat would tie in the choice of a token.
                piece = chance.randbytes(min(CHUNK, left)) if kind == "U32" else (pool * (CHUNK // len(pool)))[:left]
                file.write(piece)
                left -= len(piece)


def make(folder, name):
    """A cache as Hugging Face's, with the model `bench/NAME` in it. What is there already is used again."""
    shape = SHAPES[name]
    layers, hidden, inner, heads, kv_heads, vocabulary = shape
    config = {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": hidden // heads, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": False, "rope_theta": 500000.0, "quantization": {"group_size": GROUP, "bits": 4},
    }
    return place(folder, name, config, vocabulary, lambda part: write_weights(part / "model.safetensors", shape))


def place(folder, name, config, vocabulary, fill):
    """The folder of `bench/NAME` in a cache; `fill` writes the weights of a new one."""
    repository = folder / f"models--bench--{name}"
    model = repository / "snapshots" / REVISION
    if model.is_dir():
        return model
    began = time.monotonic()
    part = repository / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / "config.json").write_text(json.dumps(config))
    entries = [*CHARACTERS, *(f"Ġ{word(token)}" for token in range(len(CHARACTERS), vocabulary - 1))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": vocabulary - 1, "content": TURN, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "ignore_merges": True, "vocab": {entry: token for token, entry in enumerate(entries)}, "merges": []},
    }
    (part / "tokenizer.json").write_text(json.dumps(tokenizer))
    (part / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    fill(part)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(REVISION)
    model.parent.mkdir(exist_ok=True)
    part.rename(model)
    print(f"made a random {name} model in {time.monotonic() - began:.0f} s", flush=True)
    return model


# mlx-lm, in a process of its own that answers a line of JSON with a line.


def serve_peer(folder):
    import mlx.core as mx

    # mlx-lm 0.32.2 passes on a scale that no tensor here has, and that MLX 0.32.2 does not take.
    gather_qmm = mx.gather_qmm
    mx.gather_qmm = lambda *arguments, global_scale=None, **others: gather_qmm(*arguments, **others)
    generate = importlib.import_module("mlx_lm.generate")
    model, config = importlib.import_module("mlx_lm.utils").load_model(pathlib.Path(folder))
    vocabulary = config.get("text_config", config)["vocab_size"]

    def alone(length, tokens):
        """Tokens per second of a prompt, and of an answer."""
        started = time.perf_counter()
        times = []
        for _, _ in generate.generate_step(mx.array(numbers(length, vocabulary)), model, max_tokens=tokens):
            times.append(time.perf_counter())
        return length / (times[0] - started), (len(times) - 1) / (times[-1] - times[0]) if tokens > 1 else 0

    def batch(sessions, length, tokens):
        """Tokens per second of all sessions, from the first token to the last."""
        generator = generate.BatchGenerator(model, max_tokens=tokens, completion_batch_size=max(sessions, 8))
        chance = random.Random(sessions)
        generator.insert([[chance.randrange(vocabulary) for _ in range(length)] for _ in range(sessions)])
        times = []
        while responses := generator.next_generated():
            times += [time.perf_counter()] * len(responses)
        generator.close()
        return (len(times) - sessions) / (times[-1] - times[0])

    print(json.dumps({"device": str(mx.default_device())}), flush=True)
    for line in sys.stdin:
        what, *given = json.loads(line)
        with generate.wired_limit(model):
            result = {"alone": alone, "batch": batch}[what](*given)
        print(json.dumps(result), flush=True)


class Peer:
    """mlx-lm; where it is missing, nothing is answered."""

    def __init__(self, model):
        self.process = None
        if importlib.util.find_spec("mlx_lm") is None:
            print("mlx-lm is not installed for this Python: its columns stay empty", flush=True)
            return
        self.process = subprocess.Popen([sys.executable, __file__, "--peer", model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.device = self.line()["device"]

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: mlx-lm ended with {self.process.wait()}; what it said stands above")
        return json.loads(line)

    def ask(self, *wanted):
        if self.process is None:
            return None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        return self.line()

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()


# HiveMind.


class Machine(Node):
    """A node on loopback that finds the models of the bench only."""

    def __init__(self, executable, folder, name, environment):
        self.executable, self.folder, self.name, self.environment = executable, pathlib.Path(folder) / name, name, environment
        self.log = (pathlib.Path(folder) / f"{name}.log").open("ab")
        self.start()

    def start(self):
        (self.folder / "api.json").unlink(missing_ok=True)
        command = [self.executable, "node", "--name", self.name, "--bind", "127.0.0.1:0", "--api", "127.0.0.1:0", "--lan-only", "--data-dir", self.folder]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=self.environment)
        began = time.monotonic()
        while not (self.folder / "api.json").exists():
            if self.process.poll() is not None or time.monotonic() - began > STARTING_S:
                raise SystemExit(f"error: node {self.name} did not start:\n{pathlib.Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.02)
        self.address = json.loads((self.folder / "api.json").read_text())["address"]
        self.token = (self.folder / "api-token").read_text().strip()

    def workers(self):
        """The processes that hold its layers."""
        return [pid for pid, parent, command in processes() if parent == self.process.pid and command.startswith("hivemind-shard")]

    def end(self):
        # The second request skips the draining of answers.
        self.process.terminate()
        time.sleep(0.2)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def processes():
    """Number, parent and command line of every process."""
    if pathlib.Path("/proc/self/stat").exists():
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            stat = surviving.read(folder / "stat")
            if stat:
                command = surviving.read(folder / "cmdline").replace("\0", " ")
                yield int(folder.name), int(stat.rpartition(")")[2].split()[1]), command
        return
    for line in subprocess.run(["ps", "-Ao", "pid=,ppid=,command="], check=True, capture_output=True, text=True).stdout.splitlines():
        pid, parent, *command = line.split(None, 2)
        yield int(pid), int(parent), "".join(command)


class Answer:
    """What came of an answer, and when."""

    def __init__(self):
        self.times, self.lost, self.text, self.tokens, self.prompt_tokens, self.cached, self.error, self.stages = [], [], "", [], 0, 0, None, []


def ask(node, model, messages, tokens, stages, seed=None, at=None):
    """An answer through the API; `at` is called with the number of each token as it comes."""
    body = {
        "model": model, "messages": messages, "max_tokens": tokens, "temperature": 0 if seed is None else 0.9, "seed": seed, "stream": True,
        "stream_options": {"include_usage": True}, "hivemind": {"stages": stages},
    }
    headers = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{node.address}/v1/chat/completions", json.dumps(body).encode(), headers)
    answer = Answer()
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            for line in response:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    answer.error = chunk["error"]["message"]
                    break
                own = chunk.get("hivemind", {})
                if "status" in own:
                    answer.lost.append(time.monotonic())
                answer.tokens = own.get("tokens", answer.tokens)
                answer.stages = own.get("stages", answer.stages)
                if usage := chunk.get("usage"):
                    answer.prompt_tokens, answer.cached = usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
                piece = chunk["choices"] and chunk["choices"][0]["delta"].get("content")
                if piece:
                    answer.times.append(time.monotonic())
                    answer.text += piece
                    if at:
                        at(len(answer.times))
    except urllib.error.HTTPError as error:
        answer.error = error.read().decode(errors="replace")[:500]
    except OSError as error:
        answer.error = str(error)
    return answer


def whole(answer):
    if answer.error:
        raise SystemExit(f"error: HiveMind did not answer: {answer.error}")
    return answer


def bench(given, stages, length, tokens, repeat, *more):
    command = [given.hivemind, "bench", given.model, "--stages", str(stages), "--prompt-tokens", str(length), "--tokens", str(tokens), "--repeat", str(repeat), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, env=given.environment)
    if done.returncode:
        raise SystemExit(f"error: hivemind bench ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def nodes(given, folder, count):
    """That many nodes of one swarm."""
    all_of_them = []
    try:
        for name in "abcdefgh"[:count]:
            all_of_them.append(Machine(given.hivemind, folder, name, given.environment))
        for index, a in enumerate(all_of_them):
            for b in all_of_them[index + 1 :]:
                surviving.pair(a, b)
    except BaseException:
        for node in all_of_them:
            node.end()
        raise
    return all_of_them


# What is measured.


def row(*cells):
    print("| " + " | ".join("–" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True)


def table(*names):
    print(flush=True)
    row(*names)
    print("|" + "---|" * len(names), flush=True)


def speed(value):
    return None if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def pairs(given, of_hivemind, of_peer):
    """Medians of both sides in turn, and of the pairs' ratios, after one that does not count."""
    of_peer(), of_hivemind()
    ours, theirs, ratios = [], [], []
    for number in range(given.pairs):
        for turn in (0, 1) if number % 2 else (1, 0):
            (ours if turn else theirs).append((of_hivemind if turn else of_peer)())
        if theirs[-1] is not None:
            ratios.append(ours[-1] / theirs[-1])
    median = lambda values: statistics.median(values) if values and values[0] is not None else None
    return median(ours), median(theirs), median(ratios), f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else None


def beside(given, peer, what, length, tokens, key, which):
    theirs = lambda: (peer.ask("alone", length, tokens) or [None, None])[which]
    ours, others, ratio, spread = pairs(given, lambda: bench(given, 1, length, tokens, 3)[key], theirs)
    row(what, speed(ours), speed(others), ratio, spread)


def decode(given, peer):
    table("one session", "HiveMind tok/s", "mlx-lm tok/s", "ratio", "pairs")
    length, tokens = given.lengths["decode"]
    beside(given, peer, f"decode of {tokens} after {length}", length, tokens, "decode_tokens_per_s", 1)


def prefill(given, peer):
    table("one session", "HiveMind tok/s", "mlx-lm tok/s", "ratio", "pairs")
    for length in given.lengths["prefill"]:
        beside(given, peer, f"prefill of {length}", length, 2, "prefill_tokens_per_s", 0)


def stages(given, _peer):
    table("decode on one card", "one stage tok/s", "two stages tok/s", "ratio", "hop µs", "prefill ratio")
    length, tokens = given.lengths["decode"]
    bench(given, 2, length, 8, 1)
    result = bench(given, 1, length, tokens, 2 * given.pairs + 1, "--beside", "2")
    two = result["beside"]
    row(f"{tokens} after {length}", speed(result["decode_tokens_per_s"]), speed(two["decode_tokens_per_s"]), two["decode_ratio"], speed(two["hop_us"]), two["prefill_ratio"])


def batch(given, peer):
    table("sessions", "HiveMind tok/s", "÷ one", "mlx-lm tok/s", "÷ one", "HiveMind ÷ mlx-lm", "pairs", "first run s")
    length, tokens = given.lengths["batch"]
    vocabulary = SHAPES[given.shape][5]
    with tempfile.TemporaryDirectory() as folder:
        (node,) = nodes(given, folder, 1)
        try:
            first = whole(ask(node, given.model, user(prompt(length, 0, vocabulary)), 2, 1))
            if first.prompt_tokens != length:
                raise SystemExit(f"error: a prompt that should have {length} tokens has {first.prompt_tokens}")
            asked, ones = iter(range(1, 1 << 30)), None

            def ours(sessions):
                # No two prompts begin alike, so nothing that was read before helps.
                job = lambda seed: ask(node, given.model, user(prompt(length, seed, vocabulary)), tokens, 1)
                answers = [whole(answer) for answer in together([lambda seed=next(asked): job(seed) for _ in range(sessions)])]
                times = [moment for answer in answers for moment in answer.times]
                return sum(len(answer.tokens) - 1 for answer in answers) / (max(times) - min(times))

            for sessions in SESSIONS:
                began = time.monotonic()
                ours(sessions)
                first_s = time.monotonic() - began
                our, their, ratio, spread = pairs(given, lambda: ours(sessions), lambda: peer.ask("batch", sessions, length, tokens))
                ones = ones or (our, their)
                row(sessions, speed(our), our / ones[0], speed(their), their and their / ones[1], ratio, spread, first_s)
        finally:
            node.end()


def first_difference(a, b):
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def failover(given, _peer):
    length, tokens = given.lengths["failover"]
    vocabulary, chance = SHAPES[given.shape][5], random.Random(given.seed)
    kinds = [(kill, seed) for kill in given.kill for seed in (None, 11)]
    name = lambda kill, seed: f"{kill} killed, {'greedy' if seed is None else 'seeded'}"
    undisturbed, fresh, again, reused = {}, [0, 0], [0, 0], [0, 0]
    done = {kind: {"answers": 0, "other": [], "broken": [], "pauses": [], "after": [], "late": 0} for kind in kinds}

    def show():
        table(f"two stages, {length} tokens of prompt, {tokens} of answer", "answers", "with another token", "first other token", "broken off", "longest pause s: median, worst", "after it was noticed s: median, worst", "no loss seen")
        both = lambda values: f"{statistics.median(values):.2f}, {max(values):.2f}" if values else None
        for kind in kinds:
            of = done[kind]
            row(name(*kind), of["answers"], len(of["other"]), " ".join(map(str, sorted(of["other"]))) or None, len(of["broken"]), both(of["pauses"]), both(of["after"]), of["late"])
        row("nothing killed, asked again", again[1], again[0], *[None] * 5)
        row("nothing killed, prompt computed again", fresh[1], fresh[0], *[None] * 5)
        distinct = [len(set(tokens)) for answers in undisturbed.values() for tokens in answers]
        print(f"prompts not read again but found in memory: {reused[0]} of {reused[1]} with a kill, all of those asked again with nothing killed")
        if distinct:
            print(f"different tokens in an undisturbed answer: {min(distinct)} to {max(distinct)} of {tokens}")
        for why in sorted({why for of in done.values() for why in of["broken"]}):
            print(f"broken off: {why}")

    with tempfile.TemporaryDirectory() as folder:
        swarm = nodes(given, folder, given.nodes)
        try:
            asked = swarm[0]

            def all_of(sessions, seed, at=None):
                # Each set of sessions has prompts of its own, so that nothing was read before when they are first asked.
                question = lambda session: user(prompt(length, f"{given.seed} {sessions} {seed} {session}", vocabulary))
                job = lambda session: ask(asked, given.model, question(session), tokens, 2, None if seed is None else seed + session, at if session == 0 else None)
                return together([lambda session=session: job(session) for session in range(sessions)])

            def settle():
                """Waits until the model is on two nodes again and, where there are more, until another keeps a copy."""
                began, answer = time.monotonic(), None
                while time.monotonic() - began < ANSWER_S:
                    answer = ask(asked, given.model, user(prompt(8, 1, vocabulary)), 2, 2)
                    is_split = not answer.error and len({stage["node"] for stage in answer.stages}) == 2
                    if is_split and (given.nodes == 2 or surviving.get(asked, "/hive/v1/status")["model"]["copies"]):
                        return
                    time.sleep(0.2)
                raise SystemExit(f"error: the model does not come to two nodes{', with a copy' * (given.nodes > 2)}: {answer.error or answer.stages}")

            for number in range(given.kills):
                kill, seed = kind = kinds[number % len(kinds)]
                sessions = 1 + number // len(kinds) % 4
                settle()
                if (sessions, seed) not in undisturbed:
                    # A prompt that is found in memory is not read again, and its last row is then computed by itself, which a GPU
                    # rounds otherwise: so all but the first answers are comparable.
                    first, second, third = ([whole(answer).tokens for answer in all_of(sessions, seed)] for _ in range(3))
                    undisturbed[sessions, seed] = second
                    for counted, others in ((fresh, first), (again, third)):
                        counted[0] += sum(a != b for a, b in zip(second, others))
                        counted[1] += sessions
                moment, killed = chance.randrange(3, max(4, tokens * 4 // 5)), []

                def at(token):
                    if token == moment and not killed:
                        holders = [node for node in swarm[0 if kill == "worker" else 1 :] if node.workers()]
                        victim = chance.choice(holders) if holders else None
                        killed.append(time.monotonic())
                        for pid in (victim.workers() if kill == "worker" else [victim.process.pid]) if victim else []:
                            os.kill(pid, 9)
                        killed.append(victim)

                answers = all_of(sessions, seed, at)
                counted = done[kind]
                for session, (answer, wanted) in enumerate(zip(answers, undisturbed[sessions, seed])):
                    counted["answers"] += 1
                    reused[0] += answer.cached > 0
                    reused[1] += 1
                    if answer.error:
                        counted["broken"].append(answer.error)
                    elif answer.tokens != wanted:
                        counted["other"].append(first_difference(answer.tokens, wanted))
                    gaps = [b - a for a, b in zip(answer.times, answer.times[1:]) if killed and b > killed[0]]
                    if gaps:
                        counted["pauses"].append(max(gaps))
                    if answer.lost:
                        counted["after"] += [next((t for t in answer.times if t > lost), lost) - lost for lost in answer.lost[:1]]
                    else:
                        counted["late"] += 1
                victim = killed[1] if len(killed) == 2 else None
                if victim and victim.process.poll() is not None:
                    victim.start()
                print(f"  {number + 1}/{given.kills}: {name(*kind)} at token {moment} of {sessions} session(s): {counted['answers']} answers, {len(counted['other'])} differ, {len(counted['broken'])} broke off", flush=True)
        finally:
            for node in swarm:
                node.end()
            show()


def long(given, _peer):
    length, vocabulary = given.lengths["long"], SHAPES[given.shape][5]
    layers, hidden, _, heads, kv_heads, _ = SHAPES[given.shape]
    token_bytes = 2 * layers * kv_heads * (hidden // heads) * 2
    before = card()[1]
    with tempfile.TemporaryDirectory() as folder:
        (node,) = nodes(given, folder, 1)
        try:
            # Kernels for long prompts are compiled before.
            whole(ask(node, given.model, user(prompt(length, 1, vocabulary)), 16, 1))
            after_one = card()[1]
            turns = user(prompt(length, 3, vocabulary))
            started = time.monotonic()
            first = whole(ask(node, given.model, turns, 16, 1))
            first_s = first.times[0] - started
            after_two = card()[1]
            turns += [{"role": "assistant", "content": first.text.strip()}, *user(prompt(34, 4, vocabulary))]
            started = time.monotonic()
            second = whole(ask(node, given.model, turns, 16, 1))
            second_s = second.times[0] - started
            plan = surviving.get(node, f"/hive/v1/plan?model={given.model}&stages=1")
            resident = sum(surviving.resident(pid) for pid in node.workers()) * (1 << 20)
            held, asked = 0, time.monotonic()
            # What a node says of itself lags behind by some seconds.
            while not held and time.monotonic() - asked < 20:
                time.sleep(0.2)
                held = surviving.get(node, "/hive/v1/status")["profile"]["held_bytes"]
        finally:
            node.end()
    sums = {part: sum(stage.get(part) or 0 for stage in plan["stages"]) for part in ("weight_bytes", "kv_bytes", "base_bytes")}
    planned, needed = sum(sums.values()), sums["weight_bytes"] + sums["base_bytes"] + length * token_bytes
    table("long", "tokens", "of them not read again", "first token s", "prefill tok/s")
    row("first turn", first.prompt_tokens, first.cached, first_s, speed(first.prompt_tokens / first_s))
    row("second turn", second.prompt_tokens, second.cached, second_s, None)
    row("second ÷ first", None, None, f"{second_s / first_s:.3f}", None)
    table("memory", "MB", "÷ planned", "÷ weights, other and this conversation")
    taken = lambda what, value, of: row(what, f"{value / 1e6:,.0f}" if value else None, value / planned if value else None, value / of if value else None)
    taken(f"planned, for a conversation of {sums['kv_bytes'] // token_bytes:,} tokens", planned, needed)
    taken(f"weights, other and {length:,} tokens", needed, needed)
    taken("held, as the node counts", held, needed)
    taken("taken on the card after one such prompt", None if after_one is None else after_one - before, needed)
    taken("taken on the card after two", None if after_two is None else after_two - before, needed + length * token_bytes)
    taken("resident in the worker after two", resident, needed + length * token_bytes)


def card():
    """The name of what computes, and the bytes in use on it where that can be asked."""
    try:
        asked = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.used", "--format=csv,noheader,nounits"], check=True, capture_output=True, text=True)
        name, used = asked.stdout.splitlines()[0].rsplit(",", 1)
        return name.strip(), int(used) << 20
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        pass
    for file in pathlib.Path("/proc/driver/nvidia/gpus").glob("*/information"):
        return next((line.split(":", 1)[1].strip() for line in surviving.read(file).splitlines() if line.startswith("Model:")), "an NVIDIA card"), None
    if sys.platform == "darwin":
        return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True).stdout.strip(), None
    names = [line.split(":", 1)[1].strip() for line in surviving.read(pathlib.Path("/proc/cpuinfo")).splitlines() if line.startswith("model name")]
    return f"no GPU, {(names or [platform.machine()])[0]}", None


def told_to_end(*_):
    """Ends as an error does, so that an end by `timeout` or Ctrl-C cleans up as well; a second signal does not stop that."""
    for which in ENDS:
        signal.signal(which, signal.SIG_IGN)
    sys.exit(TOLD)


def several(choices):
    def read(text):
        chosen = [part.strip() for part in text.split(",") if part.strip()]
        for part in chosen:
            if part not in choices:
                raise argparse.ArgumentTypeError(f"there is no \"{part}\"; there are {', '.join(choices)}")
        return chosen or choices

    return read


def count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"\"{text}\" is not a number of 1 or more")
    return int(text)


def main():
    if sys.argv[1:2] == ["--peer"]:
        return serve_peer(sys.argv[2])
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--hivemind", default=os.environ.get("HIVEMIND"), help="the executable; otherwise that of $HIVEMIND")
    arguments.add_argument("--shape", choices=SHAPES, default="1b")
    arguments.add_argument("--only", type=several(PARTS), default=PARTS, metavar="PARTS", help=", ".join(PARTS))
    arguments.add_argument("--pairs", type=count, default=5, help="of runs in turn; the median counts")
    arguments.add_argument("--kills", type=count, default=16, help="of workers and nodes")
    arguments.add_argument("--kill", type=several(["worker", "node"]), default=["worker", "node"])
    arguments.add_argument("--nodes", type=count, default=2, help="for failover: more than two leave room for copies")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--models", type=pathlib.Path, metavar="FOLDER", help="keeps the models there for another run; otherwise they are removed")
    given = arguments.parse_args()
    found = given.hivemind and shutil.which(given.hivemind)
    if not found:
        arguments.error(f"there is no executable {given.hivemind or ''}: name it with --hivemind")
    if not 2 <= given.nodes <= 8:
        arguments.error("failover takes 2 to 8 nodes")
    name = card()[0]
    if name.startswith("no GPU") and given.shape != "tiny":
        arguments.error(f"this machine has no GPU ({name}); --shape tiny works without one")
    given.hivemind, given.model = str(pathlib.Path(found).resolve()), f"bench/{given.shape}"
    given.lengths = TINY_LENGTHS if given.shape == "tiny" else LENGTHS
    for which in ENDS:
        signal.signal(which, told_to_end)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        models = (given.models or pathlib.Path(scratch) / "hub").resolve()
        models.mkdir(parents=True, exist_ok=True)
        # On a CPU, `bench` computes with MLX's own kernels, as mlx-lm does.
        plain = {"HIVEMIND_COMPUTE": "plain"} if name.startswith("no GPU") else {}
        given.environment = {**plain, **os.environ, "HF_HUB_CACHE": str(models), "HIVEMIND_DATA_DIR": str(pathlib.Path(scratch) / "data")}
        model = make(models, given.shape)
        peer = Peer(model) if {"decode", "prefill", "batch"} & set(given.only) else None
        try:
            print(f"{name}, {given.shape} shape, 4 bits" + (f", mlx-lm on {peer.device}" if peer and peer.process else ""), flush=True)
            for part in given.only:
                since = time.monotonic()
                {"decode": decode, "prefill": prefill, "stages": stages, "batch": batch, "failover": failover, "long": long}[part](given, peer)
                print(f"({part}: {time.monotonic() - since:.0f} s, {time.monotonic() - began:.0f} s in all)", flush=True)
        finally:
            if peer:
                peer.end()


if __name__ == "__main__":
    main()
