"""How fast a machine gets a model from another one, what that costs the other's answers, and how soon the model is ready.

Two nodes on loopback. The first has a random Llama of 1.1 billion weights (Q4_1, 0.8 GB); the second has nothing, and is to
compute all of its layers. The time of the copy is that of loading the model there the first time, less that of loading it again
when it is on the disk. Beside it, in the same round: one TCP connection that carries as many bytes from a file into another;
reading the file; and an answer of the first node from its own model, alone and while it sends.

Usage: copying.py EXECUTABLE STARTER.gguf [--rounds N]
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import tempfile
import threading
import time

import memory
import surviving
from many import Node, user

STORY = "Write a very long story about bees."
CHUNK = 1 << 20


def size(path):
    return path.stat().st_size


def over_tcp(path, to):
    """Seconds for a file to become another one through a socket on loopback, on the disk at the end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def send():
        with socket.create_connection(listener.getsockname()) as line, path.open("rb") as file:
            line.sendfile(file)

    sending = threading.Thread(target=send)
    started = time.monotonic()
    sending.start()
    line, _ = listener.accept()
    with line, to.open("wb") as file:
        while piece := line.recv(CHUNK):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    sending.join()
    listener.close()
    seconds = time.monotonic() - started
    to.unlink()
    return seconds


def read_through(path):
    started = time.monotonic()
    with path.open("rb", buffering=0) as file:
        while file.read(CHUNK):
            pass
    return time.monotonic() - started


def start(executable, folder, name):
    os.environ["HF_HUB_CACHE"] = str(pathlib.Path(folder) / f"hub-{name}")
    node = Node(executable, folder, name, "0-1")
    node.name = name
    return node


class Load:
    """A load of the model on the second node; `fetched` is when its last byte has come, and `worker_peak` the most that a worker of it had resident."""

    def __init__(self, asker, holder, model, plan):
        self.asker, self.holder, self.fetched, self.worker_peak, self.over = asker, holder, None, 0, False
        self.began = time.monotonic()
        watching = threading.Thread(target=self.watch)
        watching.start()
        try:
            asker.run("models", "load", str(model), "--plan", str(plan))
        finally:
            self.ready = time.monotonic()
            self.over = True
            watching.join()
        self.seconds = self.ready - self.began

    def watch(self):
        while not self.over:
            for load in surviving.get(self.asker, "/hive/v1/status")["loads"]:
                if load["fetching_bytes"] and load["fetched_bytes"] >= load["fetching_bytes"]:
                    self.fetched = self.fetched or time.monotonic()
            for worker in surviving.workers(self.holder, "hivemind-shard"):
                self.worker_peak = max(self.worker_peak, memory.figures(worker).get("VmHWM", 0))
            time.sleep(0.02)


def rate_of(node, until):
    """Tokens a second of an answer that goes on while `until` does not hold."""
    times = []
    for times, _ in surviving.stream(node, user(STORY), 2000, 1):
        if until():
            break
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


def one_round(executable, model, starter, number):
    with tempfile.TemporaryDirectory() as folder:
        mine = pathlib.Path(folder) / "model.gguf"
        shutil.copy(model, mine)
        plan = pathlib.Path(folder) / "plan.json"
        plan.write_text(json.dumps({"stages": [{"node": "b", "layers": [0, memory.LAYERS]}]}))
        tcp = over_tcp(mine, pathlib.Path(folder) / "copied.gguf")
        reading = read_through(mine)
        nodes = [start(executable, folder, name) for name in "ab"]
        a, b = nodes
        try:
            surviving.pair(a, b)
            time.sleep(10)  # The nodes measure their own speed first.
            until = time.monotonic() + 8
            alone = rate_of(a, lambda: time.monotonic() > until)
            loads = {}
            loading = threading.Thread(target=lambda: loads.setdefault("beside", Load(a, b, mine, plan)))
            loading.start()
            beside = rate_of(a, lambda: not loading.is_alive())
            loading.join()
            a.run("models", "unload", str(mine))
            again = Load(a, b, mine, plan)
            a.run("models", "unload", str(mine))
            shutil.rmtree(next(pathlib.Path(folder).glob("hub-b*.hivemind")))
            first = Load(a, b, mine, plan)
            return {
                "copy": first.seconds - again.seconds, "tcp": tcp, "again": again.seconds, "reading": reading, "pace": beside / alone,
                "after last byte": first.ready - (first.fetched or first.ready), "peak": again.worker_peak - size(mine),
            }
        finally:
            surviving.stop(nodes)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("starter", type=lambda path: pathlib.Path(path).resolve())
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    os.environ["HIVEMIND_STARTER"] = str(given.starter)
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "q4_1.gguf"
        memory.write_gguf(model, "q4_1", memory.read_metadata(given.starter))
        print(f"{size(model) / 1e6:.0f} MB")
        print("| copy, s | TCP, s | TCP / copy | answer beside / alone | load from disk / reading | ready after the last byte, s | worker's peak less file, MB |\n|---|---|---|---|---|---|---|")
        rounds = []
        for number in range(given.rounds):
            now = one_round(given.executable, model, given.starter, number)
            rounds.append(now)
            cells = [now["copy"], now["tcp"], now["tcp"] / now["copy"], now["pace"], now["again"] / now["reading"], now["after last byte"], now["peak"] / 1e6]
            print("| " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)
        median = lambda of: statistics.median(of(now) for now in rounds)
        print(f"medians: TCP / copy {median(lambda now: now['tcp'] / now['copy']):.2f}, answer beside / alone {median(lambda now: now['pace']):.2f}")


if __name__ == "__main__":
    main()
