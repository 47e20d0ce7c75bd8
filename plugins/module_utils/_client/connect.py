# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""Goes in: knocks, connects, and knocks again before each further try, because a packet can get lost.

This file also runs alone, beside the program that ssh calls: nothing of the collection is imported.
"""

import errno
import os
import select
import socket
import time
from collections import namedtuple

PATIENCE = 3.0
"""Seconds for one address to answer: the kernel repeats a lost SYN after 1 s, and slow paths need half a second."""

BANNER = 5.0
"""Seconds for a server that speaks first to do so."""

RESTS = (0.1, 0.25, 0.5, 1.0)
"""Seconds between a try and the next knock; the last of them from then on."""

Entered = namedtuple("Entered", "socket address tries seconds")
"""A connection that got in: where, after how many knocks, and how many seconds after the first knock was sent."""


class ShutError(OSError):
    """The port did not open."""

    def __init__(self, reasons, tries):
        """Take what became of each address in the last round, and how many knocks there were."""
        super().__init__("; ".join("{0}: {1}".format(address, reason) for address, reason in reasons.items()))
        self.tries = tries
        self.refused = REFUSED in reasons.values()


REFUSED, SILENT, MUTE = "refused", "timed out", "accepted, but said nothing"


def enter(knock, addresses, port, seconds, speaks_first=False, line=None):
    """Knock and connect until the port opens, and return an Entered.

    :param knock: function that knocks once; it is given how often it has knocked before.
    :param addresses: IP addresses as text, tried in turn.
    :param seconds: for all tries, from the end of the first knock on.
    :param speaks_first: whether the server must have said something, as ssh's does. It is left to be read.
    :param line: what to connect with, for tests.
    :raises ShutError: if it did not open in time.
    """
    line = line or Line()
    knock(0)
    began = line.now()
    tries = 1
    while True:
        opened, address, reasons = _round(line, addresses, port, began + seconds, speaks_first)
        if opened:
            return Entered(opened, address, tries, line.now() - began)
        rest = RESTS[min(tries, len(RESTS)) - 1]
        if line.now() + rest >= began + seconds:
            raise ShutError(reasons, tries)
        line.sleep(rest)
        knock(tries)
        tries += 1


def _round(line, addresses, port, end, speaks_first):
    """Try each address once; return (socket, address, {address: reason})."""
    reasons = {}
    for address in addresses:
        try:
            patience = max(0.1, min(PATIENCE, end - line.now()))
            return line.connect(address, port, patience, BANNER if speaks_first else 0), address, reasons
        except OSError as error:
            reasons[address] = reason_of(error)
    return None, "", reasons


def reason_of(error):
    """Return why a connection did not come about, in a word or two."""
    if isinstance(error, socket.timeout):
        return SILENT
    known = {errno.ECONNREFUSED: REFUSED, errno.ETIMEDOUT: SILENT, errno.ENOMSG: MUTE}
    return known.get(error.errno) or error.strerror or error.__class__.__name__


class Line:
    """Sockets and the clock, behind a seam that a test can replace."""

    def now(self):
        """Return seconds that only go up."""
        return time.monotonic()

    def sleep(self, seconds):
        """Wait."""
        time.sleep(seconds)

    def connect(self, address, port, patience, banner):
        """Return a connected socket whose server has said something within so many seconds, if any are given."""
        found = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        opened = socket.socket(found[0][0], socket.SOCK_STREAM)
        try:
            opened.settimeout(patience)
            opened.connect(found[0][4])
            if banner:
                self._hear(opened, banner)
            opened.settimeout(None)
        except OSError:
            opened.close()
            raise
        return opened

    def _hear(self, opened, seconds):
        readable = select.poll()
        readable.register(opened, select.POLLIN)
        if not readable.poll(seconds * 1000) or not opened.recv(1, socket.MSG_PEEK):
            raise OSError(errno.ENOMSG, os.strerror(errno.ENOMSG))


__all__ = ("BANNER", "PATIENCE", "Entered", "Line", "ShutError", "enter", "reason_of")
