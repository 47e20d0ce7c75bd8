# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that knocks and tries doors, packet by packet: each knock is one SYN or one datagram."""

import itertools
import socket
import time
from collections.abc import Callable, Iterator

from rig import packets
from rig.lan import Namespace
from rig.packets import IPV4, IPV6, Seen

TARGET = {IPV4: "10.77.0.1", IPV6: "fd77::1"}
OWN = {"client": {IPV4: "10.77.0.2", IPV6: "fd77::2"}, "other": {IPV4: "10.77.0.3", IPV6: "fd77::3"}}

OPEN, RESET, SILENT = "open", "reset", "silent"
# What `REJECT --reject-with icmp-port-unreachable` and its like for IPv6 look like to a client.
REFUSED = {IPV4: "icmp 3/3", IPV6: "icmp 1/4"}
PROHIBITED = {IPV4: "icmp 3/13", IPV6: "icmp 1/1"}
PATIENCE = 1.0


class Peer:
    """The client or the other host, as bytes on its wire."""

    def __init__(self, namespace: Namespace, target_mac: str) -> None:
        """Open the sockets in the namespace."""
        self.namespace = namespace
        self.addresses = OWN[namespace.name]
        self._ports = itertools.cycle(range(20000, 60000))
        own_mac = bytes.fromhex(namespace.mac.replace(":", ""))
        self._to_target = bytes.fromhex(target_mac.replace(":", "")) + own_mac
        self._to_all = {IPV4: b"\xff" * 6 + own_mac, IPV6: bytes.fromhex("333300000001") + own_mac}
        with namespace.entered():
            self._out = _packet_socket(0)
            # A socket for one protocol sees only what comes in, not what goes out.
            self._in = {family: _packet_socket(kind) for family, kind in packets.ETHERTYPE.items()}

    def close(self) -> None:
        """Close the sockets."""
        for handle in (self._out, *self._in.values()):
            handle.close()

    def settle(self) -> None:
        """Let the target act on what was sent: the kernel has, before a packet is answered."""

    def fresh_port(self) -> int:
        """Return a source port that was not used for a long while."""
        return next(self._ports)

    def source(self, family: str, source: str | None = None) -> str:
        """Return the given source address, or the host's own one of the family."""
        return source or self.addresses[family]

    def send(self, data: bytes, everyone: bool = False) -> None:
        """Put an IP packet on the wire, in a frame to the target or to everyone."""
        family = IPV4 if data[0] >> 4 == 4 else IPV6
        kind = packets.ETHERTYPE[family].to_bytes(2, "big")
        self._out.send((self._to_all[family] if everyone else self._to_target) + kind + data)

    def call_everyone(self, port: int, family: str = IPV4) -> None:
        """Send a datagram as a client's chatter does: a broadcast, or for IPv6 a multicast to all nodes."""
        source, target = self.addresses[family], {IPV4: "255.255.255.255", IPV6: "ff02::1"}[family]
        self.send(
            packets.ip(source, target, packets.UDP, packets.udp(source, target, self.fresh_port(), port)), everyone=True
        )

    def knock(
        self,
        *steps: int | str,
        family: str = IPV4,
        source: str | None = None,
        pause: float = 0.0,
        sport: int | None = None,
        to: str = "",
    ) -> None:
        """Send one packet to each step in turn; then let the target act on it, where that takes time.

        :param to: the address of a host behind the target, '' for the target itself.
        """
        for number, step in enumerate(steps):
            if number and pause:
                time.sleep(pause)
            self.send_step(step, family, source, sport, to=to)
        self.settle()

    def send_step(
        self,
        step: int | str,
        family: str = IPV4,
        source: str | None = None,
        sport: int | None = None,
        flags: int = packets.SYN,
        to: str = "",
    ) -> None:
        """Send one packet to a step."""
        source, target = self.source(family, source), to or TARGET[family]
        protocol, data = packets.segment_to(source, target, step, sport or self.fresh_port(), flags)
        self.send(packets.ip(source, target, protocol, data))

    def drain(self) -> None:
        """Forget what has come in so far."""
        for handle in self._in.values():
            handle.settimeout(0)
            try:
                while handle.recv(65535):
                    pass
            except BlockingIOError:
                pass

    def answers(
        self, family: str, wanted: Callable[[Seen], bool], patience: float = PATIENCE, to: str = ""
    ) -> Iterator[Seen]:
        """Yield what comes in from the target, or a host behind it, and is wanted, until patience ends."""
        end = time.monotonic() + patience
        handle = self._in[family]
        while (left := end - time.monotonic()) > 0:
            handle.settimeout(left)
            try:
                frame = handle.recv(65535)
            except TimeoutError:
                return
            seen = packets.read(frame)
            if seen and seen.source in (TARGET[family], to) and wanted(seen):
                yield seen

    def probe(
        self,
        step: int | str,
        family: str = IPV4,
        source: str | None = None,
        sport: int | None = None,
        patience: float = PATIENCE,
        flags: int = packets.SYN,
        to: str = "",
    ) -> str:
        """Try a port with one packet and return how it answers: open, reset, silent, or icmp TYPE/CODE."""
        sport = sport or self.fresh_port()
        target = to or TARGET[family]
        protocol, data = packets.segment_to(self.source(family, source), target, step, sport, flags)
        packet = packets.ip(self.source(family, source), target, protocol, data)
        return self.ask(packet, family, sport, step, patience, to)

    def ask(
        self,
        data: bytes | list[bytes],
        family: str,
        sport: int,
        step: int | str,
        patience: float = PATIENCE,
        to: str = "",
    ) -> str:
        """Send IP packets (or a list of them) and return the answer to what they carry from sport to step."""
        self.drain()
        for part in data if isinstance(data, list) else [data]:
            self.send(part)
        seen = next(self.answers(family, _about(sport, int(str(step).partition("/")[0])), patience, to), None)
        return _named(seen)

    def ping(self, family: str = IPV4, patience: float = PATIENCE) -> bool:
        """Return whether the target answers a ping."""
        number = self.fresh_port()
        source = self.addresses[family]
        self.drain()
        self.send(packets.ip(source, TARGET[family], *packets.echo(source, TARGET[family], number)))
        kind = (0, 0) if family == IPV4 else (129, 0)
        mark = number.to_bytes(2, "big")
        return (
            next(self.answers(family, lambda seen: seen.icmp == kind and seen.payload[:2] == mark, patience), None)
            is not None
        )

    def connect(self, port: int, family: str = IPV4, timeout: float = 2.0) -> socket.socket | OSError:
        """Return a connected TCP socket of the kernel's own making, or the OSError that came of it."""
        with self.namespace.entered():
            handle = socket.socket(socket.AF_INET if family == IPV4 else socket.AF_INET6, socket.SOCK_STREAM)
        handle.settimeout(timeout)
        try:
            handle.connect((TARGET[family], port))
        except OSError as error:
            handle.close()
            return error
        return handle


def _packet_socket(kind: int) -> socket.socket:
    handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    handle.bind(("eth0", kind))
    return handle


def _about(sport: int, port: int) -> Callable[[Seen], bool]:
    def wanted(seen: Seen) -> bool:
        if seen.icmp:
            return (seen.sport, seen.dport) == (sport, port)
        return (seen.sport, seen.dport) == (port, sport)

    return wanted


def _named(seen: Seen | None) -> str:
    if seen is None:
        return SILENT
    if seen.icmp:
        return "icmp {}/{}".format(*seen.icmp)
    if seen.protocol == packets.UDP:
        return OPEN
    return RESET if seen.flags & packets.RST else OPEN
