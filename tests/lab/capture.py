"""Writes every frame that passes an interface to a file, each behind its length, until it is ended.

Usage: capture.py INTERFACE FILE
"""

import socket
import sys

socket_ = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
socket_.bind((sys.argv[1], 0))
with open(sys.argv[2], "wb", buffering=0) as out:
    while True:
        frame = socket_.recv(1 << 16)
        out.write(len(frame).to_bytes(4, "little") + frame)
