# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names in the collection's table of nftables, and how it asks for sources there. Pure."""

import ipaddress
import re
from typing import Any, List, NamedTuple, Sequence, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere
from ansible_collections.sesame.portknock.plugins.module_utils._paths import NFT_TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    DEFAULTS,
    FAMILIES,
    IPV4,
    IPV6,
    Door,
    Network,
    Spec,
    family_of,
)

TABLE = NFT_TABLE
INPUT, FORWARD = "input", "forward"
"""The chains that packets come to: those to this host, and those that it sends on."""
KNOCKS, WRONG, OPENED, REFUSE, ABOUT = "knocks", "wrong", "opened", "refuse", "about"
BEGINNING, SERVICES = "knocks_or_services", "services"
"""Chains of which there is one. No packet gets to ABOUT: its comment says what was loaded."""
BEHIND_CHAIN = "behind"
"""How the names of the chains begin that decide about packets to hosts behind this one."""
PRIORITY = -10
"""Of INPUT and FORWARD: in front of the filter tables of others, so that what they accept opens no door."""

NUMBERS = {"tcp": 6, "udp": 17}
"""Protocols as the kernel knows them: names need /etc/protocols, which not every host has."""

DIGITS = {IPV4: "4", IPV6: "6"}
"""Version of IP to what stands for it in names."""

IN_PROGRESS, OPEN = 1 << 20, 1 << 16
"""Sources that a set holds: of those in the middle of a knock, and of those who have knocked. A full one takes nobody in and
puts nobody out. Memory is used by what is in there alone, since both are multiples of 65,536: the kernel (rhashtable) makes room at
once, in each set, for as many as the lower 16 bits of its size say."""
_SMALL = 4096
"""Up to so many the room that is made at once is no matter."""


class Entry(NamedTuple):
    """What a set remembers of a source."""

    name: str
    """The set, ``*`` where the family's digit stands."""
    number: int = 0
    """What stands in there beside the source, of 32 bits; 0 for a set of sources alone."""


class Family(NamedTuple):
    """One version of IP, and how rules ask for a source of it."""

    name: str
    """``ipv4`` or ``ipv6``."""
    digit: str
    """``4`` or ``6``, for names."""
    packet: str
    """The expression that matches its packets."""
    address: str
    """The expression for a packet's source."""
    source: str
    """The expression for what is remembered of the source: of IPv6 as many leading bits as must match."""
    kind: str
    """The type of an address."""

    @property
    def destination(self) -> str:
        """The expression for a packet's destination."""
        return self.address.replace("saddr", "daddr")

    def within(self, networks: Tuple[Network, ...]) -> str:
        """Return the expression for sources in networks: '' for everyone of the family.

        :param networks: of this family, not empty.
        """
        if any(network.prefixlen == 0 for network in networks):
            return self.packet
        return f"{self.address} {networks_text(networks)}"

    def set(self, name: str) -> str:
        """Return the name of this family's set."""
        return set_for(name, self.name)

    def seen(self, entry: Entry) -> str:
        """Return the expression that matches if the source is in a set."""
        return f"{self._key(entry)} @{self.set(entry.name)}"

    def put(self, entry: Entry, seconds: int) -> str:
        """Return the statement that puts the source into a set for some seconds from now on."""
        return f"update @{self.set(entry.name)} {{ {self._key(entry)} timeout {seconds}s }}"

    def forget(self, entry: Entry) -> str:
        """Return the statement that takes the source out of a set."""
        return f"delete @{self.set(entry.name)} {{ {self._key(entry)} }}"

    def _key(self, entry: Entry) -> str:
        if not entry.number:
            return self.source
        # A number alone is printed by nft 0.9.8 as no release reads it. So one is made of the packet's mark, whatever that is.
        return f"{self.source} . meta mark & {entry.number:#010x} | {entry.number:#010x}"


def networks_text(networks: Sequence[Network]) -> str:
    """Return networks of one family as a rule compares an address with them; there must be one."""
    found: List[Any] = list(networks)
    merged = [_text(network) for network in ipaddress.collapse_addresses(found)]
    return merged[0] if len(merged) == 1 else f"{{ {', '.join(merged)} }}"


def _text(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def families_of(spec: Spec) -> List[Family]:
    """Return the Families that a Spec manages."""
    mask = str(ipaddress.IPv6Network(f"::/{spec.ipv6_prefix}").netmask)
    six = "ip6 saddr" if spec.ipv6_prefix == 128 else f"ip6 saddr & {mask}"
    known = (
        Family(IPV4, DIGITS[IPV4], "meta nfproto ipv4", "ip saddr", "ip saddr", "ipv4_addr"),
        Family(IPV6, DIGITS[IPV6], "meta nfproto ipv6", "ip6 saddr", six, "ipv6_addr"),
    )
    return [family for family in known if family.name in spec.ip_versions]


def unmanaged(spec: Spec) -> List[str]:
    """Return the expressions for packets of the versions of IP that a Spec leaves alone."""
    return [f"meta nfproto {name}" for name in FAMILIES if name not in spec.ip_versions]


def knocker_matches(door: Door, family: Family) -> List[str]:
    """Return the match of the sources that may knock: [''] for everyone, none where no source of the family may."""
    if not door.sources:
        return [""]
    networks = tuple(network for network in door.sources if family_of(network) == family.name)
    return [family.within(networks)] if networks else []


def set_for(name: str, ip_version: str) -> str:
    """Return the name of the set of an IP version.

    :param name: with ``*`` where its digit stands.
    """
    return name.replace("*", DIGITS[ip_version], 1)


STAGES = "stages*"
"""The set of how far sources are in which knock, ``*`` where the family's digit stands."""


def open_set(door: Union[Door, DoorHere]) -> str:
    """Return the name of the set of the sources that have knocked, ``*`` where the family's digit stands."""
    return f"open*_{door.name}"


OPEN_SETS = re.compile(r"open([46])_(\w+)\Z")
"""The names of those sets, with the family's digit."""

STAGE_SETS = re.compile(r"stages[46]\Z|k[0-9a-z]{6}[1-7][46]\Z|stage[46]_")
"""The names of the sets of knocks in progress, with the family's digit, here and in tables of earlier releases. There they are
digests of steps."""


def sizes_of(spec: Spec) -> Tuple[int, int]:
    """Return how many sources the sets of knocks in progress hold, and those of sources that have knocked."""
    if spec.list_size == DEFAULTS["list_size"]:
        return IN_PROGRESS, OPEN
    size = spec.list_size if spec.list_size <= _SMALL else -(-spec.list_size // OPEN) * OPEN
    return size, size


__all__ = (
    "ABOUT", "BEGINNING", "BEHIND_CHAIN", "DIGITS", "FORWARD", "INPUT", "IN_PROGRESS", "KNOCKS", "NUMBERS", "OPEN", "OPENED", "OPEN_SETS",
    "PRIORITY", "REFUSE", "SERVICES", "STAGES", "STAGE_SETS", "TABLE", "WRONG", "Entry", "Family", "families_of", "knocker_matches",
    "networks_text", "open_set", "set_for", "sizes_of", "unmanaged",
)  # fmt: skip
