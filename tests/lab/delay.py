"""A cable with a delay: forwards frames between two interfaces, each held for a while. The kernel here has no netem.

Usage: delay.py INTERFACE INTERFACE MILLISECONDS [LOSS_PERCENT]

On SIGUSR1 the delay jitters by up to 50 ms, on SIGUSR2 it is steady again. Frames stay in their order.
"""

import collections
import random
import select
import signal
import socket
import sys
import time

ALL_PROTOCOLS = 3
OUTGOING = 4

names, hold, loss = sys.argv[1:3], float(sys.argv[3]) / 1000, float((sys.argv[4:] or [0])[0]) / 100
ends = []
for name in names:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    end.bind((name, 0))
    end.setblocking(False)
    ends.append(end)
# A fixed seed: a failure repeats.
chance = random.Random(1)
waiting = collections.deque()
jitter = 0.0


def rough(number, _):
    global jitter
    jitter = 0.05 if number == signal.SIGUSR1 else 0.0


signal.signal(signal.SIGUSR1, rough)
signal.signal(signal.SIGUSR2, rough)
while True:
    patience = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    readable, _, _ = select.select(ends, [], [], patience)
    for end in readable:
        try:
            while True:
                frame, origin = end.recvfrom(1 << 16)
                if origin[2] != OUTGOING and chance.random() >= loss:
                    due = time.monotonic() + hold + chance.random() * jitter
                    due = max(due, waiting[-1][0]) if waiting else due
                    waiting.append((due, ends[1 - ends.index(end)], frame))
        except BlockingIOError:
            pass
    while waiting and waiting[0][0] <= time.monotonic():
        _, end, frame = waiting.popleft()
        try:
            end.send(frame)
        except OSError:
            pass  # The other end is down, as cables are.
