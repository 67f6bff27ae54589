"""How soon a model is ready on a machine that lacks it, and what that costs others: beside plain copies and reads of the same bytes, in turn in one run.

Two nodes on loopback, each with a data folder and a cache of models of its own; nothing leaves it. The model is random (4 bits, 1.2 GB) and at first only
on the first node. Each node has a core of its own, as machines have, and so has each side of a plain copy; with --shared-cores all compute on all of them.

- copy: the second node gets all layers from the first, from the request until they are on its disk; beside it, `sendfile` over TCP from one Python process
  to another, which writes them to the disk. Both end with an `fsync`, and both copies are compared with the original. A question waits for the model: from
  its last byte on the second node's disk to the first token.
- talk: an answer of another, small model on the first node while it sends; beside it, the same tokens of an answer with nothing to send.
- load: the first node loads the whole model from its disk; beside it, plain reads of the file in the same state, once into one buffer, as `cat` does, and
  once into as much new memory, as a load must.
- with copy and load: the most that a worker had resident when its model was ready, less the bytes of the file.

`/hive/v1/events` says when the last byte is on the disk, up to 0.1 s late. It needs Linux, and the starter model, with which nodes measure their speed.
`--tiny` is a test of the script itself.

Usage: copying.py --hivemind EXECUTABLE [--only copy,talk,load] [--rounds N] [--shared-cores] [--tiny]
"""

import argparse
import contextlib
import filecmp
import http.client
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import gpu
import surviving
from many import user
from memory import figures

PARTS = ["copy", "talk", "load"]
# As in `gpu.py`: layers, hidden, inner, heads, heads of keys and values, vocabulary.
SHAPES = {"copied": (32, 2048, 8192, 32, 8, 32_000), "small": (12, 1024, 4096, 16, 4, 32_000)}
TINY = {"copied": (8, 1024, 4096, 16, 4, 4096), "small": gpu.SHAPES["tiny"]}
MODEL, SMALL = "bench/copied", "bench/small"
PIECE = 16 << 20


# A plain copy: two processes of this script.


def send(path):
    with open(path, "rb") as file, socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        with server.accept()[0] as line:
            line.sendfile(file)


def receive(port, to):
    buffer = memoryview(bytearray(PIECE))
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(port))) as line, open(to, "wb", buffering=0) as file:
        while read := line.recv_into(buffer):
            file.write(buffer[:read])
        os.fsync(file.fileno())
    print(time.monotonic() - began)


def plain_copy(given, path, to):
    """Seconds of a copy over TCP, until it is on the disk."""
    start = lambda *arguments: subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    with on(given, 0), start("--send", path) as sender, on(given, 1), start("--receive", sender.stdout.readline().strip(), to) as receiver:
        return float(receiver.stdout.read())


def plain_read(given, path, size=PIECE):
    """Seconds that it takes to read a file into a new buffer, again and again where it is smaller."""
    with on(given, 0), open(path, "rb", buffering=0) as file:
        began = time.monotonic()
        buffer = bytearray(size)
        while file.readinto(buffer):
            pass
        return time.monotonic() - began


@contextlib.contextmanager
def on(given, core):
    """What is started here, and what this thread does, is on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, given.cores if given.shared_cores else {given.cores[core % len(given.cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def forget(path):
    """Drops a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# The nodes.


def start(given, folder, name, core):
    """A node that finds the models of its own cache only, and asks no hub."""
    cache = folder / f"hub-{name}"
    cache.mkdir(exist_ok=True)
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    with on(given, core):
        return gpu.Machine(given.hivemind, folder, name, environment)


def status(node):
    return surviving.get(node, "/hive/v1/status")


def settled(profile):
    """Waits until a machine knows its models and its own speed: measuring it would disturb."""
    began = time.monotonic()
    while not ((seen := profile() or {}).get("decode_tokens_per_s") and seen["copies"]):
        if time.monotonic() - began > gpu.STARTING_S:
            raise SystemExit("error: a node does not measure its speed; is the starter model there ($HIVEMIND_STARTER)?")
        time.sleep(0.2)


@contextlib.contextmanager
def second(given, folder, first):
    """A new node that has no model."""
    name = f"second-{next(given.numbers)}"
    node = start(given, folder, name, 1)
    try:
        surviving.pair(first, node)
        settled(lambda: next((peer["profile"] for peer in status(first)["peers"] if peer["name"] == name and peer["state"] == "approved"), None))
        os.sync()
        yield node
    finally:
        node.end()
        for left in folder.glob(f"hub-{name}*"):
            shutil.rmtree(left)


class Load:
    """A load of the whole model on one node, and when the last byte was on that node's disk."""

    def __init__(self, given, first, where):
        self.first, self.fetching, self.fetched, self.ready = first, None, None, None
        stages = [{"node": where.name, "layers": [0, given.shapes["copied"][0]]}]
        self.events = self.open("events")
        threading.Thread(target=self.watch, daemon=True).start()
        self.loading = threading.Thread(target=self.load, args=(json.dumps({"model": MODEL, "stages": stages}).encode(),))
        self.began = time.monotonic()
        self.loading.start()

    def open(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.first.token}", "Content-Type": "application/json"}
        return urllib.request.urlopen(urllib.request.Request(f"http://{self.first.address}/hive/v1/{path}", body, headers), timeout=gpu.ANSWER_S)

    def load(self, body):
        self.open("models/load", body).read()
        self.ready = time.monotonic()

    def watch(self):
        with contextlib.suppress(OSError, http.client.HTTPException), self.events:
            for line in self.events:
                if self.ready:
                    return
                if line.startswith(b"data: ") and not self.fetched:
                    loads = json.loads(line[6:])["status"]["loads"]
                    if any(load["fetching_bytes"] for load in loads):
                        self.fetching = self.fetching or time.monotonic()
                    if self.fetching and all(load["fetched_bytes"] == load["fetching_bytes"] for load in loads):
                        self.fetched = time.monotonic()

    def end(self):
        self.loading.join()
        if not self.ready:
            raise SystemExit("error: the model was not loaded; why stands above")


def unload(first):
    first.run("models", "unload", MODEL)


def over(given, node):
    """The most bytes that the worker had resident, above those of its layers in the file."""
    return max(figures(pid)["VmHWM"] for pid in node.workers()) - given.bytes


def question(given, name, seed):
    return user(gpu.prompt(16, seed, given.shapes[name][5]))


# What is measured.


def copied(given, folder, first, path):
    """A copy and the first answer: bytes per second, seconds from the last byte to the first token, and bytes beside the layers."""
    with second(given, folder, first) as node:
        load = Load(given, first, node)
        while surviving.get(first, f"/hive/v1/plan?model={MODEL}")["stages"][0]["node"] != node.name:
            time.sleep(0.02)
        answer = gpu.whole(gpu.ask(first, MODEL, question(given, "copied", node.name), 2, None))
        load.end()
        if not load.fetched or [stage["node"] for stage in answer.stages] != [node.name]:
            raise SystemExit(f"error: the model was to be fetched, and to answer, on the second node, not on {answer.stages}")
        (copy,) = folder.glob(f"hub-{node.name}.hivemind/*/model/{path.name}")
        if not filecmp.cmp(path, copy, shallow=False):
            raise SystemExit("error: the copy differs from the original")
        beside = over(given, node)
        unload(first)
        return given.bytes / (load.fetched - load.began), answer.times[0] - load.fetched, beside


def plainly_copied(given, folder, path):
    to = folder / "plain"
    os.sync()
    seconds = plain_copy(given, path, to)
    if not filecmp.cmp(path, to, shallow=False):
        raise SystemExit("error: the plain copy differs from the original")
    to.unlink()
    return given.bytes / seconds


class Over(Exception):
    pass


def talk(given, first, seed, is_over):
    """When each token of an answer came, until it is over."""
    times = []

    def at(count):
        times.append(time.monotonic())
        if is_over(count):
            raise Over

    with contextlib.suppress(Over):
        gpu.whole(gpu.ask(first, SMALL, question(given, "small", seed), gpu.CONTEXT - 64, None, at=at))
    return times


def disturbed(given, folder, first):
    """Tokens per second of an answer while a model is copied, and of the same part of an answer without that; bytes per second of the copy."""
    with second(given, folder, first) as node:
        loads = []

        def is_over(count):
            if count == 50:
                loads.append(Load(given, first, node))
            return loads and (loads[0].fetched or loads[0].ready)

        times = talk(given, first, node.name, is_over)
        load = loads[0]
        load.end()
        unload(first)
    start = next(count for count, moment in enumerate(times) if moment > load.fetching)
    alone = talk(given, first, f"{node.name} alone", lambda count: count == len(times))
    pace = lambda of: (len(of) - 1 - start) / (of[-1] - of[start])
    return pace(times), pace(alone), given.bytes / (load.fetched - load.began)


def loaded(given, first, path, prepare):
    """Seconds of a load, of plain reads in the same state into one buffer and into as much memory, and bytes beside the layers."""
    seconds = []
    for size in (PIECE, given.bytes):
        prepare(path)
        seconds.append(plain_read(given, path, size))
    prepare(path)
    load = Load(given, first, first)
    load.end()
    beside = over(given, first)
    unload(first)
    return load.ready - load.began, *seconds, beside


def row(what, form, ours, plain, ratios, goal):
    median = lambda values: statistics.median(values) if values else None
    cell = lambda value: None if value is None else form.format(value)
    spread = [f"{value:.2f}" for value in sorted(ratios)] or [form.format(value) for value in sorted(ours)]
    gpu.row(what, cell(median(ours)), cell(median(plain)), median(ratios), f"{spread[0]}–{spread[-1]}", goal)


def main():
    if sys.argv[1:2] in (["--send"], ["--receive"]):
        return {"--send": send, "--receive": receive}[sys.argv[1]](*sys.argv[2:])
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--hivemind", default=os.environ.get("HIVEMIND"), help="the executable; otherwise that of $HIVEMIND")
    arguments.add_argument("--only", type=gpu.several(PARTS), default=PARTS, metavar="PARTS", help=", ".join(PARTS))
    arguments.add_argument("--rounds", type=gpu.count, default=3, help="the median counts")
    arguments.add_argument("--shared-cores", action="store_true", help="both nodes compute on all cores")
    arguments.add_argument("--tiny", action="store_true", help="tests the script")
    given = arguments.parse_args()
    found = given.hivemind and shutil.which(given.hivemind)
    if not found:
        arguments.error(f"there is no executable {given.hivemind or ''}: name it with --hivemind")
    given.hivemind, given.shapes, given.numbers = str(pathlib.Path(found).resolve()), TINY if given.tiny else SHAPES, itertools.count(1)
    given.cores = sorted(os.sched_getaffinity(0))
    gpu.SHAPES |= given.shapes
    for which in gpu.ENDS:
        signal.signal(which, gpu.told_to_end)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        first = start(given, folder, "first", 0)
        try:
            path = gpu.make(folder / "hub-first", "copied") / "model.safetensors"
            gpu.make(folder / "hub-first", "small")
            given.bytes = path.stat().st_size
            settled(lambda: status(first)["profile"])
            measure(given, folder, first, path)
        finally:
            first.end()


def measure(given, folder, first, path):
    print(f"{gpu.card()[0]}, {given.bytes / 1e6:,.0f} MB, {'shared cores' if given.shared_cores else 'a core each'}", flush=True)
    gpu.table(f"medians of {given.rounds}", "HiveMind", "plain", "ratio", "range", "goal")
    ratios = lambda ours, plain: [a / b for a, b in zip(ours, plain)]
    beside = []
    if "copy" in given.only:
        ours, plain, waits = [], [], []
        for number in range(given.rounds):
            for turn in (0, 1) if number % 2 else (1, 0):
                if turn:
                    rate, wait, more = copied(given, folder, first, path)
                    ours.append(rate), waits.append(wait), beside.append(more)
                else:
                    plain.append(plainly_copied(given, folder, path))
        row("copy to the second node, TCP: MB/s", "{:,.0f}", [value / 1e6 for value in ours], [value / 1e6 for value in plain], ratios(ours, plain), "0.5 or more")
        row("last byte to the first token, s", "{:.2f}", waits, [], [], "2 or less")
    if "talk" in given.only:
        ours, plain, speeds = zip(*(disturbed(given, folder, first) for _ in range(given.rounds)))
        row("another answer while copying, alone: tok/s", "{:.1f}", ours, plain, ratios(ours, plain), "0.9 or more")
        row("the copy meanwhile, MB/s", "{:,.0f}", [value / 1e6 for value in speeds], [], [], None)
    if "load" in given.only:
        for what, prepare in ("without page cache", forget), ("with page cache", lambda path: plain_read(given, path)):
            ours, plain, kept, more = zip(*(loaded(given, first, path, prepare) for _ in range(given.rounds)))
            beside += more
            row(f"load {what}, plain reads: s", "{:.2f}", ours, plain, ratios(ours, plain), "1.3 or less")
            row("the same, plain reads into as much memory: s", "{:.2f}", ours, kept, ratios(ours, kept), None)
    if beside:
        row("memory of a worker beside its layers, MB", "{:.0f}", [value / 1e6 for value in beside], [], [], "200 or less")


if __name__ == "__main__":
    main()
