# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random packets to the target, and which of them it lets in.

A raw socket of the target gets a copy of each packet that the rules have let through, and of no other.
"""

import ipaddress
import os
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from rig import packets
from rig.network import Rig
from rig.packets import IPV4, IPV6
from rig.target import ROOT

sys.path.append(str(ROOT / "tests/unit/support"))
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from prover_questions import PROMISED
from walker import Packet

HOST = {IPV4: "203.0.113.1", IPV6: "2001:db8:ffff::1"}
OPTIONS = [dict(PROMISED, **more) for more in ({}, {"policy": "accept"}, {"reject_with": "drop"})]
SPECS = [spec_from_options(each) for each in OPTIONS]
LAST_STEPS = {(door.knock[-1].port, door.knock[-1].protocol) for door in SPECS[0].doors}
"""No packet of these tests opens a door: what the lists do is tested elsewhere."""
FLAGS = ("SYN", "SYN", "SYN,PSH", "SYN,URG", "SYN,PSH,URG")
EVERY_PORT = tuple(Ports(0, 65535, protocol) for protocol in PROTOCOLS)
TAIL, TAILS = 0x88B5, 8
"""A kind of frame that nothing looks at: once it has come in, everything before it has been decided."""
_USED: set[tuple[str, int, str]] = set()
"""Connections of all tests: the kernel knows those of the tests before, and another packet of theirs is not the first one."""


class Wire:
    """Sends numbered packets, and tells which of them were let in."""

    def __init__(self, rig: Rig) -> None:
        """Give the target addresses and a way back to everybody.

        The way leads over a known neighbour. Refusals that wait for neighbours to be found fill the socket from which the kernel
        sends ICMP for all namespaces: then hosts of other tests refuse nothing, and look as if they dropped packets.
        """
        self.client, self.number = rig.client, 0
        namespace = rig.target.namespace
        for family, flag in ((IPV4, "-4"), (IPV6, "-6")):
            here = ["nodad"] if family == IPV6 else []
            namespace.run("ip", flag, "address", "replace", HOST[family], "dev", "eth0", *here)
            namespace.run("ip", flag, "route", "replace", "default", "via", rig.client.addresses[family])
        with namespace.entered():
            self.raw = {
                (family, protocol): socket.socket(kind, socket.SOCK_RAW | socket.SOCK_NONBLOCK, number)
                for family, kind in ((IPV4, socket.AF_INET), (IPV6, socket.AF_INET6))
                for protocol, number in (("tcp", packets.TCP), ("udp", packets.UDP))
            }
            self.tail = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TAIL))
        self.tail.settimeout(20)
        for handle in self.raw.values():
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.header = bytes.fromhex((namespace.mac + rig.client.namespace.mac).replace(":", ""))
        self.namespace = namespace

    def close(self) -> None:
        """Take both away."""
        for handle in (self.tail, *self.raw.values()):
            handle.close()
        for family, flag in ((IPV4, "-4"), (IPV6, "-6")):
            self.namespace.run("ip", flag, "route", "del", "default")
            length = "/32" if family == IPV4 else "/128"
            self.namespace.run("ip", flag, "address", "del", HOST[family] + length, "dev", "eth0")

    def let_in(self, family: str, sent: Sequence[Packet]) -> list[bool]:
        """Send packets, and return for each whether it was let in."""
        cores = os.sched_getaffinity(0)
        # What one core sends, is decided in that order.
        os.sched_setaffinity(0, {min(cores)})
        try:
            first = self.number
            for packet in sent:
                self.client.send(self._bytes(packet))
            for _turn in range(TAILS):
                self.client._out.send(self.header + struct.pack("!H", TAIL) + b"\0" * 46)
            for _turn in range(TAILS):
                self.tail.recv(2000)
        finally:
            os.sched_setaffinity(0, cores)
        seen = {number for protocol in PROTOCOLS for number in self._arrived(family, protocol)}
        return [first + place + 1 in seen for place in range(len(sent))]

    def _bytes(self, packet: Packet) -> bytes:
        self.number += 1
        ends = (packet.source, packet.destination, packet.sport, packet.port)
        if packet.protocol == "udp":
            kind, data = packets.UDP, packets.udp(*ends, payload=struct.pack("!I", self.number))
        else:
            flags = sum(getattr(packets, flag) for flag in packet.flags.split(","))
            kind, data = packets.TCP, packets.tcp(*ends, flags=flags, seq=self.number)
        return packets.ip(packet.source, packet.destination, kind, data)

    def _arrived(self, family: str, protocol: str) -> Iterator[int]:
        while True:
            try:
                data = self.raw[family, protocol].recv(4096)
            except BlockingIOError:
                return
            start = (data[0] & 15) * 4 if family == IPV4 else 0
            start += 4 if protocol == "tcp" else 8
            yield struct.unpack("!I", data[start : start + 4])[0]


def some_packets(rng: random.Random, family: str, count: int, mac: str, alone: bool = False) -> list[Packet]:
    """Return first packets of connections, each of another connection, from an Ethernet address.

    :param alone: whether each is to come from a source of its own.
    """
    found: list[Packet] = []
    sources: set[str] = set()
    while len(found) < count:
        protocol = rng.choice(["tcp", "tcp", "udp"])
        port = rng.choice(random_rules.PORTS) if rng.random() < 0.8 else rng.randint(1, 65535)
        sport = rng.choice([22, 53]) if rng.random() < 0.1 else rng.randint(1024, 65535)
        source = _some_source(rng, family) if alone else rng.choice(random_rules.SOURCES[family])
        if (port, protocol) in LAST_STEPS or (source, sport, protocol) in _USED or source in sources:
            continue
        _USED.add((source, sport, protocol))
        sources.update([source] if alone else [])
        flags = rng.choice(FLAGS) if protocol == "tcp" else ""
        found.append(Packet(source, port, protocol, sport=sport, flags=flags, destination=HOST[family], mac=mac))
    return found


def _some_source(rng: random.Random, family: str) -> str:
    if rng.random() < 0.3:
        return rng.choice(random_rules.SOURCES[family])
    network = ipaddress.ip_network(rng.choice(random_rules.NETWORKS[family][1:]))
    return str(network[rng.randrange(1, min(network.num_addresses - 1, 1 << 16))])


def judged(
    sent: Sequence[Packet], became: Sequence[bool], can: Sequence[Sequence[set[bool]]], text: str
) -> tuple[Counter[str], list[tuple[str, Packet, bool, str]]]:
    """Return how many packets the prover judges, and those of which it is wrong, with the rules.

    :param became: whether each was let in.
    :param can: what may become of each, exactly and coarsely.
    """
    counts, wrong = Counter(sent=len(sent), let_in=sum(became)), []
    for place, packet in enumerate(sent):
        for kind, each in zip(("exactly", "coarsely"), can):
            counts[f"prover, {kind}"] += len(each[place]) == 1
            if became[place] not in each[place]:
                wrong.append((kind, packet, became[place], text))
    return counts, wrong


def check_enough(counts: Counter[str], exactly: float = 0.9) -> None:
    """What the prover cannot judge is less than a tenth, if nothing else is said; both verdicts were seen."""
    assert counts["prover, exactly"] > exactly * counts["sent"], counts
    assert 0.1 * counts["sent"] < counts["let_in"] < 0.9 * counts["sent"], counts


__all__ = ("EVERY_PORT", "HOST", "OPTIONS", "SPECS", "Wire", "check_enough", "judged", "some_packets")
