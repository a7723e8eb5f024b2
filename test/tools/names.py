# SPDX-License-Identifier: Apache-2.0
"""A name server with a web server behind every address, and a client that resolves and connects at once.

    names.py serve ADDRESS...       answers on port 53 of each ADDRESS, and TCP port 80 of every address
    names.py connect SERVER NAME... one line of JSON: for each name "open", "timeout", "refused" or "no answer"
    names.py count SERVER COUNT FORMAT   the same for FORMAT % 0 to COUNT - 1: {"open": 1000}
    names.py resolve SERVER COUNT FORMAT without connections, many at once: how many were answered
    names.py tcp SERVER NAME        over TCP, then the zone of NAME: number of messages, of both
    names.py reach ADDRESS PORT     no question: "open", "timeout" or "refused"

The server knows nN.example.com (one address, A and AAAA), aN.example.net (an alias of nN.example.com), mN.example.org (ten
addresses) and other.example.edu. A name that begins with "short" has a time to live of 1 s, others of 60 s.
"""
import json
import re
import select
import socket
import struct
import sys
import threading

A, CNAME, AAAA, AXFR = 1, 5, 28, 252
ZONE_MESSAGES = 3


def encode(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def decode(message, at):
    parts = []
    while message[at]:
        parts.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(parts), at + 1


def record(name, kind, data, ttl=60):
    return encode(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def address(number):
    return socket.inet_aton("203.0.%d.%d" % (112 + number // 250, 1 + number % 250))


def records(name, kind):
    match = re.fullmatch(r"([a-z]+)(\d+)\.example\.(com|net|org)", name.lower())
    if name.lower() == "other.example.edu":
        return [record(name, A, address(3999))] if kind == A else []
    if match is None:
        return None
    word, number = match.group(1), int(match.group(2))
    if word == "m":
        first = number * 10
        return [record(name, A, struct.pack("!I", 0x64400000 + first + i)) for i in range(10)] if kind == A else []
    found = []
    owner = name
    if word == "a":
        owner = "n%d.example.com" % number
        found.append(record(name, CNAME, encode(owner)))
    ttl = 1 if word == "short" else 60
    if kind == A:
        found.append(record(owner, A, address(number), ttl))
    if kind == AAAA:
        found.append(record(owner, AAAA, socket.inet_pton(socket.AF_INET6, "2001:db8:200::%x" % (number + 1)), ttl))
    return found


def answer(message):
    name, end = decode(message, 12)
    kind = struct.unpack("!H", message[end:end + 2])[0]
    found = records(name, kind)
    head = message[:2] + struct.pack("!HHHHH", 0x8180 | (3 if found is None else 0), 1, len(found or []), 0, 0)
    return head + message[12:end + 4] + b"".join(found or [])


def stream(sock):
    with sock:
        while True:
            head = sock.recv(2, socket.MSG_WAITALL)
            if len(head) < 2:
                return
            message = sock.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
            kind = struct.unpack("!H", message[decode(message, 12)[1]:][:2])[0]
            reply = answer(message)
            for _ in range(ZONE_MESSAGES if kind == AXFR else 1):
                sock.sendall(struct.pack("!H", len(reply)) + reply)


def streams(listener):
    while True:
        threading.Thread(target=stream, args=(listener.accept()[0],), daemon=True).start()


def serve(addresses):
    sockets = []
    for where in addresses:
        family = socket.AF_INET6 if ":" in where else socket.AF_INET
        questions = socket.socket(family, socket.SOCK_DGRAM)
        questions.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        questions.bind((where, 53))
        sockets.append(questions)
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((where, 53))
        listener.listen(16)
        threading.Thread(target=streams, args=(listener,), daemon=True).start()
    web = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    web.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    web.bind(("::", 80))
    web.listen(512)

    def accept():
        while True:
            web.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    while True:
        for questions in select.select(sockets, [], [])[0]:
            message, sender = questions.recvfrom(1500)
            questions.sendto(answer(message), sender)


def question(name, number, kind):
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + encode(name) + struct.pack("!HH", kind, 1)


def resolve(server, name, kind=A):
    """The last address of the answer, or None."""
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((server, 53))
        try:
            sock.send(question(name, 7, kind))
            message = sock.recv(4096)
        except (TimeoutError, ConnectionRefusedError, PermissionError):
            return None
    size = 16 if kind == AAAA else 4
    if struct.unpack("!H", message[6:8])[0] == 0:
        return None
    return socket.inet_ntop(socket.AF_INET6 if kind == AAAA else socket.AF_INET, message[-size:])


def over_tcp(server, name):
    counts = []
    for kind in (A, AXFR):
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect((server, 53))
            message = question(name, 7, kind)
            sock.sendall(struct.pack("!H", len(message)) + message)
            count = 0
            while count < (ZONE_MESSAGES if kind == AXFR else 1):
                head = sock.recv(2, socket.MSG_WAITALL)
                if len(head) < 2:
                    break
                sock.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
                count += 1
            counts.append(count)
    return counts


def reach(where, port, seconds=0.4):
    with socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect((where, port))
            return "open"
        except TimeoutError:
            return "timeout"
        except ConnectionRefusedError:
            return "refused"


def connect(server, name):
    kind = AAAA if name.startswith("6:") else A
    where = resolve(server, name[2:] if kind == AAAA else name, kind)
    return "no answer" if where is None else reach(where, 80)


def flood(server, count, form):
    """Asks with 64 questions under way."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.connect((server, 53))
    waiting, nextone, answered, idle = set(), 0, 0, 0
    while nextone < count or waiting:
        while nextone < count and len(waiting) < 64:
            sock.send(question(form % nextone, nextone, A))
            waiting.add(nextone & 0xFFFF)
            nextone += 1
        if not select.select([sock], [], [], 5)[0]:
            break
        message = sock.recv(4096)
        number = struct.unpack("!H", message[:2])[0]
        if number in waiting:
            waiting.discard(number)
            answered += struct.unpack("!H", message[6:8])[0] > 0
    return answered


mode, rest = sys.argv[1], sys.argv[2:]
if mode == "serve":
    serve(rest)
elif mode == "connect":
    print(json.dumps([connect(rest[0], name) for name in rest[1:]]))
elif mode == "count":
    outcomes = [connect(rest[0], rest[2] % i) for i in range(int(rest[1]))]
    print(json.dumps({outcome: outcomes.count(outcome) for outcome in set(outcomes)}))
elif mode == "resolve":
    print(json.dumps(flood(rest[0], int(rest[1]), rest[2])))
elif mode == "tcp":
    print(json.dumps(over_tcp(rest[0], rest[1])))
elif mode == "reach":
    print(json.dumps(reach(rest[0], int(rest[1]))))
