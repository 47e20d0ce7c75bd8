# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the host's own network says of packets that come in: its addresses, and where everybody comes from. Pure."""

import ipaddress
import re
import struct
from typing import Any, Callable, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4

SOURCES = ("/proc/net/fib_trie", "/proc/net/if_inet6", "/proc/net/route", "/proc/net/ipv6_route")
"""The files that all of it is read from."""

_UP, _REJECT = 0x1, 0x200


class Route(NamedTuple):
    """A route of the main table."""

    network: Any
    """Where it leads: an ``ipaddress`` network."""
    interface: str
    """By which interface."""
    metric: int
    """The lower, the sooner it is taken."""


class LocalNetwork(NamedTuple):
    """What is known of the host's network; empty where nothing is."""

    own: Tuple[Any, ...] = ()
    """Its own addresses but for the loopback's, as ``ipaddress`` networks: some are local as whole networks."""
    routes: Tuple[Route, ...] = ()
    """Its routes, of both IP versions."""

    def outside(self, family: str) -> Tuple[str, ...]:
        """Return the interfaces of the default routes of an IP version, the preferred one first: strangers come in there."""
        version = 4 if family == IPV4 else 6
        found = [route for route in self.routes if route.network.prefixlen == 0 and route.network.version == version]
        return tuple(dict.fromkeys(route.interface for route in sorted(found, key=lambda route: route.metric)))

    def interface_to(self, address: Any) -> str:
        """Return the interface by which packets to an ``ipaddress`` address leave, '' where no route says it."""
        found = [
            (route.network.prefixlen, -route.metric, route.interface)
            for route in self.routes
            if route.network.version == address.version and address in route.network
        ]
        return max(found)[2] if found else ""


UNKNOWN = LocalNetwork()
"""Of a host that nothing is known of."""


def read_local_network(read: Callable[[str], str]) -> LocalNetwork:
    """Return the LocalNetwork of a host.

    :param read: function from one of SOURCES to its text, '' where there is none.
    """
    trie, inet6, route, ipv6_route = (read(path) for path in SOURCES)
    own = [network for network in _own_ipv4(trie) + _own_ipv6(inet6) if not network.network_address.is_loopback]
    return LocalNetwork(tuple(own), read_routes(route, ipv6_route))


def read_routes(route: str, ipv6_route: str) -> Tuple[Route, ...]:
    """Return the routes in the texts of /proc/net/route and /proc/net/ipv6_route."""
    found = []
    for words in map(str.split, route.splitlines()[1:]):
        if len(words) > 7 and int(words[3], 16) & (_UP | _REJECT) == _UP:
            # The kernel prints the four bytes as a number of this machine's own byte order.
            address, mask = (ipaddress.IPv4Address(struct.pack("=I", int(word, 16))) for word in (words[1], words[7]))
            found.append(Route(ipaddress.ip_network(f"{address}/{mask}", strict=False), words[0], int(words[6])))
    for words in map(str.split, ipv6_route.splitlines()):
        if len(words) > 9 and words[9] != "lo" and not int(words[8], 16) & _REJECT:
            network = ipaddress.IPv6Network((int(words[0], 16), int(words[1], 16)), strict=False)
            found.append(Route(network, words[9], int(words[5], 16)))
    return tuple(found)


def _own_ipv4(trie: str) -> List[Any]:
    """Read the local entries: a line with the address, and below it one for each of its lengths and kinds."""
    texts = set()
    for address, kinds in re.findall(r"\|-- ([0-9.]+)\n((?:\s+/\d+ .*\n?)+)", trie):
        texts |= {f"{address}/{length}" for length in re.findall(r"/(\d+) host LOCAL", kinds)}
    return [ipaddress.ip_network(text, strict=False) for text in sorted(texts)]


def _own_ipv6(inet6: str) -> List[Any]:
    return [ipaddress.IPv6Network(int(line.split()[0], 16)) for line in inet6.splitlines() if len(line.split()) > 5]


__all__ = ("SOURCES", "UNKNOWN", "LocalNetwork", "Route", "read_local_network", "read_routes")
