"""Whether plans keep what they promise: predicted beside measured speed, and the swarm beside its fastest machine.

First on one, two and three nodes of this machine. Then in random set-ups of two or three machines, each in a network namespace
with a part of a core and a link of its own rate: the swarm, as it plans for itself, against every one of its machines
alone. Needs root, iproute2 and the cpu controller of cgroups version 1; nothing leaves the namespaces.

Usage: planning.py EXECUTABLE [--rounds N] [--set-ups N] [--seed S] [--skip N]
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import joining
import surviving

QUESTION = "Write a long story about bees."
GROUPS = pathlib.Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000


def predicted(executable, rounds):
    with tempfile.TemporaryDirectory() as folder:
        nodes = []
        for name in ["a", "b", "c"]:
            # One after the other, so that each measures itself alone, as on a machine of its own.
            node = surviving.Node(executable, folder, name, "0-1")
            node.name = name
            while not (node.folder / "speed.json").exists():
                time.sleep(0.1)
            nodes.append(node)
        for index, a in enumerate(nodes):
            for b in nodes[index + 1 :]:
                surviving.pair(a, b)
        time.sleep(5)  # Until links are measured.
        try:
            for stages in [1, 2, 3]:
                plan = surviving.get(nodes[0], f"/hive/v1/plan?stages={stages}")["decode_tokens_per_s"]
                command = ["chat", "--json", "--stages", str(stages), "--temperature", "0", "--max-tokens", "96", "--prompt", QUESTION]
                measured = [json.loads(nodes[0].run(*command))["decode_tokens_per_s"] for _ in range(rounds + 1)][1:]
                ratios = [plan / speed for speed in measured]
                listed = " ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"{stages} nodes: predicted {plan:.1f}, measured {statistics.median(measured):.1f} tok/s: {statistics.median(ratios):.2f} ({listed})", flush=True)
        finally:
            surviving.stop(nodes)


class Machine(joining.Node):
    """A node with a part of a core."""

    def throttle(self, share):
        self.group = GROUPS / self.host
        self.group.mkdir(exist_ok=True)
        (self.group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (self.group / "cpu.cfs_quota_us").write_text(str(int(PERIOD_US * share)))
        # It measures itself again, with the new limits.
        self.stop()
        (self.folder / "speed.json").unlink(missing_ok=True)
        self.start()
        while "decode_tokens_per_s" not in json.dumps(self.profile()) or not self.profile()["decode_tokens_per_s"]:
            time.sleep(0.2)

    def start(self):
        super().start()
        if hasattr(self, "group"):
            (self.group / "cgroup.procs").write_text(str(self.process.pid))

    def profile(self):
        return json.loads(self.run("status", "--json"))["profile"]

    def speed(self, *more):
        command = ["chat", "--json", "--temperature", "0", "--max-tokens", "48", *more, "--prompt", QUESTION]
        answer = json.loads(self.run(*command))
        return answer["decode_tokens_per_s"], [stage["node"] for stage in answer["stages"]]


def set_ups(executable, count, seed, skip):
    chance = random.Random(seed)
    ratios, hosts = [], ["hb-a", "hb-b", "hb-c"]
    with tempfile.TemporaryDirectory() as folder:
        joining.network(hosts)
        machines = [Machine(executable, host, pathlib.Path(folder)) for host in hosts]
        for index, a in enumerate(machines):
            for b in machines[index + 1 :]:
                joining.pair(a, b)
        for number in range(count):
            # Together less than the two cores there are, so that they can measure themselves side by side.
            shares = [round(chance.uniform(0.15, 0.6), 2) for _ in machines]
            rates = [chance.choice([20, 100, 1000]) for _ in machines]
            if number < skip:
                continue
            for machine, rate in zip(machines, rates):
                joining.sh(f"tc -n {machine.host} qdisc replace dev lan root tbf rate {rate}mbit burst 64kb latency 50ms")
            with concurrent.futures.ThreadPoolExecutor() as side_by_side:
                list(side_by_side.map(Machine.throttle, machines, shares))
            for machine in machines:
                machine.wait(lambda peers: all(peer["state"] == "approved" and peer["profile"] for peer in peers.values()))
            time.sleep(4)  # Until links are measured.
            for machine in machines:
                machine.speed()  # Loads what it wants.
            # Whoever is quickest alone, and the swarm as each of its machines would use it; in turns, since the machine is noisy.
            alone, swarm, used = [], [], []
            for _ in range(3):
                alone.append([machine.speed("--stages", "1")[0] for machine in machines])
                speed, used = machines[0].speed()
                swarm.append(speed)
            best = max(statistics.median(column) for column in zip(*alone))
            ratios.append(statistics.median(swarm) / best)
            print(f"{number + 1}: shares {shares}, {rates} Mbit/s: alone best {best:.1f}, swarm {statistics.median(swarm):.1f} on {'+'.join(used)}: {ratios[-1]:.2f}", flush=True)
    joining.end()
    for host in hosts:
        (GROUPS / host).rmdir()
    print(f"swarm beside its fastest machine: median {statistics.median(ratios):.2f}, worst {min(ratios):.2f} of {len(ratios)}; below 0.95: {sum(ratio < 0.95 for ratio in ratios)}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--set-ups", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--skip", type=int, default=0, help="leave out this many of the set-ups, to continue a series")
    parser, arguments = arguments, arguments.parse_args()
    if 0 < arguments.set_ups <= arguments.skip:
        parser.error("--skip leaves none of --set-ups")
    if arguments.rounds:
        predicted(arguments.executable, arguments.rounds)
    if arguments.set_ups:
        set_ups(arguments.executable, arguments.set_ups, arguments.seed, arguments.skip)


if __name__ == "__main__":
    main()
