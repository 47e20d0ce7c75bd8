# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports, ranges of ports, and quick look-ups in many of them. Pure."""

import bisect
from typing import Any, Iterable, List, NamedTuple, Optional, Set, Tuple


class Ports(NamedTuple):
    """A port, or a range of ports, of one protocol."""

    first: int
    """The first port."""
    last: int
    """The last port; the first where it is only one."""
    protocol: str
    """``tcp`` or ``udp``."""


MULTIPORT = 15
"""Entries that one ``-m multiport`` takes; a range counts as two (iptables-extensions(8))."""


class Ranges:
    """Merged ranges of numbers, ends included."""

    def __init__(self, ranges: Iterable[Tuple[int, int]]) -> None:
        """Take pairs of (first, last) in any order."""
        self._starts: List[int] = []
        self._ends: List[int] = []
        for first, last in sorted(ranges):
            if self._starts and first <= self._ends[-1] + 1:
                self._ends[-1] = max(self._ends[-1], last)
            else:
                self._starts.append(first)
                self._ends.append(last)

    def overlaps(self, first: int, last: int) -> bool:
        """Return whether any number from first to last is in one of the ranges."""
        index = bisect.bisect_right(self._starts, last) - 1
        return index >= 0 and self._ends[index] >= first

    def first_outside(self, low: int, high: int) -> Optional[int]:
        """Return the first number from low to high that is in none of the ranges, or None."""
        index = bisect.bisect_right(self._starts, low) - 1
        port = low
        if index >= 0 and self._ends[index] >= low:
            port = self._ends[index] + 1
        return port if port <= high else None


class PortIndex:
    """Which of many ports, each with a value, a port falls on."""

    def __init__(self, pairs: Iterable[Tuple[Ports, Any]]) -> None:
        """Take pairs of (Ports, value)."""
        self._pairs = tuple(pairs)
        self._ranges = {
            protocol: Ranges((ports.first, ports.last) for ports, _value in self._pairs if ports.protocol == protocol)
            for protocol in ("tcp", "udp")
        }

    def find(self, ports: Ports) -> Any:
        """Return the value of the first that overlaps, or None."""
        if not self._ranges[ports.protocol].overlaps(ports.first, ports.last):
            return None
        return next(
            value
            for other, value in self._pairs
            if other.protocol == ports.protocol and other.first <= ports.last and ports.first <= other.last
        )


def multiport_groups(ports: Iterable[Ports]) -> List[List[Ports]]:
    """Split Ports of one protocol, sorted, into groups that fit one multiport match each."""
    groups: List[List[Ports]] = []
    room = 0
    for item in sorted(set(ports)):
        weight = 1 if item.first == item.last else 2
        if weight > room:
            groups.append([])
            room = MULTIPORT
        groups[-1].append(item)
        room -= weight
    return groups


def multiport_text(ports: Iterable[Ports]) -> str:
    """Return the value of ``--dports`` for Ports, as iptables-save prints it."""
    return ",".join(port_text(item) for item in ports)


def port_text(ports: Ports) -> str:
    """Return one port or ``first:last``, as iptables-save prints it."""
    return str(ports.first) if ports.first == ports.last else f"{ports.first}:{ports.last}"


def ports_name(ports: Ports) -> str:
    """Return ``22/tcp`` or ``9000-9010/udp``, as people write it."""
    return f"{port_text(ports).replace(':', '-')}/{ports.protocol}"


WIDE = 1000
"""A range of more ports than this is looked at through samples."""


def port_samples(ports: Ports, borders: Iterable[int] = ()) -> Set[int]:
    """Return every port of a range; of a wide one its ends and what lies at the borders inside it.

    :param borders: ports that any rule names. Between two of them all ports meet the same rules, so with these
        the samples decide as the whole range would.
    """
    if ports.last - ports.first < WIDE:
        return set(range(ports.first, ports.last + 1))
    near = {port for border in borders for port in (border - 1, border, border + 1)}
    return {ports.first, ports.last} | {port for port in near if ports.first < port < ports.last}


__all__ = (
    "MULTIPORT",
    "WIDE",
    "PortIndex",
    "Ports",
    "Ranges",
    "multiport_groups",
    "multiport_text",
    "port_samples",
    "port_text",
    "ports_name",
)
