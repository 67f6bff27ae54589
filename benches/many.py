"""Many conversations at a time, through the API of one node with two stages on this machine.

Four conversations beside one; a long prompt that arrives while others are in the middle of their answers; the second turn of a
long conversation.

Each node has a core of its own, as machines have; with --shared-cores both compute on all of them.

Usage: many.py EXECUTABLE [--rounds N] [--shared-cores]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

STORY = "Write a very long story about bees."


class Node:
    def __init__(self, executable, folder, name, cores):
        self.executable, self.folder = executable, pathlib.Path(folder) / name
        command = ["taskset", "-c", cores, executable, "node", "--name", name, "--bind", "127.0.0.1:0", "--api", "127.0.0.1:0", "--data-dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not (self.folder / "api.json").exists():
            time.sleep(0.02)
        self.address = json.loads((self.folder / "api.json").read_text())["address"]
        self.token = (self.folder / "api-token").read_text().strip()

    def run(self, *arguments, given=None):
        command = [self.executable, "--data-dir", self.folder, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, input=given).stdout

    def ask(self, messages, tokens, stages=2):
        """Token times of an answer, the first since the request, and the text."""
        body = {
            "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True, "hivemind": {"stages": stages},
        }
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.address}/v1/chat/completions", json.dumps(body).encode(), headers)
        times, text, started = [], "", time.monotonic()
        with urllib.request.urlopen(request) as response:
            for line in response:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    piece = chunk["choices"] and chunk["choices"][0]["delta"].get("content")
                    if piece:
                        times.append(time.monotonic() - started)
                        text += piece
        return times, text


def together(jobs):
    results = [None] * len(jobs)

    def work(index):
        results[index] = jobs[index]()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def user(text):
    return [{"role": "user", "content": text}]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--shared-cores", action="store_true")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cores = ["0-1", "0-1"] if arguments.shared_cores else ["0", "1"]
        a, b = (Node(arguments.executable, folder, name, core) for name, core in zip("ab", cores))
        try:
            ticket = json.loads(a.run("invite", "--json"))["ticket"]
            asked = json.loads(b.run("join", "--json", given=ticket))
            approving = subprocess.Popen([a.executable, "--data-dir", a.folder, "approve", "b", "--code", asked["code"]], stdout=subprocess.DEVNULL)
            b.run("approve", asked["id"], "--code", asked["code"])
            approving.wait()
            time.sleep(8)  # The nodes measure their own speed first.
            measure(a, arguments.rounds)
        finally:
            for node in (a, b):
                node.process.terminate()
                node.process.wait()


def measure(node, rounds):
    node.ask(user("Hello."), 4)
    rate = lambda results: sum(len(times) - 1 for times, _ in results) / max(times[-1] - min(t[0] for t, _ in results) for times, _ in results)
    ratios = []
    for _ in range(rounds):
        one = rate([node.ask(user(STORY), 150)])
        four = rate(together([lambda i=i: node.ask(user(f"{STORY} Chapter {i}."), 150) for i in range(4)]))
        ratios.append(four / one)
        print(f"one conversation {one:.1f} tok/s, four {four:.1f} tok/s together: {four / one:.2f} ×", flush=True)
    print(f"four / one: median {statistics.median(ratios):.2f}")

    # Every prompt begins otherwise: what an earlier one has in common with it would not be computed again.
    for number in range(rounds):
        long = f"Story {number}. " + "Bees make honey. " * 480
        gaps = lambda times: [b - a for a, b in zip(times, times[1:])]
        calm = statistics.median(gaps(node.ask(user(f"{number}. {STORY}"), 200)[0]))
        arrival = {}

        def disturb():
            time.sleep(0.5)
            arrival["from"] = time.monotonic()
            arrival["first"] = node.ask(user(long), 2)[0][0]

        began = time.monotonic()
        (times, _), _ = together([lambda: node.ask(user(f"Now {number}. {STORY}"), 400), disturb])
        start = arrival["from"] - began
        during = [b - a for a, b in zip(times, times[1:]) if start < b < start + arrival["first"]]
        print(
            f"time between tokens {calm * 1e3:.1f} ms alone, {statistics.median(during) * 1e3:.1f} ms (worst {max(during) * 1e3:.0f}) "
            f"while a long prompt is read in {arrival['first']:.1f} s: {statistics.median(during) / calm:.2f} ×",
            flush=True,
        )

    for number in range(rounds):
        first = user(f"Lesson {number}. " + "Bees make honey. " * 240 + "What do bees make?")
        times, text = node.ask(first, 12)
        again = first + [{"role": "assistant", "content": text}] + user("And what else?")
        second, _ = node.ask(again, 4)
        print(f"first word of the first turn {times[0]:.2f} s, of the second {second[0]:.2f} s: {second[0] / times[0]:.2f} ×", flush=True)


if __name__ == "__main__":
    main()
