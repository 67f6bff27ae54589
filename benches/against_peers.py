"""HiveMind beside mlx-lm and llama.cpp: the same model, the same machine, the same run.

The peers take turns, so that a noisy machine is noisy to all of them, and the median of the rounds counts.

Usage: ./dev build && ./dev setup
       python3 -m venv VENV && VENV/bin/pip install "mlx[cpu]==0.32.2" mlx-lm==0.32.2 llama-cpp-python
       VENV/bin/python tests/oracle/starter_folder.py MODEL.gguf FOLDER
       VENV/bin/python benches/against_peers.py --hivemind EXECUTABLE --gguf MODEL.gguf --folder FOLDER
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# Any tokens do; these are the ones `hivemind bench` uses.
PROMPT = [100 + i * 37 % 1000 for i in range(512)]
SHORT = 64
ANSWER = 64


def llama_cpp(gguf, threads):
    from llama_cpp import Llama

    model = Llama(gguf, n_threads=threads, n_threads_batch=threads, n_ctx=1024, n_batch=512, verbose=False)
    model.eval(PROMPT[:16])
    model.reset()
    start = time.perf_counter()
    model.eval(PROMPT)
    prompt_done = time.perf_counter()
    for token in range(ANSWER):
        model.eval([100 + token])
    end = time.perf_counter()
    return len(PROMPT) / (prompt_done - start), ANSWER / (end - prompt_done)


def mlx_lm(folder, _threads):
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.models.cache import make_prompt_cache

    model, _ = load(folder)
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([PROMPT[:4]]), cache=cache))
    cache = make_prompt_cache(model)
    start = time.perf_counter()
    logits = model(mx.array([PROMPT[:SHORT]]), cache=cache)[:, -1]
    mx.eval(logits)
    prompt_done = time.perf_counter()
    for _ in range(16):
        token = mx.argmax(logits, axis=-1)
        logits = model(token[None], cache=cache)[:, -1]
        mx.eval(logits)
    end = time.perf_counter()
    return SHORT / (prompt_done - start), 16 / (end - prompt_done)


def hivemind(executable, gguf, threads, stages=1, compute="fast", prompt=len(PROMPT), answer=ANSWER):
    command = [executable, "bench", gguf, "--json", "--repeat", "1", "--threads", str(threads), "--stages", str(stages)]
    command += ["--compute", compute, "--prompt-tokens", str(prompt), "--tokens", str(answer)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result["prefill_tokens_per_s"], result["decode_tokens_per_s"]


def beside(executable, gguf, threads, stages, others):
    """How fast an answer is on `others` stages beside `stages`, in turn in one run, and that run's hop and round trip."""
    command = [executable, "bench", gguf, "--json", "--repeat", "7", "--threads", str(threads), "--stages", str(stages)]
    command += ["--beside", str(others), "--compute", "fast", "--prompt-tokens", "128", "--tokens", "128"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    split = result if stages == 2 else result["beside"]
    return result["beside"]["decode_ratio"], split["hop_us"], split["link_round_trip_us"]


def peer(name, argument, threads):
    """A peer in a process of its own, held to as many cores as threads."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r}); import against_peers as b; import json; print(json.dumps(b.{name}({argument!r}, {threads})))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return tuple(json.loads(out.splitlines()[-1]))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--hivemind", required=True)
    arguments.add_argument("--gguf", required=True)
    arguments.add_argument("--folder", required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments = arguments.parse_args()
    h, gguf = arguments.hivemind, arguments.gguf
    for threads in [1, 2]:
        rounds = {}
        for _ in range(arguments.rounds):
            for name, run in {
                "llama.cpp": lambda: peer("llama_cpp", gguf, threads),
                "mlx-lm": lambda: peer("mlx_lm", arguments.folder, threads),
                "plain": lambda: hivemind(h, gguf, threads, compute="plain", prompt=SHORT, answer=17),
                "fast": lambda: hivemind(h, gguf, threads),
                "fast, 2 stages": lambda: hivemind(h, gguf, threads, stages=2),
            }.items():
                rounds.setdefault(name, []).append(run())
        print(f"\n{threads} thread{'s' if threads > 1 else ''}        prefill tok/s   decode tok/s")
        median = {}
        for name, results in rounds.items():
            median[name] = [statistics.median(r[i] for r in results) for i in range(2)]
            print(f"{name:15} {median[name][0]:12.1f} {median[name][1]:14.1f}")
        ratio = lambda a, b, i: median[a][i] / median[b][i]
        print(f"plain / mlx-lm    {ratio('plain', 'mlx-lm', 0):10.2f} {ratio('plain', 'mlx-lm', 1):14.2f}")
        print(f"fast / mlx-lm     {ratio('fast', 'mlx-lm', 0):10.2f} {ratio('fast', 'mlx-lm', 1):14.2f}")
        print(f"fast / llama.cpp  {ratio('fast', 'llama.cpp', 0):10.2f} {ratio('fast', 'llama.cpp', 1):14.2f}")
        # Started in both orders: where a process comes to lie in memory makes it a few hundredths faster or slower.
        splits, pairs = [], []
        for round in range(2 * arguments.rounds):
            split = beside(h, gguf, threads, *((1, 2) if round % 2 == 0 else (2, 1)))
            splits.append(split)
            pairs.append(split[0] if round % 2 == 0 else 1 / split[0])
        print(f"2 stages / 1 stage, decode: {statistics.median(pairs):.3f} (runs: {' '.join(f'{p:.2f}' for p in pairs)})")
        hops, link = statistics.median(s[1] for s in splits), statistics.median(s[2] for s in splits)
        print(f"a hop costs {hops:.0f} µs per stage and token; the link's round trip is {link:.0f} µs", flush=True)


if __name__ == "__main__":
    main()
