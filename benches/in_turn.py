"""Two executables in turn: how long a first token takes, and how fast the others come, through the API of a node of each.

Both nodes run the whole time and are asked one after the other, the first one changing, so that what else the machine does
meets both. A pair of answers gives one ratio; the median of the pairs counts.

Usage: in_turn.py BEFORE AFTER [--rounds N] [--tokens N] [--stages N] [--cores LIST]
"""

import argparse
import pathlib
import statistics
import tempfile
import time

from many import Node, user

WORDS = "bread rain gold iron snow salt wood milk tea wool glass ice".split()


def asked(node, prompt, tokens, stages):
    """Seconds to the first token, and tokens per second of the others."""
    times, _ = node.ask(user(prompt), tokens, stages)
    return times[0], (len(times) - 1) / (times[-1] - times[0])


def show(what, before, after, unit, scale):
    ratios = sorted(b / a for a, b in zip(before, after))
    quarter = len(ratios) // 4
    difference = statistics.median(b - a for a, b in zip(before, after))
    print(
        f"{what}: {statistics.median(before) * scale:.2f} and {statistics.median(after) * scale:.2f} {unit}, difference {difference * scale:+.2f} {unit}, "
        f"ratio {statistics.median(ratios):.3f} ({ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})",
        flush=True,
    )


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("before", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("after", type=lambda path: str(pathlib.Path(path).resolve()))
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--tokens", type=int, default=128)
    arguments.add_argument("--stages", type=int, default=1)
    arguments.add_argument("--cores", default="0-1")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Node(path, folder, name, arguments.cores) for path, name in ((arguments.before, "before"), (arguments.after, "after"))]
        try:
            time.sleep(12)  # The nodes measure their own speed first.
            for node in nodes:
                asked(node, "Hello.", 8, arguments.stages)
            for what, lead in (("a prompt of some 30 tokens", ""), ("a prompt of some 700 tokens", "The bees fly over the hills and back. " * 75)):
                first, others = [[], []], [[], []]
                for number in range(arguments.rounds):
                    # No two begin alike, so nothing that was read before helps.
                    prompt = f"{number}. {WORDS[number % len(WORDS)]}: {lead}Write a very long story about it."
                    for which in (0, 1) if number % 2 else (1, 0):
                        seconds, speed = asked(nodes[which], prompt, arguments.tokens, arguments.stages)
                        first[which].append(seconds)
                        others[which].append(speed)
                show(f"{what}, to the first token", *first, "ms", 1e3)
                show(f"{what}, further tokens", *others, "tok/s", 1)
        finally:
            for node in nodes:
                node.process.terminate()
                node.process.wait()


if __name__ == "__main__":
    main()
