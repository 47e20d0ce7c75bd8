# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The data path: what a packet costs behind 100 doors, behind a minimal stateful firewall, and without rules.

One process on one core does everything. A packet sent into a veth pair is received, filtered and delivered
before the call that sent it returns, so the time of that call is the cost of the whole path. Three servers,
one for each ruleset, are measured in turns of about a millisecond; of these turns the low quartile counts,
because other work on the machine only ever adds. Every round has new namespaces, so that where things happen
to lie in memory does not decide.
"""

import contextlib
import ctypes
import os
import re
import socket
import struct
import time
from collections.abc import Sequence

from bench_lan import BACKENDS, Backend, BenchError, Lan, inside
from bench_ruleset import CLOSED_PORT, EMPTY, FLOW_PORT, MINIMAL, OPEN_PORT, Core, door_options
from bench_series import Table, costs_in_turns, ratios, rounds

COSTS = (("established packet", 1.05), ("SYN to a closed port", 2))
GOAL_CONNECTIONS, CONNECTION = 0.95, 2
RULESETS = ("doors", "minimal", "none")
PACKETS, TURNS, CONNECTIONS = 200, 60, 30

_libc = ctypes.CDLL(None, use_errno=True)


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint),
        ("parts", ctypes.POINTER(_Part)), ("partslen", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class Burst:
    """Packets that one system call sends through a connected socket: Python then costs nothing a packet."""

    def __init__(self, sock: socket.socket, packets: Sequence[bytes]) -> None:
        """Take the socket and the packets."""
        self._sock = sock
        self._buffers = [ctypes.create_string_buffer(packet, len(packet)) for packet in packets]
        self._parts = [_Part(ctypes.addressof(buffer), len(buffer)) for buffer in self._buffers]
        self._messages = (_Message * len(packets))(
            *(_Message(_Header(parts=ctypes.pointer(part), partslen=1)) for part in self._parts)
        )

    def send(self) -> float:
        """Send them all; return the nanoseconds a packet."""
        count = len(self._messages)
        start = time.perf_counter_ns()
        sent = _libc.sendmmsg(self._sock.fileno(), self._messages, count, 0)
        spent = time.perf_counter_ns() - start
        if sent != count:
            raise BenchError("sendmmsg: {0} of {1} sent: {2}".format(sent, count, os.strerror(ctypes.get_errno())))
        return spent / count


def syn_packet(source: str, target: str, source_port: int, port: int) -> bytes:
    """Return an IPv4 packet that asks for a TCP connection."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    check = _checksum(addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", check) + tcp[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0) + addresses + tcp


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack("!{0}H".format(len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def connection_ns(server: str, listener: socket.socket) -> float:
    """Return the nanoseconds of a new connection to the allowed port of a server, made, accepted and closed."""
    start = time.perf_counter_ns()
    for _number in range(CONNECTIONS):
        with socket.socket() as sock:
            sock.connect((server, OPEN_PORT))
            listener.accept()[0].close()
    return (time.perf_counter_ns() - start) / CONNECTIONS


class Path:
    """The way from the client to one server: an established flow, packets to a closed port, new connections."""

    def __init__(self, lan: Lan, name: str, backend: Backend, ruleset: str) -> None:
        """Load the ruleset and open the sockets."""
        self._client, self._server = lan.addresses(name)
        self._namespace, self._home, self._backend = lan.namespace(name), lan.client, backend
        self._open = contextlib.ExitStack()
        with inside(self._namespace):
            if ruleset:
                backend.restore(ruleset)
            self._listener = self._socket(socket.SOCK_STREAM)
            self._listener.bind((self._server, OPEN_PORT))
            self._listener.listen(16)
            self._sink = self._socket(socket.SOCK_DGRAM)
            self._sink.bind((self._server, FLOW_PORT))
        with inside(self._home):
            self.established, self.closed = self._flow(), self._syns()
        self._has_rules = bool(ruleset)

    def close(self) -> None:
        """Close the sockets."""
        self._open.close()

    def _socket(self, kind: int, protocol: int = 0) -> socket.socket:
        sock = self._open.enter_context(socket.socket(socket.AF_INET, kind, protocol))
        sock.settimeout(5)
        return sock

    def _flow(self) -> Burst:
        """Return a Burst on a UDP flow that has been answered; nothing reads it, so its queue stays full."""
        sock = self._socket(socket.SOCK_DGRAM)
        sock.connect((self._server, FLOW_PORT))
        sock.send(b"first")
        _data, source = self._sink.recvfrom(100)
        self._sink.sendto(b"answer", source)
        sock.recv(100)
        sock.setblocking(True)
        burst = Burst(sock, [b"x" * 32] * PACKETS)
        for _turn in range(10):
            burst.send()
        return burst

    def _syns(self) -> Burst:
        raw = self._socket(socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.connect((self._server, 0))
        raw.setblocking(True)
        packets = [syn_packet(self._client, self._server, 20000 + n, CLOSED_PORT) for n in range(PACKETS)]
        return Burst(raw, packets)

    def connect_ns(self) -> float:
        """Return the nanoseconds of a new connection to the allowed port, made, accepted and closed."""
        return connection_ns(self._server, self._listener)

    def check(self) -> None:
        """Make sure that the packets met the rules that they were meant for."""
        if not self._has_rules:
            return
        with inside(self._namespace):
            save = self._backend.save(counters=True)
        for what, pattern in (("established", "--ctstate (?:RELATED,)?ESTABLISHED"), ("refused", "-j REJECT")):
            counts = re.findall(r"^\[(\d+):\d+\] -A .*" + pattern, save, re.M)
            if sum(map(int, counts)) < PACKETS * TURNS:
                raise BenchError("only {0} packets were {1}: this did not measure what it says.".format(counts, what))


def one_round(backend: Backend, texts: dict[str, str]) -> dict[str, list[float]]:
    """Return (cost of an established packet, of a SYN to a closed port, of a connection) for every ruleset."""
    with Lan(*texts) as lan, contextlib.ExitStack() as stack:
        paths = {}
        for name, text in texts.items():
            paths[name] = Path(lan, name, backend, text)
            stack.callback(paths[name].close)
        acts = {name: (path.established.send, path.closed.send, path.connect_ns) for name, path in paths.items()}
        with inside(lan.client):
            costs = costs_in_turns(acts, TURNS)
        for path in paths.values():
            path.check()
    return costs


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    core = Core()
    text = core.plan_family(EMPTY, core.spec_from_options(door_options(100)), "ipv4").change
    texts = dict(zip(RULESETS, (text, MINIMAL, ""), strict=True))
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(affinity)})
    try:
        for name in BACKENDS:
            _add_rows(table, name, [one_round(Backend(name), texts) for _round in range(rounds(full, 11, 51))])
    finally:
        os.sched_setaffinity(0, affinity)


def _add_rows(table: Table, backend: str, results: Sequence[dict[str, list[float]]]) -> None:
    def costs(name: str, number: int) -> list[float]:
        return [result[name][number] for result in results]

    for number, (what, goal) in enumerate(COSTS):
        for other, wanted in (("minimal", goal), ("none", None)):
            row = "{0}: doors / {1}, {2}".format(what, other.replace("none", "no rules"), backend)
            table.add(row, ratios(costs("doors", number), costs(other, number)), wanted)
    for other, wanted in (("minimal", GOAL_CONNECTIONS), ("none", None)):
        row = "connections a second: doors / {0}, {1}".format(other.replace("none", "no rules"), backend)
        # Connections a second are the inverse of the time that one takes.
        table.add(row, ratios(costs(other, CONNECTION), costs("doors", CONNECTION)), wanted, least=True)
