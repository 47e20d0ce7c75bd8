# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which IP protocols without ports are in use on a host: VRRP, OSPF, tunnels, IPsec and the like, from the kernel's own tables."""

import ipaddress
import re
import struct
from typing import Iterator, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.kernel import Kernel
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Sockets
from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import IPV4, IPV6

IGMP, SCTP = 2, 132
_OTHERWISE = frozenset((0, 1, 6, 17, 58, 255))
"""What ping, scanners and programs that only send have raw sockets for; ICMP is let in, and ports are looked at elsewhere."""
_IPSEC = {"esp": 50, "ah": 51}
_LISTENS = "10"
_UP = 1
_LINK_LOCAL = ipaddress.ip_network("224.0.0.0/24")
"""Groups of the link itself: every host has some, and routers and switches pass them on without being asked."""


class InUse(NamedTuple):
    """A use of an IP protocol."""

    protocol: int
    """Its number."""
    family: str
    """The IP version of the packets."""
    by: str
    """What uses it, in words."""
    peer: str
    """The address of the other end, '' where anybody may be it."""


class Protocols:
    """The IP protocols without ports that a host uses, in the network namespace of this process."""

    def __init__(self, command: Command, filesystem: Filesystem, kernel: Kernel, sockets: Sockets) -> None:
        """Take these parts of the host."""
        self._command, self._filesystem, self._kernel, self._sockets = command, filesystem, kernel, sockets

    def in_use(self) -> List[InUse]:
        """Return what is in use, in order."""
        found = [*self._by_programs(), *self._tunnels(), *self._ipsec()]
        groups = multicast_groups(self._read("/proc/net/igmp"))
        return sorted(set(found + [InUse(IGMP, IPV4, f"multicast of {group}", "") for group in groups]))

    def _by_programs(self) -> List[InUse]:
        sockets = [
            (protocol, family, inode)
            for family, path in ((IPV4, "/proc/net/raw"), (IPV6, "/proc/net/raw6"))
            for protocol, inode in raw_sockets(self._read(path))
        ]
        sockets += [(SCTP, family, inode) for family, inode in sctp_sockets(self._read("/proc/net/sctp/eps"))]
        names = self._sockets.processes([inode for _protocol, _family, inode in sockets]) if sockets else {}
        return [InUse(protocol, family, names.get(inode, "a program"), "") for protocol, family, inode in sockets]

    def _tunnels(self) -> Iterator[InUse]:
        for interface in self._kernel.interfaces():
            flags = self._read(f"/sys/class/net/{interface}/flags").strip()
            carrier = self._sockets.carrier_of(interface) if int(flags or "0", 16) & _UP else None
            # The kernel makes one without a peer by itself.
            if carrier and carrier.peer:
                yield InUse(carrier.protocol, carrier.family, f"tunnel {interface} to {carrier.peer}", carrier.peer)

    def _ipsec(self) -> List[InUse]:
        """Ask ip for the states of IPsec; not where the kernel would load its module for that first."""
        ip, modules = self._command.find("ip"), self._read("/proc/modules")
        if not ip or (modules and "xfrm_user " not in modules):
            return []
        return ipsec_states(self._command.run([ip, "xfrm", "state"])[1])

    def _read(self, path: str) -> str:
        """Return a file's text, '' where it is not there or not for us."""
        try:
            return self._filesystem.read(path)
        except HostError:
            return ""


def raw_sockets(text: str) -> List[Tuple[int, int]]:
    """Return protocol and inode of the sockets in the text of /proc/net/raw or raw6."""
    rows = [words for words in map(str.split, text.splitlines()[1:]) if len(words) > 9]
    found = [(int(words[1].rpartition(":")[2], 16), int(words[9])) for words in rows]
    return [(protocol, inode) for protocol, inode in found if protocol not in _OTHERWISE]


def sctp_sockets(text: str) -> List[Tuple[str, int]]:
    """Return IP version and inode of the sockets in the text of /proc/net/sctp/eps that listen for others."""
    found = []
    for words in map(str.split, text.splitlines()[1:]):
        addresses = [ipaddress.ip_address(word) for word in words[8:]]
        if len(words) > 8 and words[3] == _LISTENS and not all(address.is_loopback for address in addresses):
            families = {IPV6 if address.version == 6 else IPV4 for address in addresses}
            families |= {IPV4} if "::" in words[8:] else set()
            found += [(family, int(words[7])) for family in sorted(families)]
    return found


def multicast_groups(text: str) -> List[str]:
    """Return the groups in the text of /proc/net/igmp that this host receives only as long as it answers who asks for members."""
    found, interface = set(), ""
    for line in text.splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t"):
            interface = words[1]
        elif words and interface != "lo":
            found.add(ipaddress.ip_address(struct.pack("=I", int(words[0], 16))))
    return [str(group) for group in sorted(found) if group not in _LINK_LOCAL]


def ipsec_states(text: str) -> List[InUse]:
    """Return the sources in what ``ip xfrm state`` prints; what is wrapped in UDP comes in by its port."""
    found = []
    for block in f"\n{text}".split("\nsrc ")[1:]:
        peer, protocol = block.split()[0], re.search(r"\bproto (\w+)", block)
        if protocol and protocol.group(1) in _IPSEC and "\tencap " not in block:
            family = IPV6 if ":" in peer else IPV4
            found.append(InUse(_IPSEC[protocol.group(1)], family, f"IPsec with {peer}", peer))
    return found


__all__ = ("InUse", "Protocols", "ipsec_states", "multicast_groups", "raw_sockets", "sctp_sockets")
