"""What the oracles have in common: where their data lies, and how the executable under test is asked."""

import json
import os
import pathlib
import queue
import subprocess
import threading

HERE = pathlib.Path(__file__).resolve().parent


def cache():
    """The same folder as `./dev` uses."""
    if folder := os.environ.get("HIVEMIND_CACHE_DIR"):
        return pathlib.Path(folder)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "hivemind"


FOLDER = cache() / "oracles"
TEMPLATES = FOLDER / "templates"
TOKENIZERS = FOLDER / "tokenizers"


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            # Escapes keep each row on one line for whoever reads lines by Unicode's rules.
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


def ask(executable, requests, patience_seconds=60):
    """The answer to each request, in order: `{"text"|"ids": …}` or `{"error": …}`.

    An executable that ends or hangs costs the request at hand an error; another one continues with the next.
    """
    answers, barren = [], 0
    while len(answers) < len(requests):
        process = subprocess.Popen([executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        rest, before = requests[len(answers) :], len(answers)
        lines = queue.SimpleQueue()
        threading.Thread(target=_feed, args=(process, rest), daemon=True).start()
        threading.Thread(target=_drain, args=(process, lines), daemon=True).start()
        for _ in rest:
            try:
                line = lines.get(timeout=patience_seconds)
            except queue.Empty:
                line = None
                why = f"no answer within {patience_seconds} s"
            else:
                why = "it ended without an answer"
            if line is None:
                answers.append({"error": why})
                break
            try:
                answers.append(json.loads(line))
            except ValueError:
                answers.append({"error": f"not a line of JSON: {line[:200]!r}"})
        process.kill()
        process.wait()
        barren = 0 if len(answers) > before + 1 or "error" not in answers[-1] else barren + 1
        if barren == 10:
            raise SystemExit(f"error: {executable} does not answer: {answers[-1]['error']}")
    return answers


def _feed(process, requests):
    try:
        for request in requests:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        process.stdin.close()
    except OSError:
        pass  # It ended; whoever waits for its answers sees that.


def _drain(process, lines):
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def first_difference(theirs, ours, width=60):
    """Where two texts part, with what comes before and after in each."""
    at = next((n for n, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
    start = max(0, at - width // 2)
    return f"at {at}: theirs …{theirs[start : at + width]!r}\n        ours   …{ours[start : at + width]!r}"
