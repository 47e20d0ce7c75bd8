# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at ports from outside: open, refused by a reset, refused by ICMP, or silent. Imports nothing of the collection."""

import contextlib
import errno
import os
import re
import select
import socket
import struct
import sys
import time
from typing import Any, Dict, Iterable, Optional, Sequence, Tuple

Target = Tuple[str, int, str]
"""(address, port, ``tcp`` or ``udp``)."""

OPEN, RESET, REFUSED, SILENT, UNREACHABLE = "open", "reset", "refused", "silent", "unreachable"
"""The outcome of a try. REFUSED: by a reset or by ICMP, this platform cannot say which. UNREACHABLE: it could not be sent. A
refusal by ICMP that can be read is ``icmp TYPE/CODE``, with `` by ADDRESS`` behind it if not the host itself said so."""

ANSWER_SECONDS = 2.0
"""Seconds for an answer. The kernel repeats a SYN after one second, so one packet in each direction may get lost."""

AT_ONCE = 32
"""How many ports are looked at at the same time: more, and a host's own limit on ICMP makes them look silent."""

AGAIN = 1.1
"""Seconds after which an unanswered datagram is sent again: a Linux host sends one ICMP error a second at the least."""

_BLIND_SECONDS = 0.01

# Neither of them is in Python's socket module. Linux queues the ICMP error of a TCP connect from 5.8 on.
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_MSG_ERRQUEUE = 0x2000
_ICMP, _ICMPV6 = 2, 3
_NO_WAY = ("icmp 3/0", "icmp 3/1", "icmp 1/0", "icmp 1/3")
"""No route, or no such host: reports about the path, not the host's refusal."""
_REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.ENOPROTOOPT)


def queues_errors(platform: str = sys.platform, release: Optional[str] = None) -> bool:
    """Return whether the kernel says which ICMP error ended a TCP connect."""
    found = re.match(r"(\d+)\.(\d+)", release or os.uname()[2])
    if not found or not platform.startswith("linux"):
        return False
    return (int(found.group(1)), int(found.group(2))) >= (5, 8)


def local_address(address: str) -> str:
    """Return the address that this machine sends from to another one, '' if it has no way to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        # Connecting a datagram socket sends nothing.
        opened.connect(socket.getaddrinfo(address, 9, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0][4])
        return opened.getsockname()[0]
    except OSError:
        return ""
    finally:
        opened.close()


def probe(
    targets: Iterable[Target], patience: float = ANSWER_SECONDS, source: str = "", half_open: Any = None
) -> Dict[Target, str]:
    """Look at ports, many at the same time, and return target to what became of it.

    :param targets: (address, port, protocol) of each.
    :param patience: seconds to wait for an answer.
    :param source: the address to send from, where it has the family of the one to send to.
    :param half_open: the file half_open.py, where no connection is to be made to the end.
    """
    wanted = list(dict.fromkeys(targets))
    found: Dict[Target, str] = {}
    for start in range(0, len(wanted), AT_ONCE):
        found.update(_probe_some(wanted[start : start + AT_ONCE], patience, source, half_open))
    return found


def compare(
    target: Target,
    steps: Sequence[Tuple[int, str]],
    patience: float = ANSWER_SECONDS,
    source: str = "",
    before: str = SILENT,
) -> Tuple[str, str]:
    """Return what becomes of a port that did not open, and of one that is closed for certain, '' where that would say nothing.

    The closed one is the knock's last step over TCP: nothing listens at a step, and no rule lets it in.

    :param steps: (port, protocol) pairs.
    :param before: what became of the port a moment ago: REFUSED, UNREACHABLE or SILENT.
    """
    closed = next(((target[0], step, kind) for step, kind in reversed(list(steps)) if kind == "tcp"), target)
    if before == SILENT:
        found = probe((target, closed), patience, source)
        return found[target], "" if closed == target else found[closed]
    # One after the other: a host limits how much it refuses by ICMP, and says nothing if that is too much.
    answer = probe((target,), patience, source)[target]
    if answer == SILENT:
        return ("icmp" if before == REFUSED else before), ""
    if answer not in (RESET, REFUSED) or closed == target:
        return answer, ""
    return answer, probe((closed,), patience, source)[closed]


def _probe_some(targets: Sequence[Target], patience: float, source: str, half_open: Any) -> Dict[Target, str]:
    tries: Dict[int, _Try] = {}
    found: Dict[Target, str] = {}
    try:
        for target in targets:
            try:
                made = _Try(target, source, half_open)
                tries[made.number] = made
            except OSError as error:
                # On the way through loopback the refusal is there at once.
                found[target] = REFUSED if error.errno == errno.ECONNREFUSED else UNREACHABLE
        _collect(tries, found, time.monotonic() + patience)
    finally:
        for made in tries.values():
            made.close()
    found.update({made.target: SILENT for made in tries.values() if made.target not in found})
    return found


def _collect(tries: "Dict[int, _Try]", found: Dict[Target, str], end: float) -> None:
    poller = select.poll()
    for number, made in tries.items():
        poller.register(number, made.wanted)
    waiting = dict(tries)
    again = time.monotonic() + AGAIN
    while waiting:
        left = min(end, again) - time.monotonic()
        if left <= 0 and end <= again:
            return
        if left <= 0:
            _repeat(waiting.values())
            again += AGAIN
            continue
        # A connection that is left half open wakes no service.
        blind = any(made.is_half_open for made in waiting.values())
        ready = {number for number, _event in poller.poll(min(left, _BLIND_SECONDS if blind else left) * 1000 + 1)}
        for number in ready | {number for number, made in waiting.items() if made.has_answered()}:
            made = waiting.pop(number)
            poller.unregister(number)
            found[made.target] = made.outcome()


def _repeat(tries: "Iterable[_Try]") -> None:
    for made in tries:
        made.repeat()


class _Try:
    """One port: a connect that is under way, or a datagram that was sent."""

    def __init__(self, target: Target, source: str, half_open: Any) -> None:
        self.target, self._half_open = target, half_open
        address, port, protocol = target
        self._datagram = protocol == "udp"
        kind = socket.SOCK_DGRAM if self._datagram else socket.SOCK_STREAM
        family, _kind, _number, _name, where = socket.getaddrinfo(address, port, 0, kind, 0, socket.AI_NUMERICHOST)[0]
        self._ipv6 = family == socket.AF_INET6
        self._socket = socket.socket(family, kind)
        self.number = self._socket.fileno()
        self.wanted = select.POLLIN if self._datagram else select.POLLOUT
        self.is_half_open = bool(half_open and not self._datagram and half_open.attach(self._socket))
        try:
            self._start(where, source)
        except OSError:
            self.close()
            raise

    def _start(self, where: Any, source: str) -> None:
        self._socket.setblocking(False)
        if source and (":" in source) == self._ipv6:
            self._socket.bind((source, 0))
        if queues_errors():
            level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if self._ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
            self._socket.setsockopt(level, option, 1)
        code = self._socket.connect_ex(where)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        self.repeat()

    def repeat(self) -> None:
        """Send a datagram once more; TCP repeats by itself."""
        if not self._datagram:
            return
        # What an error is about shows when the outcome is read.
        with contextlib.suppress(OSError):
            self._socket.send(b"\0")

    def has_answered(self) -> bool:
        """Return whether a port that is looked at without a connection has said that it is open."""
        return self.is_half_open and self._half_open.drops(self._socket) > 0

    def outcome(self) -> str:
        """Return what became of it, now that there is something to read or to write."""
        if self.has_answered():
            return OPEN
        said = self._icmp()
        if said:
            return UNREACHABLE if said.split(" by ", 1)[0] in _NO_WAY else said
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            return self._answer()
        if code == errno.ETIMEDOUT:
            return SILENT
        if code == errno.ECONNREFUSED and not self._datagram and queues_errors():
            return RESET
        if code == errno.ECONNRESET:
            return RESET
        return REFUSED if code in _REFUSALS else UNREACHABLE

    def _answer(self) -> str:
        if not self._datagram:
            return OPEN
        try:
            self._socket.recv(1)
        except OSError as error:
            return REFUSED if error.errno in _REFUSALS else SILENT
        return OPEN

    def _icmp(self) -> str:
        if not queues_errors():
            return ""
        try:
            _data, extra, _flags, _where = self._socket.recvmsg(1, 512, _MSG_ERRQUEUE)
        except OSError:
            return ""
        return next((text for text in (read_error(data, self.target[0]) for _level, _kind, data in extra) if text), "")

    def close(self) -> None:
        """Give it up; nothing is repeated then."""
        self._socket.close()


def read_error(data: bytes, address: str) -> str:
    """Return the text for a sock_extended_err with the address of who said so behind it, '' for what is no ICMP. Pure."""
    if len(data) < 16:
        return ""
    _number, origin, kind, code = struct.unpack_from("=IBBB", data)
    if origin not in (_ICMP, _ICMPV6):
        return ""
    said = _offender(data[16:])
    return f"icmp {kind}/{code}" + (" by " + said if said and said != address.split("%", 1)[0] else "")


def _offender(data: bytes) -> str:
    if len(data) < 8:
        return ""
    family = struct.unpack_from("=H", data)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(family, data[8:24])
    return ""


__all__ = (
    "ANSWER_SECONDS",
    "OPEN",
    "REFUSED",
    "RESET",
    "SILENT",
    "UNREACHABLE",
    "compare",
    "local_address",
    "probe",
    "queues_errors",
    "read_error",
)
