# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the kernel tracks a TCP connection, so that its packets are ESTABLISHED for the firewall; and how it comes to.

The kernel is asked by netlink for the one entry (nfnetlink_conntrack). Where it does not speak that, its list in /proc is
read; some kernels have neither, and then nothing is known.
"""

import ipaddress
import socket
import struct
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.netlink import (
    Exchange,
    InterruptedDumpError,
    answers,
    talk,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import (
    DUMP,
    NESTED,
    REQUEST,
    attribute,
    attributes,
    request,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Address

TRACKED, UNTRACKED, UNKNOWN = "tracked", "untracked", "unknown"
"""What becomes of a connection's packets: they are ESTABLISHED; they are not; this kernel does not say."""

_LIST = "/proc/net/nf_conntrack"
# nfnetlink_conntrack: the subsystem's number in the upper byte of the type, IPCTNL_MSG_CT_GET in the lower one.
_GET, _NEW = 1 << 8 | 1, 1 << 8
_CREATE = REQUEST | 0x4 | 0x200 | 0x400
"""An entry that is not there, with an acknowledgement; one that is there stays as it is."""
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOCOL, _TIMEOUT = 1, 2, 3, 4, 7
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SEEN_REPLY = 1 << 1
"""Of a connection's status: packets of both directions were seen, and from then on all are ESTABLISHED."""
_ASSURED, _CONFIRMED = 1 << 2, 1 << 3
_TCP_ESTABLISHED = 3
_LIBERAL = b"\x08\x08"
"""A flag and its mask: the sequence numbers so far are not known, so they are not checked."""
_FIVE_DAYS = 432000
"""Seconds without a packet after which a connection is forgotten, as the kernel has it for those that it saw begin."""
_AT_ONCE = 100
_MOST = 20000
"""Connections that are entered: a third of what a small host's table has room for, so that new ones have room as well."""


class Flow(NamedTuple):
    """One direction of a TCP connection."""

    source: Address
    """Who sends."""
    source_port: int
    """From which port."""
    destination: Address
    """To whom."""
    destination_port: int
    """To which port."""


class Conntrack:
    """The connections that the kernel tracks."""

    def __init__(self, filesystem: Filesystem, exchange: Optional[Exchange] = None) -> None:
        """Take the host's files, and what talks to the kernel, for tests."""
        self._filesystem, self._exchange = filesystem, exchange or talk

    def state_of(self, words: Sequence[str]) -> str:
        """Return TRACKED, UNTRACKED or UNKNOWN for a connection to this host.

        :param words: those of SSH_CONNECTION: the client's address and port, this host's address and port.
        """
        flow = answers_of(words)
        if flow is None:
            return UNKNOWN
        try:
            return self._ask(flow)
        except OSError:
            return self._read(flow)

    def adopt(self, flows: Sequence[Flow], session: Sequence[str]) -> None:
        """Have the kernel track connections that were made before it tracked any; those that it knows stay as they are.

        It tracks nothing as long as no rule wants it to. The packets of an older connection would not be ESTABLISHED until this
        host sends one: where it waits for the other side, as an idle shell does, they would all be refused.

        :param flows: the direction from the other side to this host of each.
        :param session: the words of SSH_CONNECTION. Its entry is to say whether its packets are tracked, so it is left out; this
            host answers on it in any case.
        """
        own = answers_of(session)
        wanted = [flow for flow in flows if own is None or flow != _reversed(own)][:_MOST]
        for start in range(0, len(wanted), _AT_ONCE):
            try:
                # It has done all of them once it has answered the first.
                next(iter(self._exchange(b"".join(map(_entry, wanted[start : start + _AT_ONCE])))), None)
            except OSError:
                return

    def _ask(self, flow: Flow) -> str:
        """Ask for the one entry, and where it is not in the usual zone, look through all of them.

        :raises OSError: if the kernel cannot be asked.
        """
        found = _status_in(answers(self._exchange, _request(flow, REQUEST)), flow)
        if found is None:
            found = _status_in(answers(self._exchange, _request(flow, REQUEST | DUMP)), flow)
        return _state(found)

    def _read(self, flow: Flow) -> str:
        if self._filesystem.mode(_LIST) is None:
            return UNKNOWN
        try:
            lines = self._filesystem.read(_LIST).splitlines()
        except HostError:
            return UNKNOWN
        found = next((line for line in lines if _is_of(line, flow)), None)
        return UNTRACKED if found is None or "[UNREPLIED]" in found else TRACKED


def answers_of(words: Sequence[str]) -> Optional[Flow]:
    """Return the direction from this host to the client of SSH_CONNECTION, or None where it is not one.

    The kernel finds an entry by either direction. This one holds what the host's own sockets see, also where nat on this host
    has sent the connection to another port than the client knows.
    """
    try:
        client, client_port, server, server_port = words
        return Flow(_address(server), int(server_port), _address(client), int(client_port))
    except ValueError:
        return None


def _address(text: str) -> Address:
    """Return an address without its zone; sshd may write an IPv4 address as one that is mapped into IPv6."""
    found = ipaddress.ip_address(text.split("%", 1)[0])
    return getattr(found, "ipv4_mapped", None) or found


def _state(status: Optional[int]) -> str:
    return TRACKED if status is not None and status & _SEEN_REPLY else UNTRACKED


def _is_of(line: str, flow: Flow) -> bool:
    """Return whether a line of the list in /proc is of a connection with this direction."""
    words = line.split()
    pairs = [(name, value) for name, equals, value in (word.partition("=") for word in words) if equals]
    ends = [value for name, value in pairs if name in ("src", "dst", "sport", "dport")]
    return "tcp" in words[:4] and any(_same(ends[at : at + 4], flow) for at in (0, 4))


def _same(ends: List[str], flow: Flow) -> bool:
    try:
        source, destination, source_port, destination_port = ends
        found = Flow(_address(source), int(source_port), _address(destination), int(destination_port))
    except ValueError:
        return False
    return found == flow


# See linux/netfilter/nfnetlink_conntrack.h


def _tuple(flow: Flow) -> bytes:
    """Return a direction as the kernel writes it, byte for byte."""
    first = 1 if flow.source.version == 4 else 3
    ends = attribute(first, flow.source.packed) + attribute(first + 1, flow.destination.packed)
    ports = attribute(2, struct.pack(">H", flow.source_port)) + attribute(3, struct.pack(">H", flow.destination_port))
    protocol = attribute(1, struct.pack("B", socket.IPPROTO_TCP)) + ports
    return attribute(_TUPLE_IP | NESTED, ends) + attribute(_TUPLE_PROTO | NESTED, protocol)


def _request(flow: Flow, flags: int) -> bytes:
    family = socket.AF_INET if flow.source.version == 4 else socket.AF_INET6
    wanted = b"" if flags & DUMP == DUMP else attribute(_TUPLE_ORIG | NESTED, _tuple(flow))
    return request(_GET, flags, family, wanted)


def _reversed(flow: Flow) -> Flow:
    return Flow(flow.destination, flow.destination_port, flow.source, flow.source_port)


def _entry(flow: Flow) -> bytes:
    """Return the request for an entry of a connection that goes on."""
    flags = b"".join(attribute(kind, _LIBERAL) for kind in (4, 5))
    tcp = attribute(1 | NESTED, attribute(1, bytes([_TCP_ESTABLISHED])) + flags)
    status = struct.pack(">I", _SEEN_REPLY | _ASSURED | _CONFIRMED)
    body = attribute(_TUPLE_ORIG | NESTED, _tuple(flow)) + attribute(_TUPLE_REPLY | NESTED, _tuple(_reversed(flow)))
    body += attribute(_STATUS, status) + attribute(_TIMEOUT, struct.pack(">I", _FIVE_DAYS))
    body += attribute(_PROTOCOL | NESTED, tcp)
    return request(_NEW, _CREATE, socket.AF_INET if flow.source.version == 4 else socket.AF_INET6, body)


def _status_in(messages: Iterable[Tuple[int, bytes]], flow: Flow) -> Optional[int]:
    """Return the status of the connection, None where the kernel has no entry for it.

    :raises OSError: if the kernel refuses to say.
    """
    wanted = _tuple(flow)
    try:
        for kind, body in messages:
            # A table may have a million entries: the bytes are compared, and only what fits is taken apart.
            if kind == _GET & ~0xFF and wanted in body:
                return _status_of(body)
    except (FileNotFoundError, InterruptedDumpError):
        # In a dump that was disturbed an entry may be missing, as in one that is read a moment later.
        pass
    return None


def _status_of(body: bytes) -> Optional[int]:
    found = attributes(body[4:]).get(_STATUS, b"")
    return struct.unpack(">I", found)[0] if len(found) == 4 else None


__all__ = ("TRACKED", "UNKNOWN", "UNTRACKED", "Conntrack", "Flow", "answers_of")
