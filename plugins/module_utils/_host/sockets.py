# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who listens on a host, and who is connected, from the kernel's own tables."""

import ipaddress
import os
import struct
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Flow
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import IPV4, IPV6

_TABLES = (("tcp", "/proc/net/tcp"), ("tcp", "/proc/net/tcp6"), ("udp", "/proc/net/udp"), ("udp", "/proc/net/udp6"))
_WAITS = {"tcp": "0A", "udp": "07"}
"""The state of a socket that waits for anybody: TCP_LISTEN, and TCP_CLOSE for UDP that is not connected."""
_ESTABLISHED = "01"
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"


class Listener(NamedTuple):
    """A socket that anybody can send to, as far as it is concerned."""

    protocol: str
    """``tcp`` or ``udp``."""
    address: str
    """The address of this host that it listens on, ``0.0.0.0`` or ``::`` for all."""
    port: int
    """The port."""
    inode: int
    """Its number in the kernel."""


class Carrier(NamedTuple):
    """What the packets of a tunnel come in by, where that is a protocol of its own."""

    protocol: int
    """The number of the IP protocol."""
    family: str
    """The IP version of the packets that carry it."""
    peer: str
    """The address of the other end, '' where anybody may be it."""


_CARRIERS = {768: (4, IPV4), 769: (41, IPV6), 776: (41, IPV4), 778: (47, IPV4), 823: (47, IPV6)}
"""The kernel's number of a kind of tunnel (ARPHRD_TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE) to the protocol that carries it."""


class Sockets:
    """The sockets of a host, in the network namespace of this process."""

    def __init__(self, command: Command, filesystem: Filesystem) -> None:
        """Take the host's commands and files."""
        self._command, self._filesystem = command, filesystem

    def listening(self) -> List[Listener]:
        """Return those that wait for packets from other hosts, in order.

        A program that asks others over UDP from a port of the ephemeral range is no server: it is left out.
        """
        found = [each for protocol, path in _TABLES for each in parse(protocol, self._read(path))]
        first, last = ([int(word) for word in self._read(_EPHEMERAL).split()] + [32768, 60999])[:2]
        doubtful = [each.inode for each in found if each.protocol == "udp" and first <= each.port <= last]
        asking = self.processes(doubtful) if doubtful else {}
        return sorted(each for each in found if each.inode not in asking)

    def connected(self) -> List[Flow]:
        """Return the established TCP connections with other hosts, each as the direction from there to here."""
        return [flow for protocol, path in _TABLES if protocol == "tcp" for flow in parse_connected(self._read(path))]

    def processes(self, inodes: Iterable[int]) -> Dict[int, str]:
        """Return socket to the name of a process that has it; the kernel's own sockets have none."""
        wanted = set(inodes)
        found: Dict[int, str] = {}
        for pid in _numbers("/proc"):
            for _descriptor, link in _links(pid):
                inode = int(link[8:-1]) if link.startswith("socket:[") else 0
                if inode in wanted and inode not in found:
                    found[inode] = self._name(pid)
        return found

    def of_tunnel(self, interface: str) -> List[int]:
        """Return the sockets by which the packets of a tunnel come in, empty where the interface is no tunnel that ends here."""
        uevent = self._read(f"/sys/class/net/{interface}/uevent")
        if "DEVTYPE=wireguard" in uevent.split():
            return self._of_wireguard(interface)
        if not self._read(f"/sys/class/net/{interface}/tun_flags"):
            return []
        mine = {inode for pid in _numbers("/proc") for inode in self._of_tun(pid, interface)}
        found = [each for protocol, path in _TABLES for each in parse(protocol, self._read(path))]
        return sorted(each.inode for each in found if each.inode in mine)

    def carrier_of(self, interface: str) -> Optional[Carrier]:
        """Return the protocol that carries a tunnel of the kernel's own, None where the interface is none."""
        kind, peer = (self._read(f"/sys/class/net/{interface}/{name}").strip() for name in ("type", "broadcast"))
        protocol, family = _CARRIERS.get(int(kind or 0), (0, ""))
        if not protocol:
            return None
        packed = bytes.fromhex(peer.replace(":", ""))
        return Carrier(protocol, family, str(ipaddress.ip_address(packed)) if any(packed) else "")

    def _of_wireguard(self, interface: str) -> List[int]:
        """Ask wg for the port; where it is not there, WireGuard's sockets are those of UDP that no process has.

        A tunnel whose every peer is sent something again and again is kept up from here: no connection needs to come in by its port.
        """
        udp = [each for path in ("/proc/net/udp", "/proc/net/udp6") for each in parse("udp", self._read(path))]
        port = self._wg(interface, "listen-port")
        peers = [line.split()[-1] for line in self._wg(interface, "persistent-keepalive").splitlines()]
        if peers and "off" not in peers:
            return []
        if port.isdigit():
            return sorted(each.inode for each in udp if each.port == int(port))
        owned = self.processes(each.inode for each in udp)
        return sorted(each.inode for each in udp if each.inode not in owned)

    def _wg(self, interface: str, what: str) -> str:
        wg = self._command.find("wg")
        return self._command.run([wg, "show", interface, what])[1].strip() if wg else ""

    def _of_tun(self, pid: int, interface: str) -> List[int]:
        """Return the sockets of a process if it holds a tun or tap interface."""
        links = list(_links(pid))
        holds = [descriptor for descriptor, link in links if link == "/dev/net/tun"]
        if not any(f"iff:\t{interface}" in self._read(f"/proc/{pid}/fdinfo/{number}").splitlines() for number in holds):
            return []
        return [int(link[8:-1]) for _descriptor, link in links if link.startswith("socket:[")]

    def _name(self, pid: int) -> str:
        return self._read(f"/proc/{pid}/comm").strip()

    def _read(self, path: str) -> str:
        """Return a file's text, '' where it is gone meanwhile or not for us."""
        try:
            return self._filesystem.read(path)
        except HostError:
            return ""


def parse(protocol: str, text: str) -> Iterator[Listener]:
    """Yield the Listeners in the text of /proc/net/PROTOCOL; what listens for this host alone is left out."""
    for words in map(str.split, text.splitlines()[1:]):
        if len(words) < 10 or words[3] != _WAITS[protocol] or not set(words[2]) <= {"0", ":"}:
            continue
        address, port = words[1].split(":")
        listens_on = _address(address)
        if not ipaddress.ip_address(listens_on).is_loopback:
            yield Listener(protocol, listens_on, int(port, 16), int(words[9]))


def parse_connected(text: str) -> Iterator[Flow]:
    """Yield the established connections in the text of /proc/net/tcp or tcp6; what does not leave this host is left out."""
    for words in map(str.split, text.splitlines()[1:]):
        if len(words) < 10 or words[3] != _ESTABLISHED:
            continue
        (here, port), (there, from_port) = (word.split(":") for word in words[1:3])
        flow = Flow(
            ipaddress.ip_address(_address(there)),
            int(from_port, 16),
            ipaddress.ip_address(_address(here)),
            int(port, 16),
        )
        if not flow.source.is_loopback:
            yield flow


def _address(text: str) -> str:
    """Read an address as the kernel prints it: words of four bytes in this machine's byte order."""
    packed = b"".join(struct.pack("=I", int(text[index : index + 8], 16)) for index in range(0, len(text), 8))
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _numbers(folder: str) -> List[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except OSError:
        return []


def _links(pid: int) -> Iterator[Tuple[int, str]]:
    """Yield (descriptor, what it is) of a process."""
    folder = f"/proc/{pid}/fd"
    for number in _numbers(folder):
        try:
            yield number, os.readlink(f"{folder}/{number}")
        except OSError:
            continue


__all__ = ("Carrier", "Listener", "Sockets", "parse", "parse_connected")
