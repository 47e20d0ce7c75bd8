# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tells at little cost that something on a host is as it was: it may differ where nothing does, and never the other way round.

Every unchanged run reads this instead of what it stands for, so it imports little.
"""

import os
import socket
import struct
from typing import Callable, Iterable, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.netlink import answers, talk
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import DUMP, REQUEST, message

_SOCKETS, _SOCKETS_OF_FAMILY, _LISTENING = 4, 20, 1 << 10
"""The protocol of netlink that tells of sockets, its request, and the state that is asked for (sock_diag(7))."""
_IPSEC, _GET_STATES = 6, 18
"""The protocol of netlink that tells of IPsec, and its request (linux/xfrm.h)."""

_OPEN = "07"
"""The state of a socket of UDP, or a raw one, that is not connected."""
_WHOLE_FILES = ("/proc/net/fib_trie", "/proc/net/sctp/eps", "/proc/sys/net/ipv4/ip_local_port_range")
_SOCKET_TABLES = ("/proc/net/udp", "/proc/net/udp6", "/proc/net/raw", "/proc/net/raw6")
_NETWORK_TABLES = (
    ("/proc/net/route", (0, 1, 3, 6, 7)),
    ("/proc/net/ipv6_route", (0, 1, 5, 8, 9)),
    ("/proc/net/if_inet6", (0,)),
)
"""Files and those of their columns that do not count what passes."""
_ETHERNET, _LOOPBACK = "1", "772"
"""Kinds of interfaces that carry no packets of others (linux/if_arp.h)."""

_UNIT_FOLDERS = (
    "/etc/systemd/system", "/etc/systemd/system.control", "/run/systemd", "/run/systemd/system", "/run/systemd/system.control",
    "/run/systemd/transient", "/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
)  # fmt: skip
_SCRIPT_FOLDERS = ("/etc/init.d", "/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d", "/etc/rcS.d")
_SYSTEMCTL = ("/usr/bin/systemctl", "/bin/systemctl")
_FOLDER_ENDINGS = (".wants", ".requires", ".d")
_INVOCATIONS = "/run/systemd/units"


class Marks:
    """Of the network and the services of this host."""

    def __init__(self, filesystem: Filesystem, exchange: Callable[[bytes, int], Iterable[bytes]] = talk) -> None:
        """Take the host's files, and what talks to the kernel, for tests."""
        self._read, self._exchange = filesystem.read, exchange
        self._folders: List[Tuple[str, Tuple[int, ...]]] = []

    def network(self) -> str:
        """Return that of addresses, routes, sockets that wait for packets, tunnels and IPsec.

        :raises HostError: if the kernel does not tell.
        """
        parts = [self._read(path) for path in _WHOLE_FILES]
        parts += [_columns(self._read(path), columns) for path, columns in _NETWORK_TABLES]
        parts += [_waiting(self._read(path)) for path in _SOCKET_TABLES]
        parts += [_groups(self._read("/proc/net/igmp")), repr(self._listening()), repr(self._tunnels())]
        return "\n".join([*parts, repr(self._states_of_ipsec())])

    def interface(self, name: str) -> str:
        """Return that of an interface, as far as it is a tunnel.

        :raises HostError: if a program has to do with it: what that does, no mark tells.
        """
        folder = f"/sys/class/net/{name}"
        if "DEVTYPE=wireguard" in self._read(f"{folder}/uevent").split() or self._read(f"{folder}/tun_flags"):
            raise HostError(f"{name} is a tunnel of a program.")
        return self._read(f"{folder}/type") + self._read(f"{folder}/broadcast")

    def units(self, names: Sequence[str]) -> str:
        """Return that of units, by their names with the suffix: which of them were started when, and what boots start.

        :raises HostError: if this systemd does not say when it starts what (before version 235).
        """
        if os.path.isdir(_UNIT_FOLDERS[3]) and not os.path.isdir(_INVOCATIONS):
            raise HostError(f"{_INVOCATIONS} is not there.")
        started = [(name, _link(f"{_INVOCATIONS}/invocation:{name}")) for name in names]
        files = [(path, _stat(path)) for name in names for path in (f"{folder}/{name}" for folder in _UNIT_FOLDERS)]
        self._folders = self._folders or _folders()
        return repr((started, [each for each in files if each[1]], self._folders))

    def _listening(self) -> List[bytes]:
        """Ask for the sockets of TCP that listen: /proc/net/tcp takes milliseconds, because the kernel looks for all others too."""
        found: List[bytes] = []
        for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
            if os.path.exists(path):
                body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _LISTENING) + bytes(48)
                asked = message(_SOCKETS_OF_FAMILY, REQUEST | DUMP, body)
                # Family and state, addresses and ports with the cookie, the inode; between them is who waits to be let in.
                found += [each[:2] + each[4:52] + each[68:72] for each in self._dump(_SOCKETS, asked)]
        return sorted(found)

    def _tunnels(self) -> List[Tuple[str, ...]]:
        """Return those interfaces that are neither Ethernet nor the loopback."""
        found = []
        for name in sorted(os.listdir("/sys/class/net")):
            kind = self._read(f"/sys/class/net/{name}/type").strip()
            if kind not in (_ETHERNET, _LOOPBACK):
                found.append(
                    (name, kind, *(self._read(f"/sys/class/net/{name}/{each}") for each in ("flags", "broadcast")))
                )
        return found

    def _states_of_ipsec(self) -> List[bytes]:
        """Ask for the states of IPsec; not where the kernel would load its module for that first."""
        modules = self._read("/proc/modules")
        if modules and "xfrm_user " not in modules:
            return []
        try:
            return self._dump(_IPSEC, message(_GET_STATES, REQUEST | DUMP, b""))
        except HostError:
            # A kernel without IPsec has none.
            return []

    def _dump(self, protocol: int, asked: bytes) -> List[bytes]:
        try:
            return [body for _kind, body in answers(lambda data: self._exchange(data, protocol), asked)]
        except OSError as error:
            raise HostError(f"the kernel does not tell ({error}).") from error


def _columns(text: str, columns: Iterable[int]) -> str:
    rows = (line.split() for line in text.splitlines())
    return "\n".join(" ".join(words[column] for column in columns if column < len(words)) for words in rows)


def _waiting(text: str) -> str:
    """Return addresses and inodes of the unconnected sockets in a table of /proc/net."""
    rows = (line.split() for line in text.splitlines()[1:])
    return "\n".join(f"{words[1]} {words[2]} {words[9]}" for words in rows if len(words) > 9 and words[3] == _OPEN)


def _groups(text: str) -> str:
    """Return interfaces and groups in the text of /proc/net/igmp, without its timers."""
    rows = ((line.startswith("\t"), line.split()) for line in text.splitlines()[1:])
    return "\n".join(words[0] if is_group else words[1] for is_group, words in rows if len(words) > 1)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _stat(path: str) -> Tuple[int, ...]:
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns)


def _folders() -> List[Tuple[str, Tuple[int, ...]]]:
    """Return what differs once a file comes to, or goes from, a folder where systemd or init looks for what to start."""
    found = [*_UNIT_FOLDERS, *_SCRIPT_FOLDERS, *_SYSTEMCTL]
    for folder in _UNIT_FOLDERS:
        try:
            found += [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(_FOLDER_ENDINGS)]
        except OSError:
            continue
    return [(path, _stat(path)) for path in found]


__all__ = ("Marks",)
