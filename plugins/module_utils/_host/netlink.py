# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Questions to the kernel by netlink: sent, and answered message by message."""

import os
import socket
import struct
from typing import Callable, Iterable, Iterator, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import (
    DONE,
    ERROR,
    INTERRUPTED,
    NETFILTER,
    messages,
)

Exchange = Callable[[bytes], Iterable[bytes]]
"""Sends a request to the kernel and returns its answers, datagram by datagram, as many as are read."""

_SECONDS = 5.0


class InterruptedDumpError(OSError):
    """What was dumped changed meanwhile."""


def talk(request: bytes, protocol: int = NETFILTER) -> Iterator[bytes]:
    """Be an Exchange with the kernel that runs.

    :param protocol: the number of the protocol of netlink.
    :raises OSError: if it cannot be asked, or does not answer.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as opened:
        opened.settimeout(_SECONDS)
        opened.sendto(request, (0, 0))
        while True:
            yield opened.recv(1 << 20)


def answers(exchange: Exchange, request: bytes) -> Iterator[Tuple[int, bytes]]:
    """Yield type and body of each message that answers a request, to the end of a dump or the first acknowledgement.

    :raises OSError: if the kernel refuses.
    :raises InterruptedDumpError: at the end of a dump that may lack something.
    """
    changed = False
    for data in exchange(request):
        ends = False
        for kind, flags, body in messages(data):
            changed = changed or bool(flags & INTERRUPTED)
            if kind == ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number:
                    raise OSError(number, os.strerror(number))
                return
            ends = ends or kind == DONE
            if kind != DONE:
                yield kind, body
        if ends:
            if changed:
                raise InterruptedDumpError("what was asked for changed meanwhile")
            return


__all__ = ("Exchange", "InterruptedDumpError", "answers", "talk")
