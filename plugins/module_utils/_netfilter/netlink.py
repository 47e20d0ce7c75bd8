# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages of netlink, by which the kernel is asked for what it holds: written and taken apart. Pure.

See linux/netlink.h and linux/netfilter/nfnetlink.h.
"""

import struct
from typing import Dict, Iterator, List, Sequence, Tuple

NETFILTER = 12
"""The protocol of netlink that connection tracking and nftables speak."""
REQUEST, ACKNOWLEDGE, DUMP = 0x1, 0x4, 0x300
"""Flags of a request: what it is, that its end is to be said, and that it asks for all there is."""
ERROR, DONE = 2, 3
"""Types of messages: a refusal or an acknowledgement, and the end of a dump."""
INTERRUPTED = 0x10
"""Flag of an answer: what is dumped changed meanwhile, so that something may be missing."""
FAMILIES = {"inet": 1, "ip": 2, "netdev": 5, "ip6": 10}
"""Families as nft names them, and their numbers."""
NESTED = 0x8000
"""Flag of an attribute's kind: it is made of attributes."""
_KIND = 0x3FFF
_BEGIN, _END = 0x10, 0x11
_head = struct.Struct("=HH").unpack_from


def message(kind: int, flags: int, body: bytes) -> bytes:
    """Return a message to the kernel.

    :param kind: its number in the protocol.
    :param flags: REQUEST, with DUMP where all is asked for.
    """
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def request(kind: int, flags: int, family: int, body: bytes = b"", resource: int = 0) -> bytes:
    """Return a request to a subsystem of netfilter.

    :param kind: the subsystem's number in the upper byte, the message's in the lower one.
    :param flags: REQUEST, with DUMP where all is asked for.
    :param family: of addresses.
    :param body: the attributes.
    :param resource: the subsystem that a transaction is for.
    """
    return message(kind, flags, struct.pack(">BBH", family, 0, resource) + body)


def transaction(subsystem: int, requests: Sequence[bytes]) -> bytes:
    """Return requests to a subsystem as one transaction: all of them, or none."""
    begin, end = (request(kind, REQUEST, 0, resource=subsystem) for kind in (_BEGIN, _END))
    return begin + b"".join(requests) + end


def attribute(kind: int, data: bytes) -> bytes:
    """Return an attribute, filled up as the next one needs it."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def messages(data: bytes) -> Iterator[Tuple[int, int, bytes]]:
    """Yield type, flags and body of each message of a datagram."""
    while len(data) >= 16:
        size, kind, flags = struct.unpack_from("=IHH", data)
        if size < 16:
            return
        yield kind, flags, data[16:size]
        data = data[(size + 3) & ~3 :]


def each_attribute(data: bytes) -> List[Tuple[int, bytes]]:
    """Return kind and data of each attribute; of one kind there may be several."""
    found, at, end = [], 0, len(data) - 3
    while at < end:
        size, kind = _head(data, at)
        if size < 4:
            break
        found.append((kind & _KIND, data[at + 4 : at + size]))
        at += (size + 3) & ~3
    return found


def attributes(data: bytes) -> Dict[int, bytes]:
    """Return kind to data of attributes of which there is one of each kind."""
    return dict(each_attribute(data))


__all__ = (
    "ACKNOWLEDGE",
    "DONE",
    "DUMP",
    "ERROR",
    "FAMILIES",
    "INTERRUPTED",
    "NESTED",
    "NETFILTER",
    "REQUEST",
    "attribute",
    "attributes",
    "each_attribute",
    "message",
    "messages",
    "request",
    "transaction",
)
