# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""Looks at ports from outside: let in, refused by a reset, refused by ICMP, or silent."""

import contextlib
import errno
import os
import re
import select
import socket
import struct
import subprocess
import sys
import time

OPEN, RESET, REFUSED, SILENT, AWAY = "open", "reset", "refused", "silent", "away"
"""What became of a try. REFUSED: by a reset or by ICMP, this platform cannot say. AWAY: it could not be sent. A
refusal by ICMP that can be told is ``icmp TYPE/CODE``, with `` by ADDRESS`` behind it if not the host itself said so."""

PATIENCE = 2.0
"""Seconds for an answer. The kernel repeats a SYN after one second, so one packet in each direction may get lost."""

AT_ONCE = 32
"""How many ports are looked at at the same time: more, and a host's own limit on ICMP makes them look silent."""

AGAIN = 1.1
"""Seconds after which an unanswered datagram is sent again: a Linux host sends one ICMP error a second at the least."""

# Neither of them is in Python's socket module. Linux queues the ICMP error of a TCP connect from 5.8 on.
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_MSG_ERRQUEUE = 0x2000
_ICMP, _ICMPV6 = 2, 3
_NO_WAY = ("icmp 3/0", "icmp 3/1", "icmp 1/0", "icmp 1/3")
"""No route, or nobody there: words about the way, not the host's refusal."""
_REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.ENOPROTOOPT)


def queues_errors(platform=sys.platform, release=None):
    """Tell whether the kernel says which ICMP error ended a TCP connect."""
    found = re.match(r"(\d+)\.(\d+)", release or os.uname()[2])
    return platform.startswith("linux") and bool(found) and (int(found.group(1)), int(found.group(2))) >= (5, 8)


def local_address(address):
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


def probe(targets, patience=PATIENCE, source=""):
    """Look at ports, many at the same time, and return target to what became of it.

    :param targets: (address, port, protocol) of each.
    :param patience: seconds to wait for an answer.
    :param source: the address to send from, where it has the family of the one to send to.
    """
    targets = list(dict.fromkeys(targets))
    found = {}
    for start in range(0, len(targets), AT_ONCE):
        found.update(_probe_some(targets[start : start + AT_ONCE], patience, source))
    return found


def _probe_some(targets, patience, source):
    tries, found = {}, {}
    try:
        for target in targets:
            try:
                made = _Try(target, source)
                tries[made.number] = made
            except OSError as error:
                # On the way through loopback the refusal is there at once.
                found[target] = REFUSED if error.errno == errno.ECONNREFUSED else AWAY
        _collect(tries, found, time.monotonic() + patience)
    finally:
        for made in tries.values():
            made.close()
    found.update({made.target: SILENT for made in tries.values() if made.target not in found})
    return found


def _collect(tries, found, end):
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
        for number, _event in poller.poll(left * 1000 + 1):
            made = waiting.pop(number)
            poller.unregister(number)
            found[made.target] = made.outcome()


def _repeat(tries):
    for made in tries:
        made.repeat()


class _Try:
    """One port: a connect that is under way, or a datagram that was sent."""

    def __init__(self, target, source):
        self.target = target
        address, port, protocol = target
        self._datagram = protocol == "udp"
        kind = socket.SOCK_DGRAM if self._datagram else socket.SOCK_STREAM
        family, _kind, _number, _name, where = socket.getaddrinfo(address, port, 0, kind, 0, socket.AI_NUMERICHOST)[0]
        self._ipv6 = family == socket.AF_INET6
        self._socket = socket.socket(family, kind)
        self.number = self._socket.fileno()
        self.wanted = select.POLLIN if self._datagram else select.POLLOUT
        try:
            self._start(where, source)
        except OSError:
            self.close()
            raise

    def _start(self, where, source):
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

    def repeat(self):
        """Send a datagram once more; TCP repeats by itself."""
        if not self._datagram:
            return
        # What an error is about shows when the outcome is read.
        with contextlib.suppress(OSError):
            self._socket.send(b"\0")

    def outcome(self):
        """Return what became of it, now that there is something to read or to write."""
        said = self._icmp()
        if said:
            return AWAY if said.split(" by ", 1)[0] in _NO_WAY else said
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            return self._answer()
        if code == errno.ETIMEDOUT:
            return SILENT
        if code == errno.ECONNREFUSED and not self._datagram and queues_errors():
            return RESET
        if code == errno.ECONNRESET:
            return RESET
        return REFUSED if code in _REFUSALS else AWAY

    def _answer(self):
        if not self._datagram:
            return OPEN
        try:
            self._socket.recv(1)
        except OSError as error:
            return REFUSED if error.errno in _REFUSALS else SILENT
        return OPEN

    def _icmp(self):
        if not queues_errors():
            return ""
        try:
            _data, extra, _flags, _where = self._socket.recvmsg(1, 512, _MSG_ERRQUEUE)
        except OSError:
            return ""
        return next((text for text in (read_error(data, self.target[0]) for _l, _k, data in extra) if text), "")

    def close(self):
        """Give it up; nothing is repeated then."""
        self._socket.close()


def read_error(data, address):
    """Return the text for a sock_extended_err with the address of who said so behind it, '' for what is no ICMP. Pure."""
    if len(data) < 16:
        return ""
    _number, origin, kind, code = struct.unpack_from("=IBBB", data)
    if origin not in (_ICMP, _ICMPV6):
        return ""
    said = _offender(data[16:])
    return "icmp {0}/{1}".format(kind, code) + (" by " + said if said and said != address.split("%", 1)[0] else "")


def _offender(data):
    if len(data) < 8:
        return ""
    family = struct.unpack_from("=H", data)[0]
    if family == socket.AF_INET:
        return socket.inet_ntop(family, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(family, data[8:24])
    return ""


def output_of(words, seconds):
    """Return what a command prints within some seconds, else ''; run_command of AnsibleModule knows no bound in time.

    :raises OSError: if it cannot be started.
    """
    process = subprocess.Popen(  # pylint: disable=ansible-bad-function
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
    )
    try:
        return process.communicate(timeout=seconds)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ""


__all__ = (
    "AWAY",
    "OPEN",
    "PATIENCE",
    "REFUSED",
    "RESET",
    "SILENT",
    "local_address",
    "output_of",
    "probe",
    "queues_errors",
    "read_error",
)
