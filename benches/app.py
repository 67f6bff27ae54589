"""What the app costs: time to its first window, processor while nothing happens, memory.

Usage: dbus-run-session -- xvfb-run -a -s "-screen 0 1440x900x24" python3 benches/app.py EXECUTABLE [--rounds N] [--seconds S]

It needs xdotool. The app runs with a data folder of its own, on loopback, with sharing off as it is at the start.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def windows():
    found = subprocess.run(["xdotool", "search", "--onlyvisible", "--name", "^HiveMind$"], capture_output=True, text=True)
    return found.stdout.split()


def family(pid):
    """A process and all that it started."""
    pids, more = [], [pid]
    while more:
        pid = more.pop()
        pids.append(pid)
        for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            more += [int(child) for child in file.read_text().split()]
    return pids


def processor(pids):
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def idle(pid, seconds):
    pids = family(pid)
    before = processor(pids)
    time.sleep(seconds)
    return (processor(pids) - before) / seconds


def memory(pids):
    """Each process's proportional share, in MB, by name."""
    shares = {}
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                shares[name] = shares.get(name, 0) + int(line.split()[1]) / 1024
    return shares


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("executable", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=30)
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "config.toml").write_text('bind = "127.0.0.1:0"\napi = "127.0.0.1:0"\n')
        environment = {**os.environ, "HIVEMIND_DATA_DIR": folder, "NO_AT_BRIDGE": "1"}
        times = []
        for number in range(arguments.rounds):
            began = time.monotonic()
            app = subprocess.Popen([arguments.executable], env=environment)
            while not windows():
                assert app.poll() is None, "it ended"
                assert time.monotonic() - began < 60, "no window"
            times.append(time.monotonic() - began)
            if number + 1 < arguments.rounds:
                app.terminate()
                app.wait()
        listed = " ".join(f"{seconds:.2f}" for seconds in times)
        print(f"first window after {statistics.median(times):.2f} s ({listed})", flush=True)
        time.sleep(10)
        print(f"window open, nothing happens: {idle(app.pid, arguments.seconds) * 100:.2f} % of a core", flush=True)
        app.terminate()
        app.wait()
        # As it starts at login.
        app = subprocess.Popen([arguments.executable, "--hidden"], env=environment)
        time.sleep(15)
        print(f"no window shown ({len(windows())}): {idle(app.pid, arguments.seconds) * 100:.2f} % of a core", flush=True)
        shares = memory(family(app.pid))
        listed = ", ".join(f"{name} {share:.0f}" for name, share in shares.items())
        print(f"memory {sum(shares.values()):.0f} MB: {listed}", flush=True)
        app.terminate()
        app.wait()


if __name__ == "__main__":
    main()
