# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of the internet networks include, however it is split up, and what of that makes a door void. Pure."""

import ipaddress
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Network, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

_PUBLIC: Dict[int, List[Any]] = {
    4: list(
        ipaddress.summarize_address_range(ipaddress.IPv4Address("1.0.0.0"), ipaddress.IPv4Address("223.255.255.255"))
    ),
    6: [ipaddress.IPv6Network("2000::/3")],
}
"""Version of IP to the addresses that a stranger's packet can come from."""
_PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
]
_EVERYONE = 15 / 16
"""The share of these from which on networks are no exception any more: the rest is a rest."""
_BROAD = {4: 2**24 / sum(network.num_addresses for network in _PUBLIC[4]), 6: 2.0**-13}
"""The share from which on networks are worth a word: as much as a /8 of IPv4, a /16 of IPv6."""


class Coverage(NamedTuple):
    """Networks of one version of IP that need no knock for some port, taken together."""

    option: str
    """The option that names them, with its path."""
    version: int
    """4 or 6."""
    share: float
    """The share of all public addresses that they include, 0 to 1."""
    networks: Tuple[Network, ...]
    """The networks, as few as can say it."""
    door: str
    """The door that they need no knock for, '' for all."""

    @property
    def is_everyone(self) -> bool:
        """Whether the doors are void with it."""
        return self.share >= _EVERYONE

    @property
    def is_broad(self) -> bool:
        """Whether it is so much that it may not be meant."""
        return self.share >= _BROAD[self.version]


def coverages(spec: Spec, prefix: str = "") -> List[Coverage]:
    """Return what needs no knock: for all doors by ``trusted_sources``, for one by ``allow`` together with those."""
    found = [_coverage(prefix + "trusted_sources", version, spec.trusted_sources, "") for version in (4, 6)]
    seen = set()
    for port, door in _door_ports(spec):
        entries = [
            (index, allow)
            for index, allow in enumerate(spec.allow)
            if allow.sources and allow.ports.protocol == port.protocol
            if allow.ports.first <= port.first <= allow.ports.last
        ]
        named = tuple(index for index, _allow in entries)
        if not entries or (named, door) in seen:
            continue
        seen.add((named, door))
        sources = [network for _index, allow in entries for network in allow.sources]
        for version in sorted({network.version for network in sources}):
            networks = sources + list(spec.trusted_sources)
            found.append(_coverage(f"{prefix}allow[{named[-1]}].sources", version, networks, door))
    return found


def check_coverage(spec: Spec, prefix: str) -> None:
    """Refuse networks that include everyone once they are put together.

    :raises SpecError: for the first of them.
    """
    for each in coverages(spec, prefix):
        if each.is_everyone:
            whom = f"door {each.door!r}" if each.door else "no door"
            verb = "would not need a knock" if each.door else "would need a knock"
            raise SpecError(
                each.option,
                f"together with what else needs no knock this includes everyone who speaks IPv{each.version}, so {whom} "
                f"{verb}. Name your own addresses.",
            )


def _coverage(option: str, version: int, networks: Iterable[Network], door: str) -> Coverage:
    mine: List[Any] = [network for network in networks if network.version == version]
    merged = tuple(ipaddress.collapse_addresses(mine))
    public = [network for network in merged if not any(_within(network, private) for private in _PRIVATE)]
    size = sum(network.num_addresses for network in _PUBLIC[version])
    return Coverage(option, version, sum(map(_public_addresses, public)) / size, merged, door)


def _public_addresses(network: Any) -> int:
    return sum(
        min(network.num_addresses, each.num_addresses)
        for each in _PUBLIC[network.version]
        if _within(network, each) or _within(each, network)
    )


def _within(network: Any, other: Any) -> bool:
    return (
        network.version == other.version and other.prefixlen <= network.prefixlen and network.network_address in other
    )


def _door_ports(spec: Spec) -> List[Tuple[Ports, str]]:
    """Return ports that stand for all of the doors': the first of each range, and where an allowed range begins in it."""
    firsts: Sequence[Ports] = [allow.ports for allow in spec.allow if allow.sources]
    return [
        (Ports(port, port, ports.protocol), door.name)
        for door in spec.doors
        for ports in door.here
        for port in sorted(
            {ports.first}
            | {
                each.first
                for each in firsts
                if each.protocol == ports.protocol and ports.first <= each.first <= ports.last
            }
        )
    ]


__all__ = ("Coverage", "check_coverage", "coverages")
