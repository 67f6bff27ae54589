"""Whether a swarm is ever slower than its fastest machine: random set-ups of three machines, several side by side.

Each machine is a node with a core of its own that is stopped and continued fifty times a second, so that it computes for a
random share of the time, and a random limit on what it sends. The swarm, as it plans for itself, takes turns with every one
of its machines alone; and the fastest is asked alone once more, to tell what is noise. It takes three cores for each set-up at a time, and no rights; nothing leaves loopback.

Usage: set_ups.py EXECUTABLE [--set-ups N] [--seed S] [--side-by-side N] [--rounds N]
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import statistics
import tempfile
import threading
import time

import surviving
from many import Node

QUESTION = "Write a long story about bees."
PERIOD_S = 0.02
LOOK_S = 0.2


class Machine(Node):
    """A node that computes for a share of the time."""

    def __init__(self, executable, folder, name, core, share, megabits):
        (pathlib.Path(folder) / name).mkdir()
        (pathlib.Path(folder) / name / "config.toml").write_text(f"bandwidth_mbit_per_s = {megabits}\n")
        self.name, self.share, self.over = name, share, False
        super().__init__(executable, folder, name, str(core))
        self.throttle = threading.Thread(target=self.stop_and_go, daemon=True)
        self.throttle.start()

    def stop_and_go(self):
        pids, looked = [], 0.0
        while not self.over:
            if time.monotonic() - looked > LOOK_S:
                pids, looked = [self.process.pid, *surviving.workers(self)], time.monotonic()
            self.signal(pids, signal.SIGCONT)
            time.sleep(PERIOD_S * self.share)
            self.signal(pids, signal.SIGSTOP)
            time.sleep(PERIOD_S * (1 - self.share))

    def signal(self, pids, which):
        for pid in pids:
            try:
                os.kill(pid, which)
            except ProcessLookupError:
                pass  # A worker that ended since the last look.

    def end(self):
        self.over = True
        self.throttle.join()
        surviving.stop([self])

    def is_measured(self):
        return bool(surviving.get(self, "/hive/v1/status")["profile"]["decode_tokens_per_s"])

    def speed(self, *more):
        answer = json.loads(self.run("chat", "--json", "--temperature", "0", "--max-tokens", "48", *more, "--prompt", QUESTION))
        return answer["decode_tokens_per_s"], [stage["node"] for stage in answer["stages"]]


def set_up(executable, number, shares, rates, cores, rounds):
    with tempfile.TemporaryDirectory() as folder:
        machines = [Machine(executable, folder, name, *given) for name, *given in zip("abc", cores, shares, rates)]
        try:
            while not all(machine.is_measured() for machine in machines):
                time.sleep(0.5)
            for index, a in enumerate(machines):
                for b in machines[index + 1 :]:
                    surviving.pair(a, b)
            time.sleep(8)  # Until links are measured.
            for machine in machines:
                machine.speed()  # What is seen of the machines counts from now on.
            alone, swarm, again, used = [], [], [], []
            for _ in range(rounds):
                alone.append([machine.speed("--stages", "1")[0] for machine in machines])
                speed, used = machines[0].speed()
                swarm.append(speed)
                fastest = max(machines, key=lambda machine: machine.share)
                again.append(fastest.speed("--stages", "1")[0])
            best = max(statistics.median(column) for column in zip(*alone))
            ratio, noise = statistics.median(swarm) / best, statistics.median(again) / best
            print(f"{number + 1}: shares {shares}, {rates} Mbit/s: alone best {best:.1f}, swarm {statistics.median(swarm):.1f} on {'+'.join(used)}: {ratio:.2f}; alone again {noise:.2f}", flush=True)
            return ratio, noise
        finally:
            for machine in machines:
                machine.end()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--set-ups", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--side-by-side", type=int, default=max(1, len(os.sched_getaffinity(0)) // 3))
    arguments.add_argument("--rounds", type=int, default=3)
    parser, arguments = arguments, arguments.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if min(arguments.set_ups, arguments.side_by_side, arguments.rounds) < 1:
        parser.error("there must be at least one of everything")
    if 3 * arguments.side_by_side > len(cores):
        parser.error(f"{arguments.side_by_side} side by side take {3 * arguments.side_by_side} cores; there are {len(cores)}")
    chance = random.Random(arguments.seed)
    draw = lambda: ([round(chance.uniform(0.15, 0.6), 2) for _ in "abc"], [chance.choice([20, 100, 1000]) for _ in "abc"])
    wanted = [(number, *draw()) for number in range(arguments.set_ups)]
    free = [cores[3 * slot : 3 * slot + 3] for slot in range(arguments.side_by_side)]

    def one(number, shares, rates):
        mine = free.pop()
        try:
            return set_up(arguments.executable, number, shares, rates, mine, arguments.rounds)
        finally:
            free.append(mine)

    with concurrent.futures.ThreadPoolExecutor(arguments.side_by_side) as side_by_side:
        measured = list(side_by_side.map(one, *zip(*wanted)))
    for what, ratios in zip(["the swarm", "the fastest machine once more"], zip(*measured)):
        print(f"{what} beside the fastest machine alone: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f} of {len(ratios)}; below 0.95: {sum(ratio < 0.95 for ratio in ratios)}")


if __name__ == "__main__":
    main()
