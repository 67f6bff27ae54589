"""What a listener notices when machines go, and whether anything is left behind: through the API of nodes on this machine.

The longest silence of an answer whose machine is killed, or stops sharing, at its 500th token; how soon every stage has forgotten an answer that
was cancelled; a thousand answers, twenty at a time, some of them cancelled, each compared with what its question is answered
alone, and the memory of every process on the way.

Usage: surviving.py EXECUTABLE [--rounds N] [--sessions N] [--only pauses]
"""

import argparse
import json
import pathlib
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from many import Node, user


def get(node, path):
    request = urllib.request.Request(f"http://{node.address}{path}", headers={"Authorization": f"Bearer {node.token}"})
    return json.load(urllib.request.urlopen(request))


def pair(a, b):
    ticket = json.loads(a.run("invite", "--json"))["ticket"]
    asked = json.loads(b.run("join", "--json", given=ticket))
    approving = subprocess.Popen([a.executable, "--data-dir", a.folder, "approve", b.name, "--code", asked["code"]], stdout=subprocess.DEVNULL)
    b.run("approve", asked["id"], "--code", asked["code"])
    approving.wait()


def start(executable, folder, names):
    nodes = []
    for name in names:
        node = Node(executable, folder, name, "0-1")
        node.name = name
        nodes.append(node)
    for index, a in enumerate(nodes):
        for b in nodes[index + 1 :]:
            pair(a, b)
    time.sleep(10)  # The nodes measure their own speed first.
    return nodes


def stop(nodes):
    for node in nodes:
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()


def read(file):
    """What a file of /proc says; nothing where the process or thread has just gone."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def workers(node, kind="hivemind-"):
    """Processes that a node has started: those that compute ("hivemind-shard"), and those that read texts ("hivemind-text")."""
    children = pathlib.Path(f"/proc/{node.process.pid}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in read(file).split()]
    return [pid for pid in pids if read(pathlib.Path(f"/proc/{pid}/cmdline")).startswith(kind)]


def stream(node, messages, tokens, stages, cancel_after=None):
    """Arrival of each piece of an answer, and the text; `cancel_after` pieces the reader goes away."""
    body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True, "hivemind": {"stages": stages}}
    headers = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{node.address}/v1/chat/completions", json.dumps(body).encode(), headers)
    times, text = [], ""
    with urllib.request.urlopen(request) as response:
        for line in response:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(chunk["error"])
                piece = chunk["choices"] and chunk["choices"][0]["delta"].get("content")
                if piece:
                    times.append(time.monotonic())
                    text += piece
                    yield times, text
                    if cancel_after is not None and len(times) >= cancel_after:
                        return


def pauses(executable, rounds):
    for what in ("a worker is killed", "a machine is killed", "a machine stops sharing"):
        silences = []
        for number in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                nodes = start(executable, folder, ["a", "b", "c"])
                try:
                    times, killed = [], None
                    for times, _ in stream(nodes[0], user(f"{number}. Write a very long story about bees."), 700, 3):
                        if len(times) == 500:
                            killed = time.monotonic()
                            if what == "a machine stops sharing":
                                nodes[1].run("share", "off")
                            else:
                                victim = workers(nodes[1], "hivemind-shard")[0] if what == "a worker is killed" else nodes[1].process.pid
                                subprocess.run(["kill", "-KILL", str(victim)], check=True)
                    assert killed and len(times) > 550, f"the answer had {len(times)} pieces only"
                    silences.append(max(b - a for a, b in zip(times, times[1:]) if b > killed))
                finally:
                    stop(nodes)
        print(f"{what} at the 500th token: longest silence {statistics.median(silences):.2f} s ({' '.join(f'{s:.2f}' for s in silences)})", flush=True)


def cancels(nodes, rounds):
    times = []
    for number in range(rounds):
        for times_so_far, _ in stream(nodes[0], user(f"{number}. Write a very long story about ants."), 400, 2, cancel_after=10 + number):
            if len(times_so_far) == 5:
                assert all(get(node, "/hive/v1/status")["profile"]["sessions"] == 1 for node in nodes)
        left = time.monotonic()
        while any(get(node, "/hive/v1/status")["profile"]["sessions"] for node in nodes):
            assert time.monotonic() - left < 30, "it is still being computed"
        times.append(time.monotonic() - left)
    print(f"a cancelled answer is gone from every stage after {statistics.median(times) * 1e3:.0f} ms (worst {max(times) * 1e3:.0f})", flush=True)


def resident(pid):
    for line in read(pathlib.Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0


def thousand(nodes, sessions):
    questions = [f"Say in one sentence what {thing} is." for thing in "bread rain gold iron snow salt wood milk tea wool glass ice".split()]
    answers = {}
    for question in questions:
        for _, answers[question] in stream(nodes[0], user(question), 24, 2):
            pass
    chance, lock = random.Random(1), threading.Lock()
    done = {"same": 0, "cancelled": 0, "wrong": []}
    memory = []
    todo = iter(range(sessions))

    def work():
        while True:
            with lock:
                number = next(todo, None)
                question, cancel = chance.choice(questions), chance.randint(1, 12) if chance.random() < 0.2 else None
                if number is not None and number % 100 == 0:
                    memory.append([resident(pid) for node in nodes for pid in [node.process.pid, *workers(node)]])
            if number is None:
                return
            text = ""
            for _, text in stream(nodes[0], user(question), 24, 2, cancel):
                pass
            with lock:
                if cancel is not None:
                    done["cancelled"] += 1
                    right = answers[question].startswith(text)
                else:
                    right = text == answers[question]
                    done["same"] += right
                if not right:
                    done["wrong"].append((question, text))

    began = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.append([resident(pid) for node in nodes for pid in [node.process.pid, *workers(node)]])
    print(f"{sessions} answers in {time.monotonic() - began:.0f} s: {done['same']} as alone, {done['cancelled']} cancelled, {len(done['wrong'])} wrong {done['wrong'][:3]}")
    warm = [sum(row) for row in memory[2:]]
    print(f"memory of all processes after 200 answers and on: {min(warm):.0f} to {max(warm):.0f} MB ({' '.join(f'{total:.0f}' for total in warm)})", flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--sessions", type=int, default=1000)
    arguments.add_argument("--only", choices=["pauses"])
    arguments = arguments.parse_args()
    if arguments.only == "pauses":
        pauses(arguments.executable, arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        nodes = start(arguments.executable, folder, ["a", "b"])
        try:
            cancels(nodes, arguments.rounds * 2)
            thousand(nodes, arguments.sessions)
        finally:
            stop(nodes)
    pauses(arguments.executable, arguments.rounds)


if __name__ == "__main__":
    main()
