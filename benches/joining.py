"""How soon machines notice each other: found, moved, left, stopped, removed, and on a better cable.

Everything happens in network namespaces that end with the script; nothing leaves them. Needs root, iproute2 and ethtool.

Usage: joining.py EXECUTABLE [--runs N] [--load-minutes M] [--only NAME,NAME]
"""

import argparse
import atexit
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
namespaces = []
processes = []


def sh(command):
    subprocess.run(command, shell=True, check=True)


def end():
    for process in processes:
        process.kill()
    for name in namespaces:
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name])
    namespaces.clear()
    processes.clear()


atexit.register(end)


def machine(name):
    namespaces.append(name)
    sh(f"ip netns add {name} && ip -n {name} link set lo up")


def network(hosts):
    machine("hb-switch")
    sh("ip -n hb-switch link add br0 type bridge mcast_snooping 0 && ip -n hb-switch link set br0 up")
    for index, host in enumerate(hosts):
        machine(host)
        sh(f"ip link add lan netns {host} type veth peer name to-{host} netns hb-switch")
        sh(f"ip -n hb-switch link set to-{host} master br0 up")
        sh(f"ip -n {host} addr add 10.77.0.{index + 1}/24 dev lan && ip -n {host} link set lan up")


class Node:
    """A node in a machine, asked through the command line."""

    def __init__(self, executable, host, folder):
        self.executable, self.host, self.folder = executable, host, folder / host
        self.start()

    def start(self):
        (self.folder / "api.json").unlink(missing_ok=True)
        command = ["ip", "netns", "exec", self.host, self.executable, "node", "--name", self.host, "--data-dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        processes.append(self.process)
        while not (self.folder / "api.json").exists():
            time.sleep(0.01)

    def stop(self):
        self.process.kill()
        self.process.wait()

    def run(self, *arguments):
        command = ["ip", "netns", "exec", self.host, self.executable, "--data-dir", self.folder, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def peers(self):
        return {peer["name"]: peer for peer in json.loads(self.run("peers", "--json"))["peers"]}

    def wait(self, holds):
        started = time.monotonic()
        while not holds(self.peers()):
            assert time.monotonic() - started < 60, "in vain"
            time.sleep(0.02)
        return time.monotonic()


def pair(a, b):
    a.wait(lambda peers: b.host in peers)
    code = json.loads(a.run("approve", b.host, "--json"))["code"]
    b.wait(lambda peers: peers.get(a.host, {}).get("state") == "pending")
    approving = subprocess.Popen(
        ["ip", "netns", "exec", a.host, a.executable, "--data-dir", a.folder, "approve", b.host, "--code", code],
        stdout=subprocess.DEVNULL,
    )
    b.run("approve", a.host, "--code", code)
    approving.wait()
    is_in = lambda other: lambda peers: peers[other.host]["state"] == "approved"
    a.wait(is_in(b)), b.wait(is_in(a))


def show(what, seconds):
    listed = " ".join(f"{s:.2f}" for s in seconds)
    print(f"{what}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds)} ({listed})", flush=True)


def found(executable, runs):
    times, moved = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            hosts = ["hb-a", "hb-b", "hb-c"]
            network(hosts)
            nodes = [Node(executable, host, pathlib.Path(folder)) for host in hosts]
            started = time.monotonic()
            times.append(max(n.wait(lambda peers: len(peers) == 2) for n in nodes) - started)
            pair(nodes[0], nodes[1])
            sh("ip -n hb-b addr flush dev lan && ip -n hb-b addr add 10.77.0.99/24 dev lan")
            started = time.monotonic()
            at_new = lambda peers: ((peers["hb-b"]["link"] or {}).get("remote") or "").startswith("10.77.0.99")
            moved.append(nodes[0].wait(at_new) - started)
            end()
    show("three machines found each other", times)
    show("a machine reached again after it changed its address", moved)


def noticed(executable, runs):
    stopped, killed, removed = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        network(["hb-a", "hb-b"])
        a, b = (Node(executable, host, pathlib.Path(folder)) for host in ["hb-a", "hb-b"])
        pair(a, b)
        away = lambda peers: peers["hb-b"]["state"] == "unreachable"
        here = lambda peers: peers["hb-b"]["state"] == "approved"
        for _ in range(runs):
            time.sleep(1.5)
            b.process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            stopped.append(a.wait(away) - started)
            b.process.send_signal(signal.SIGCONT)
            a.wait(here)
            time.sleep(1.5)
            b.stop()
            started = time.monotonic()
            killed.append(a.wait(away) - started)
            b.start()
            a.wait(here)
        for _ in range(max(1, runs // 4)):
            started = time.monotonic()
            b.run("remove", "hb-a")
            removed.append(a.wait(away) - started)
            a.run("remove", "hb-b")
            time.sleep(0.5)
            pair(a, b)
        end()
    show("a stopped machine noticed", stopped)
    show("a killed machine noticed", killed)
    show("a removed machine cut off, as it sees it itself", removed)


def load(executable, minutes):
    """False alarms while every core is busy, twice over."""
    with tempfile.TemporaryDirectory() as folder:
        network(["hb-a", "hb-b"])
        a, b = (Node(executable, host, pathlib.Path(folder)) for host in ["hb-a", "hb-b"])
        pair(a, b)
        spinners = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * os.cpu_count())]
        processes.extend(spinners)
        alarms, until = 0, time.monotonic() + minutes * 60
        while time.monotonic() < until:
            time.sleep(0.5)
            alarms += a.peers()["hb-b"]["state"] != "approved"
            alarms += b.peers()["hb-a"]["state"] != "approved"
        end()
    print(f"false alarms in {minutes:g} minutes with {2 * os.cpu_count()} busy processes: {alarms}", flush=True)


def cables(executable, runs):
    appeared, lost = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in ["hb-a", "hb-b", "hb-middle"]:
            machine(name)
        for name in ["hb-a", "hb-b"]:
            sh(f"ip link add slow netns {name} type veth peer name to-{name} netns hb-middle")
            sh(f"ip netns exec {name} ethtool -K slow tx off gro off >/dev/null")
            sh(f"ip netns exec hb-middle ethtool -K to-{name} tx off gro off >/dev/null")
            sh(f"ip -n hb-middle link set to-{name} up && ip -n {name} link set slow up")
        sh("ip link add fast netns hb-a type veth peer name fast netns hb-b")
        for index, name in enumerate(["hb-a", "hb-b"]):
            sh(f"ip -n {name} addr add 10.78.0.{index + 1}/24 dev slow && ip -n {name} addr add 10.79.0.{index + 1}/24 dev fast")
        delay = ["ip", "netns", "exec", "hb-middle", "python3", str(HERE.parent / "tests/lab/delay.py"), "to-hb-a", "to-hb-b", "2"]
        processes.append(subprocess.Popen(delay))
        a, b = (Node(executable, host, pathlib.Path(folder)) for host in ["hb-a", "hb-b"])
        pair(a, b)
        on = lambda subnet: lambda peers: ((peers["hb-b"]["link"] or {}).get("remote") or "").startswith(subnet)
        for _ in range(runs):
            sh("ip -n hb-a link set fast up && ip -n hb-b link set fast up")
            started = time.monotonic()
            appeared.append(a.wait(on("10.79.")) - started)
            time.sleep(1)
            sh("ip -n hb-a link set fast down")
            started = time.monotonic()
            lost.append(a.wait(on("10.78.")) - started)
            time.sleep(1)
        end()
    show("on the faster cable after it appeared (0.3 ms beside 4 ms)", appeared)
    show("on the slower cable after the faster went", lost)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--runs", type=int, default=10)
    arguments.add_argument("--load-minutes", type=float, default=1)
    arguments.add_argument("--only", default="found,noticed,cables,load")
    arguments = arguments.parse_args()
    for name in arguments.only.split(","):
        globals()[name](arguments.executable, arguments.load_minutes if name == "load" else arguments.runs)


if __name__ == "__main__":
    main()
