# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a rule asks of a packet, and what is taken note of while its text is read. Pure."""

import ipaddress
from typing import Any, FrozenSet, NamedTuple, Optional, Sequence, Tuple, Union

Ranges = Tuple[Tuple[int, int], ...]
"""Ranges of ports, ends included."""


class Condition(NamedTuple):
    """Which packets a rule matches, and where it sends them."""

    never: bool
    """Whether it matches none of the packets in question."""
    sure: bool
    """Whether it matches all that its protocol, ports and states let through."""
    particular: bool
    """Whether it matches only some sources, or packets that no ordinary client sends."""
    protocols: Optional[FrozenSet[str]]
    """Those it matches: tcp, udp, other. None for all."""
    ports: Optional[Ranges]
    """Destination ports it matches. None for all."""
    but_ports: bool
    """Whether it matches all ports but those."""
    states: Optional[FrozenSet[str]]
    """Conntrack states it matches. None for all."""
    target: str
    """What it jumps or goes to, '' for nothing."""
    goto: bool
    """Whether it goes to its target, so that it does not come back."""
    doubtful: bool = False
    """Whether nothing says that any of the packets in question match it at all."""
    interface: str = ""
    """The interface that they must come in by, '' for any."""
    elsewhere: bool = False
    """Whether that is one which strangers do not come in by, as far as the host's routes tell."""
    counts: str = ""
    """What it counts a source's packets with, if it matches those of sources with too many: RATE, or the name of a list of xt_recent."""


class Arrival(NamedTuple):
    """What is known of how the packets in question come in, beside what is trusted."""

    own: Sequence[Any] = ()
    """The host's own addresses, as ``ipaddress`` networks; empty where they are not known."""
    outside: Sequence[str] = ()
    """The interfaces that strangers come in by; empty where they are not known."""
    unmarked: bool = False
    """Whether nothing has put a mark on them yet."""


RATE = "-"
"""A counter of its own, which only the packets that meet the rule feed; no name of a list begins so."""

NOWHERE = Arrival()
"""Nothing is known."""


AnyAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
AnyNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

BROAD_PREFIX = {4: 8, 6: 16}
"""A source shorter than this is no particular source: a few such rules are a catch-all in disguise."""


def is_interface(pattern: str, name: str) -> bool:
    """Return whether an interface is what iptables means by a name, or by a prefix that ends in ``+``."""
    return name.startswith(pattern[:-1]) if pattern[-1:] == "+" else name == pattern


class Reading:
    """What has been read of a rule so far."""

    def __init__(
        self,
        interfaces: FrozenSet[str],
        sources: Sequence[AnyNetwork],
        source: Optional[AnyAddress],
        first: bool,
        arrival: Arrival,
    ) -> None:
        self.interfaces, self.sources, self.source, self.first, self.arrival = (
            interfaces,
            sources,
            source,
            first,
            arrival,
        )
        self.doubtful, self.interface, self.elsewhere = False, "", False
        self.never, self.sure, self.particular = False, True, False
        self.protocols: Optional[FrozenSet[str]] = None
        self.ports: Optional[Ranges] = None
        self.states: Optional[FrozenSet[str]] = None
        self.but_ports, self.target, self.goto = False, "", False
        # A limit counted per source refuses those that go above it; counted for many at once, or under it, everyone.
        self.per_source = self.above = self.counts_many = False
        self.asks_list, self.list_name = False, "DEFAULT"

    def result(self) -> Condition:
        self.particular = self.particular or (self.per_source and self.above and not self.counts_many)
        return Condition(
            self.never, self.sure and not self.particular, self.particular, self.protocols, self.ports,
            self.but_ports, self.states, self.target, self.goto, self.doubtful, self.interface, self.elsewhere, self.counts(),
        )  # fmt: skip

    def counts(self) -> str:
        if self.asks_list:
            return self.list_name
        return RATE if self.per_source and self.above and not self.counts_many else ""

    def perhaps(self) -> None:
        """Take note of a match of which nothing is known."""
        self.sure, self.doubtful = False, True

    def some(self) -> None:
        """Take note of a match that some of the packets in question fit, and not all."""
        self.sure = False

    def only(self, particular: bool) -> None:
        """Take note of a match on sources: a particular few, or perhaps everyone."""
        self.sure = False
        self.particular = self.particular or particular

    def fits(self, fits: bool) -> None:
        """Take note of a match that all packets in question fit, or none."""
        self.never = self.never or not fits


__all__ = (
    "BROAD_PREFIX",
    "NOWHERE",
    "AnyAddress",
    "AnyNetwork",
    "Arrival",
    "Condition",
    "Ranges",
    "Reading",
    "is_interface",
)
