# SPDX-License-Identifier: Apache-2.0
"""Devices as if a wire were behind them, and what their kernel sees.

wire.py real DEVICE...      checksums and segments are complete when a packet leaves, as hardware makes them; the
                            device takes frames that XDP sends to it (veth: NAPI)
wire.py count DEVICE PORT   prints "ready", then counts packets from and to the port that reach the kernel's taps, which
                            come after XDP and before TC; at the end of the input prints SYNS OTHERS
"""
import ctypes
import fcntl
import select
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO off, ETHTOOL_SGRO on
FEATURES = ((0x17, 0), (0x1F, 0), (0x24, 0), (0x2C, 1))


def real(device):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for command, value in FEATURES:
            data = ctypes.create_string_buffer(struct.pack("II", command, value))
            fcntl.ioctl(s, SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(data)))


def kind(frame, port):
    """"syn", "other", or None: not of this port."""
    protocol = struct.unpack("!H", frame[12:14])[0]
    if protocol == 0x0800:
        proto, l4 = frame[23], 14 + (frame[14] & 15) * 4
    elif protocol == 0x86DD:
        proto, l4 = frame[20], 54
    else:
        return None
    if proto not in (6, 17) or port not in struct.unpack("!HH", frame[l4 : l4 + 4]):
        return None
    return "syn" if proto == 6 and frame[l4 + 13] & 0x12 == 2 else "other"


def count(device, port):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        s.bind((device, 0))
        print("ready", flush=True)
        seen = {"syn": 0, "other": 0}
        over = False
        while True:
            ready, _, _ = select.select([s] if over else [s, sys.stdin], [], [], 0 if over else None)
            if s in ready:
                frame, address = s.recvfrom(2048)
                found = kind(frame, port) if address[2] != socket.PACKET_OUTGOING else None
                if found:
                    seen[found] += 1
            elif sys.stdin in ready:
                over = True
            elif over:
                break
        print(seen["syn"], seen["other"])


if sys.argv[1] == "real":
    for name in sys.argv[2:]:
        real(name)
else:
    count(sys.argv[2], int(sys.argv[3]))
