# SPDX-License-Identifier: Apache-2.0
"""Opens connections to order from inside a namespace, and answers those of others.

Reads one JSON object a line: {"id": 7, "protocol": "TCP", "address": "10.1.0.3", "port": 80}, or {"end": true},
which closes what is open. Prints {"id": 7, "port": 40001} with the source port (ICMP, SCTP: chosen here) when the
first packet is sent, and {"id": 7, "answered": true} when an answer comes. Prints "ready" first.

Arguments: the ports to serve by TCP and UDP. ICMP echoes are answered by the kernel. SCTP has no sockets here: raw
packets, an INIT is answered with an INIT ACK (RFC 9260). Ids are below 65536.
"""
import errno
import json
import os
import select
import socket
import struct
import sys

PORTS = [int(port) for port in sys.argv[1:]]
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
SCTP, INIT, INIT_ACK = 132, 1, 2
ICMP6 = socket.getprotobyname("ipv6-icmp")

epoll = select.epoll()
handlers = {}
open_probes = []  # sockets of probes
waiting = {}  # (protocol, family, own port or id) -> probe id


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def watch(fd, events, handler):
    handlers[fd] = handler
    epoll.register(fd, events)


def forget(sock):
    handlers.pop(sock.fileno(), None)
    epoll.unregister(sock.fileno())
    sock.close()


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp_packet(source, destination, kind):
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, 1, 65536, 1, 1, 1)
    head = struct.pack("!HHI", source, destination, 0)
    return head + struct.pack("<I", crc32c(head + b"\0\0\0\0" + chunk)) + chunk


def serve():
    for port in PORTS:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(512)
        listener.setblocking(False)
        watch(listener.fileno(), select.EPOLLIN, lambda events, s=listener: accept(s))
        echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        echo.bind(("::", port))
        watch(echo.fileno(), select.EPOLLIN, lambda events, s=echo: s.sendto(*s.recvfrom(100)))


def accept(listener):
    connection, _ = listener.accept()
    connection.close()


def serve_raw():
    sockets = {}
    for version, family in FAMILIES.items():
        icmp = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if version == 4 else ICMP6)
        watch(icmp.fileno(), select.EPOLLIN, lambda events, s=icmp, v=version: echo_reply(s, v))
        sctp = socket.socket(family, socket.SOCK_RAW, SCTP)
        watch(sctp.fileno(), select.EPOLLIN, lambda events, s=sctp, v=version: sctp_received(s, v))
        sockets["ICMP", version], sockets["SCTP", version] = icmp, sctp
    return sockets


def body_of(packet, version):
    return packet[(packet[0] & 15) * 4:] if version == 4 else packet


def echo_reply(sock, version):
    packet, _ = sock.recvfrom(2000)
    body = body_of(packet, version)
    if len(body) >= 8 and body[0] == (0 if version == 4 else 129):
        answered(("ICMP", version, struct.unpack("!H", body[4:6])[0]))


def sctp_received(sock, version):
    packet, sender = sock.recvfrom(2000)
    body = body_of(packet, version)
    if len(body) < 16:
        return
    source, destination = struct.unpack("!HH", body[:4])
    if body[12] == INIT:
        sock.sendto(sctp_packet(destination, source, INIT_ACK), (sender[0], 0))
    elif body[12] == INIT_ACK:
        answered(("SCTP", version, destination))


def answered(key):
    probe = waiting.pop(key, None)
    if probe is not None:
        say({"id": probe, "answered": True})


def connected(sock, probe):
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error in (0, errno.ECONNREFUSED):
        say({"id": probe, "answered": True})
    open_probes.remove(sock)
    forget(sock)


def datagram(sock, probe):
    try:
        sock.recv(100)
    except ConnectionRefusedError:
        pass
    say({"id": probe, "answered": True})
    open_probes.remove(sock)
    forget(sock)


def send(what):
    try:
        what()
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # dropped on its way out
            raise


def begin(order):
    probe, protocol, address, port = order["id"], order["protocol"], order["address"], order.get("port", 0)
    version = 6 if ":" in address else 4
    if protocol in ("ICMP", "SCTP"):
        waiting[protocol, version, probe] = probe
        say({"id": probe, "port": probe})
        if protocol == "SCTP":
            packet = sctp_packet(probe, port, INIT)
        else:
            head = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, probe, 1)
            packet = head[:2] + struct.pack("!H", checksum(head)) + head[4:] if version == 4 else head
        send(lambda: raw[protocol, version].sendto(packet, (address, 0)))
        return
    sock = socket.socket(FAMILIES[version], socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("::" if version == 6 else "0.0.0.0", 0))
    say({"id": probe, "port": sock.getsockname()[1]})
    open_probes.append(sock)
    if protocol == "TCP":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.connect_ex((address, port))
        watch(sock.fileno(), select.EPOLLOUT, lambda events: connected(sock, probe))
    else:
        sock.connect((address, port))
        send(lambda: sock.send(b"?"))
        watch(sock.fileno(), select.EPOLLIN, lambda events: datagram(sock, probe))


def end_probes():
    waiting.clear()
    while open_probes:
        forget(open_probes.pop())


rest = b""


def orders(events):
    global rest
    data = os.read(0, 65536)
    if not data:
        sys.exit(0)
    lines = (rest + data).split(b"\n")
    rest = lines.pop()
    for line in lines:
        order = json.loads(line)
        if "end" in order:
            end_probes()
        else:
            begin(order)


serve()
raw = serve_raw()
watch(0, select.EPOLLIN, orders)
print("ready", flush=True)
while True:
    for fd, happened in epoll.poll():
        if fd in handlers:
            handlers[fd](happened)
