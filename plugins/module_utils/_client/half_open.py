# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a TCP port without making a connection, so that the service behind it never knows.

sshd, since OpenSSH 9.8, shuts a source out for a while whose connections do not log in (PerSourcePenalties). Linux lets any user
put a filter on a socket: one that drops the answer to our SYN leaves the connection half open, and counts what it drops. Once the
socket is closed the kernel answers what the host repeats with a reset. Imports nothing of the collection.
"""

import array
import contextlib
import errno
import os
import socket
import struct
import time

# Neither of them is in Python's socket module; the numbers of asm-generic/socket.h, which nearly all machines share.
_SO_ATTACH_FILTER, _SO_MEMINFO = 26, 55
# As numbered in linux/sock_diag.h: how many packets were dropped is the last of them (Linux 4.12).
_DROPS = 8
# The byte of a TCP header with its flags; what has the flag RST passes, and all else is dropped.
_FILTER = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x04), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))
POLL_SECONDS = 0.01
"""How often to look whether something was dropped: no poll() tells."""


def attach(opened: socket.socket) -> bool:
    """Have a TCP socket that is not connected yet never be; return whether this system can do that."""
    code = array.array("B", b"".join(struct.pack("HBBI", *each) for each in _FILTER))
    try:
        drops(opened)
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_FILTER), code.buffer_info()[0]))
    except (OSError, struct.error):
        return False
    return True


def drops(opened: socket.socket) -> int:
    """Return how many packets for a socket were dropped: once it has a filter, whether its port has answered that it is open.

    :raises OSError: if this system does not count them.
    """
    data = opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    return int(struct.unpack_from("=I", data, 4 * _DROPS)[0])


def look(address: str, port: int, patience: float) -> bool:
    """Look at a port; return whether it could be looked at in this way and is open.

    :param patience: seconds to wait for an answer.
    :raises OSError: as connect() does where it is not open.
    """
    found = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    with contextlib.closing(socket.socket(found[0][0], socket.SOCK_STREAM)) as opened:
        opened.setblocking(False)
        if not attach(opened):
            return False
        code = opened.connect_ex(found[0][4])
        end = time.monotonic() + patience
        while code in (0, errno.EINPROGRESS):
            if drops(opened):
                return True
            if time.monotonic() >= end:
                raise socket.timeout("timed out")
            time.sleep(POLL_SECONDS)
            code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        raise OSError(code, os.strerror(code))


__all__ = ("POLL_SECONDS", "attach", "drops", "look")
