# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connecting through a closed port: knock, connect, and knock again before each further try, because a packet can get lost.

This file also runs alone, beside the program that ssh calls: nothing of the collection is imported.
"""

import errno
import math
import os
import select
import socket
import time
from typing import Callable, Dict, NamedTuple, Optional, Sequence, Tuple

CONNECT_SECONDS = 3.0
"""Seconds for one address to answer: the kernel repeats a lost SYN after 1 s, and slow paths need half a second. Of several
addresses each has one second in the first try, and one more in each that follows: one that never answers must not take the time
that the door is open for the others."""

BANNER_SECONDS = 5.0
"""Seconds for a server that speaks first to do so."""

PAUSES = (0.1, 0.25, 0.5, 1.0)
"""Seconds between a try and the next knock; the last of them from then on."""

SOON = 0.5
"""Seconds after which an answer counts as late: only then it is looked up how long the caller wants to wait."""

ANSWERED_TRIES = 5
"""How often a port is tried that answers each time that it is closed: each try has a new knock, because one can get lost."""

ANSWERED_SECONDS = 2.5
"""Seconds after the first knock in which such tries begin. A host that refuses by ICMP does so once a second at the least, so the
last try, and another look that says why it failed, end within five seconds."""

NO_HOST_SECONDS = 1.0
"""Seconds of a try after which an error that is no refusal says that there is no host: the machines beside it have asked for it."""

REFUSED, SILENT = "refused", "timed out"
MUTE, HUNG_UP = "accepted, but said nothing", "accepted, and closed at once"

AS_PROBED = {REFUSED: "refused", SILENT: "silent"}
"""Reasons as _client/probe.py names them; what is not among them is ``unreachable`` there."""


class Opened(NamedTuple):
    """A connection that was let in."""

    socket: socket.socket
    """The connected socket."""
    address: str
    """The address that let it in."""
    tries: int
    """How many knocks were sent."""
    seconds: float
    """The time from the end of the first knock to the connection."""


class NotOpenError(OSError):
    """The port did not open in time."""

    def __init__(self, reasons: Dict[str, str], tries: int) -> None:
        """Take what became of each address in the last round, and how many knocks there were."""
        super().__init__("; ".join(f"{address}: {reason}" for address, reason in reasons.items()))
        self.reasons = reasons
        self.tries = tries


class Sockets:
    """Sockets and the clock, behind a seam that a test can replace."""

    def now(self) -> float:
        """Return seconds that only go up."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def left(self) -> float:
        """Return how many more seconds the caller waits; it is only asked where a port has not opened at once."""
        return math.inf

    def connect(self, address: str, port: int, patience: float, banner: float) -> socket.socket:
        """Return a connected socket whose server has said something within so many seconds, if any are given."""
        found = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        opened = socket.socket(found[0][0], socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            code = opened.connect_ex(found[0][4])
            if code == errno.EINPROGRESS:
                if not self._happens(opened, select.POLLOUT, patience):
                    raise socket.timeout("timed out")
                code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if banner:
                self._await_banner(opened, banner)
            opened.settimeout(None)
        except OSError:
            opened.close()
            raise
        return opened

    def _happens(self, opened: socket.socket, event: int, seconds: float) -> bool:
        poller = select.poll()
        poller.register(opened, event)
        soon = min(SOON, seconds)
        if poller.poll(soon * 1000):
            return True
        rest = min(seconds - soon, self.left())
        return rest > 0 and bool(poller.poll(rest * 1000))

    def _await_banner(self, opened: socket.socket, seconds: float) -> None:
        if not self._happens(opened, select.POLLIN, seconds):
            raise OSError(errno.ENOMSG, os.strerror(errno.ENOMSG))
        # It is left to be read.
        if not opened.recv(1, socket.MSG_PEEK):
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def connect_after_knock(
    knock: Callable[[int], object],
    addresses: Sequence[str],
    port: int,
    seconds: float,
    speaks_first: bool = False,
    sockets: Optional[Sockets] = None,
    answered_seconds: float = math.inf,
) -> Opened:
    """Knock and connect until the port opens.

    :param knock: function that knocks once; it is given how many knocks were sent before.
    :param addresses: IP addresses as text, tried in turn.
    :param seconds: for all tries, from the end of the first knock on.
    :param speaks_first: whether the server must have said something, as ssh's does. It is left to be read.
    :param sockets: what to connect with.
    :param answered_seconds: in which tries begin of a port that answers each time that it is closed; there are ANSWERED_TRIES
        at the most, if it is given.
    :raises NotOpenError: if it did not open in time.
    """
    sockets = sockets or Sockets()
    started = sockets.now()
    knock(0)
    began = sockets.now()
    tries, takes = 1, began - started
    while True:
        patience = min(float(tries), CONNECT_SECONDS) if len(addresses) > 1 else CONNECT_SECONDS
        tried = sockets.now()
        opened, address, reasons = _try_each(sockets, addresses, port, began + seconds, patience, speaks_first)
        if opened:
            return Opened(opened, address, tries, sockets.now() - began)
        pause = PAUSES[min(tries, len(PAUSES)) - 1]
        spent = sockets.now() - began
        over = spent + pause >= min(seconds, spent + sockets.left())
        no_host = sockets.now() - tried >= NO_HOST_SECONDS and is_without_host(reasons)
        if over or _is_answered(reasons, tries, spent + pause + takes, answered_seconds, no_host):
            raise NotOpenError(reasons, tries)
        sockets.sleep(pause)
        knock(tries)
        tries += 1


def is_without_host(reasons: Dict[str, str]) -> bool:
    """Return whether no address has answered in the name of a host: the errors are about the way to it."""
    return not {REFUSED, SILENT, MUTE, HUNG_UP} & set(reasons.values())


def _is_answered(reasons: Dict[str, str], tries: int, spent: float, seconds: float, no_host: bool) -> bool:
    """Return whether all addresses have answered often enough that they are closed."""
    if seconds == math.inf or {SILENT, MUTE} & set(reasons.values()):
        return False
    # Where there is no host, no other knock would change that. It is found out within three seconds, sooner where the machines
    # beside it were asking for it already, and each further try would take three more.
    return no_host or tries >= ANSWERED_TRIES or (tries > 1 and spent >= seconds)


def _try_each(
    sockets: Sockets, addresses: Sequence[str], port: int, end: float, patience: float, speaks_first: bool
) -> Tuple[Optional[socket.socket], str, Dict[str, str]]:
    """Try each address once; return (socket, address, {address: reason})."""
    reasons: Dict[str, str] = {}
    for address in addresses:
        try:
            banner = BANNER_SECONDS if speaks_first else 0
            left = max(0.1, min(patience, end - sockets.now()))
            return sockets.connect(address, port, left, banner), address, reasons
        except OSError as error:
            reasons[address] = reason_of(error)
    return None, "", reasons


def reason_of(error: OSError) -> str:
    """Return why a connection did not come about, in a word or two."""
    if isinstance(error, socket.timeout):
        return SILENT
    known = {
        errno.ECONNREFUSED: REFUSED,
        errno.ETIMEDOUT: SILENT,
        errno.ENOMSG: MUTE,
        errno.ECONNRESET: HUNG_UP,
    }
    return known.get(error.errno or 0) or error.strerror or error.__class__.__name__


__all__ = (
    "ANSWERED_SECONDS",
    "AS_PROBED",
    "BANNER_SECONDS",
    "CONNECT_SECONDS",
    "HUNG_UP",
    "MUTE",
    "NotOpenError",
    "Opened",
    "Sockets",
    "connect_after_knock",
    "is_without_host",
    "reason_of",
)
