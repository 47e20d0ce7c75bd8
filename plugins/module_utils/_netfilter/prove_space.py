# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sets of packets for the prover. Pure.

All numbers and names that the rules of a ruleset mention part each thing about a packet (its port, source, interface, …) into
classes which no rule tells apart. A set of classes is the bits of one number, a set of packets a Box: one such number for each
thing. So to intersect, to subtract and to name a packet that lies in a box are exact and quick, however long a ruleset is.
"""

import ipaddress
from bisect import bisect_right
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import AnyNetwork, is_interface
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DESTINATION,
    DPORT,
    FIRST_DPORT,
    FLAG_BITS,
    FLAGS,
    INTERFACE,
    MARK,
    NEW,
    PROTOCOL,
    RELATED,
    SOURCE,
    SPORT,
    STATE,
    STATES,
    UNTRACKED,
    Term,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, PROTOCOLS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

SERVICE = "service"
"""Protocol and destination port as one thing: a bit for each pair that the rules tell apart."""
DIMENSIONS = (SERVICE, INTERFACE, SOURCE, DESTINATION, SPORT, STATE, FLAGS, MARK)
INDEX = {name: number for number, name in enumerate(DIMENSIONS)}

Box = Tuple[int, ...]
"""A set of packets: for each of DIMENSIONS the bits of the classes that are in it."""
Parts = Tuple[Tuple[int, int], ...]
"""Those dimensions in which a set is not everything, with its bits there."""

OPENERS = tuple(
    FLAG_BITS["SYN"] | more for more in (0, FLAG_BITS["PSH"], FLAG_BITS["URG"], FLAG_BITS["PSH"] | FLAG_BITS["URG"])
)
"""Those of the 64 combinations of TCP flags that begin a connection: of all others the kernel's listener drops or refuses the
packet (tcp_rcv_state_process() asks for SYN without ACK, RST or FIN)."""

_NO_SOURCES = {4: ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"), 6: ("::/127", "ff00::/8")}
_NO_HOSTS = {4: ("127.0.0.0/8", "224.0.0.0/3"), 6: ("::/127", "ff00::/8")}
_USUAL_SOURCES = {4: ("203.0.113.77", "198.51.100.77", "192.0.2.77"), 6: ("2001:db8:77::77",)}
_USUAL_HOSTS = {4: ("192.0.2.1",), 6: ("2001:db8::1",)}
_USUAL_SPORT = 12345

MOST_MARKS = 256


class Packet(NamedTuple):
    """One packet, the first of a connection to this host."""

    interface: str
    """The interface that it comes in by."""
    source: str
    """The address that it comes from."""
    destination: str
    """The address that it goes to."""
    protocol: str
    """``tcp`` or ``udp``."""
    sport: int
    """Its source port."""
    port: int
    """Its destination port."""
    flags: Tuple[str, ...]
    """Its TCP flags; empty for UDP."""
    state: str
    """Its conntrack state when it comes in: NEW or RELATED."""


class _Classes:
    """Numbers from 0 to an end, parted at some borders."""

    def __init__(self, end: int, ranges: Iterable[Tuple[int, int]]) -> None:
        borders = {0}
        for low, high in ranges:
            borders.update((low, high + 1))
        self.starts = sorted(border for border in borders if border < end)
        self._places = {border: place for place, border in enumerate(self.starts)}
        self._end = end
        self.all = (1 << len(self.starts)) - 1

    def bits(self, ranges: Iterable[Tuple[int, int]]) -> int:
        found = 0
        for low, high in ranges:
            last = self._places[high + 1] if high + 1 < self._end else len(self.starts)
            found |= (1 << last) - (1 << self._places[low])
        return found

    def number(self, bit: int, wished: Sequence[int] = ()) -> int:
        """Return a number of a class, one that is wished for if it is there; else one that is not the first."""
        low = self.starts[bit]
        high = self.starts[bit + 1] - 1 if bit + 1 < len(self.starts) else self._end - 1
        for each in wished:
            if low <= each <= high:
                return each
        return min(high, low + 1)

    def middle(self, bit: int) -> int:
        """Return the number in the middle of a class: its borders may be those of a step, which is a secret."""
        high = self.starts[bit + 1] - 1 if bit + 1 < len(self.starts) else self._end - 1
        return (self.starts[bit] + high) // 2

    def bit_of(self, number: int) -> int:
        return bisect_right(self.starts, number) - 1


def first_bit(bits: int) -> int:
    """Return the place of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


class Space:
    """The classes of one family, for the rules of one ruleset and what is asked of it."""

    def __init__(
        self,
        family: str,
        terms: Iterable[Term],
        mark_changes: Optional[FrozenSet[Tuple[int, int]]] = frozenset(),
        own: Sequence[AnyNetwork] = (),
        more: Iterable[Term] = (),
    ) -> None:
        """Take the terms of all rules, and of what is asked.

        :param mark_changes: (value, mask) of each rule that changes a packet's mark; None where that is not known.
        :param own: the host's own addresses, as ``ipaddress`` networks; empty where they are not known.
        """
        self.version = 4 if family == IPV4 else 6
        self.own_ranges = [range_of(each) for each in own if each.version == self.version]
        """First and last of the host's own addresses, as numbers; empty where they are not known."""
        no_sources = [range_of(ipaddress.ip_network(text)) for text in _NO_SOURCES[self.version]]
        no_hosts = [range_of(ipaddress.ip_network(text)) for text in _NO_HOSTS[self.version]]
        ranges, patterns = _mentioned((*terms, *more))
        end = 1 << (32 if self.version == 4 else 128)
        self.sources = _Classes(end, ranges[SOURCE] + no_sources + self.own_ranges)
        self.destinations = _Classes(end, ranges[DESTINATION] + self.own_ranges + no_hosts)
        self.dports, self.sports = _Classes(65536, ranges[DPORT]), _Classes(65536, ranges[SPORT])
        self.interfaces = _interface_names(patterns)
        self.marks = _reachable_marks(mark_changes)
        """Every mark that a packet may come to have; None where they cannot be listed."""
        self.half = len(self.dports.starts)
        self._own_sources = self.sources.bits(self.own_ranges)
        own_bits = self.destinations.bits(self.own_ranges)
        hosts = own_bits or self.destinations.all & ~self.destinations.bits(no_hosts)
        self.all: Box = (
            (1 << 2 * self.half) - 1, (1 << len(self.interfaces)) - 1, self.sources.all & ~self.sources.bits(no_sources), hosts,
            self.sports.all, (1 << len(STATES)) - 1, (1 << len(OPENERS)) - 1, (1 << len(self.marks or (0,))) - 1,
        )  # fmt: skip
        """Every packet in question, whatever rules have done to it on its way."""
        self.conditions: Dict[str, Any] = {}
        """What has been worked out of rules that ask for no list, by their text."""

    def service(self, ports: Iterable[Ports]) -> int:
        """Return the bits of some ports."""
        found = 0
        for each in ports:
            found |= self.dports.bits([(each.first, each.last)]) << (self.half * PROTOCOLS.index(each.protocol))
        return found

    def protocol(self, name: str) -> int:
        """Return the bits of all ports of a protocol."""
        return self.dports.all << (self.half * PROTOCOLS.index(name))

    def bits(self, term: Term) -> Optional[Tuple[int, int]]:
        """Return (number of the dimension, bits) of a Term; None where nothing is known of marks."""
        name, found = self._bits(term)
        index = INDEX[name]
        if found is None:
            return None
        everything = self._everything(index)
        return index, everything ^ (everything & found) if term.negated else found

    def _everything(self, index: int) -> int:
        # What is no source of a stranger may be that of this host's own connection, so a match keeps it.
        return {INDEX[SOURCE]: self.sources.all, INDEX[DESTINATION]: self.destinations.all}.get(index, self.all[index])

    def _bits(self, term: Term) -> Tuple[str, Optional[int]]:
        kind, data = term.kind, term.data
        if kind == FIRST_DPORT:
            return SERVICE, None
        if kind == PROTOCOL:
            return SERVICE, self.protocol(data)
        if kind == DPORT:
            bits = self.dports.bits(data)
            return SERVICE, bits | bits << self.half
        if kind == INTERFACE:
            return kind, _bits_where(is_interface(data, name) for name in self.interfaces)
        if kind == STATE:
            return kind, _bits_where(state & data for state in STATES)
        if kind == FLAGS:
            return kind, _bits_where(flags & data[0] == data[1] for flags in OPENERS)
        if kind == MARK:
            marks = self.marks
            return kind, None if marks is None else _bits_where(mark & data[1] == data[0] for mark in marks)
        classes = {SOURCE: self.sources, DESTINATION: self.destinations, SPORT: self.sports}[kind]
        return kind, classes.bits(data)

    def moved_mark(self, bits: int, change: Tuple[int, int]) -> int:
        """Return the marks of packets after a rule changed them."""
        if self.marks is None:
            return bits
        new = {_changed(old, change) for place, old in enumerate(self.marks) if bits >> place & 1}
        return _bits_where(mark in new for mark in self.marks)

    def packet(self, box: Box) -> Packet:
        """Return a packet that lies in a box, of the usual kind where there is one."""
        service, half = first_bit(box[0]), self.half
        protocol = PROTOCOLS[service // half]
        flags, sources = OPENERS[first_bit(box[INDEX[FLAGS]])], box[INDEX[SOURCE]]
        return Packet(
            interface=self.interfaces[first_bit(box[INDEX[INTERFACE]])],
            # One of the host's own addresses comes in by no wire that others send on.
            source=self._address(self.sources, sources & ~self._own_sources or sources, _USUAL_SOURCES),
            destination=self._address(self.destinations, box[INDEX[DESTINATION]], _USUAL_HOSTS),
            protocol=protocol,
            sport=_usual(self.sports, box[INDEX[SPORT]], [_USUAL_SPORT]),
            port=self.dports.middle(service % half),
            flags=tuple(name for name, bit in FLAG_BITS.items() if flags & bit == bit and name in ("SYN", "PSH", "URG"))
            if protocol == "tcp"
            else (),
            state=min(STATES[first_bit(box[INDEX[STATE]])] & {NEW, RELATED, UNTRACKED}),
        )

    def _address(self, classes: _Classes, bits: int, wished: Mapping[int, Sequence[str]]) -> str:
        number = _usual(classes, bits, [int(ipaddress.ip_address(text)) for text in wished[self.version]])
        return str(ipaddress.IPv4Address(number) if self.version == 4 else ipaddress.IPv6Address(number))


def _mentioned(terms: Iterable[Term]) -> Tuple[Dict[str, List[Tuple[int, int]]], List[str]]:
    """Return the ranges of numbers that terms mention, by their kind, and the patterns of interfaces."""
    ranges: Dict[str, List[Tuple[int, int]]] = {kind: [] for kind in (SOURCE, DESTINATION, DPORT, SPORT)}
    patterns = {"lo": None}
    for term in terms:
        if term.kind in ranges:
            ranges[term.kind].extend(term.data)
        elif term.kind == INTERFACE:
            patterns[term.data] = None
    return ranges, list(patterns)


def range_of(network: AnyNetwork) -> Tuple[int, int]:
    """Return the first and the last address of a network, as numbers."""
    return int(network.network_address), int(network.broadcast_address)


def intersected(box: Box, parts: Parts) -> Optional[Box]:
    """Return what a box and a set have in common, None for nothing."""
    found = list(box)
    for index, bits in parts:
        found[index] &= bits
        if not found[index]:
            return None
    return tuple(found)


def without(box: Box, parts: Parts) -> List[Box]:
    """Return what is left of a box without a set, as boxes that have nothing in common."""
    rest, left = list(box), []
    for index, bits in parts:
        outside = rest[index] & ~bits
        if outside:
            left.append(tuple(rest[:index] + [outside] + rest[index + 1 :]))
            rest[index] &= bits
            if not rest[index]:
                return left
    return left


def changed(box: Box, index: int, bits: int) -> Box:
    """Return a box with other bits in one dimension."""
    return box[:index] + (bits,) + box[index + 1 :]


def _usual(classes: _Classes, bits: int, wished: Sequence[int]) -> int:
    for number in wished:
        if bits >> classes.bit_of(number) & 1:
            return number
    return classes.number(first_bit(bits))


def _bits_where(answers: Iterable[Any]) -> int:
    return sum(1 << place for place, answer in enumerate(answers) if answer)


def _interface_names(patterns: Sequence[str]) -> List[str]:
    """Return a name for each class of interfaces that the patterns tell apart: themselves, and one that nothing but a prefix fits."""
    names = {pattern for pattern in patterns if not pattern.endswith("+")}
    taken = names | {pattern[:-1] for pattern in patterns if pattern.endswith("+")}
    for prefix in ["eth", *(pattern[:-1] for pattern in patterns if pattern.endswith("+") and pattern != "+")]:
        number = 0
        while f"{prefix}{number}" in taken:
            number += 1
        names.add(f"{prefix}{number}")
    unnamed = (f"{prefix}{number}" for number in range(3, len(patterns) + 10) for prefix in ("ens", "net", "if"))
    names.add(next(name for name in unnamed if not _is_named(name, patterns)))
    # The usual one first, so that an example of a packet comes in by it.
    return sorted(names, key=lambda name: (not name.startswith("eth"), name))


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    return any(is_interface(pattern, name) for pattern in patterns if pattern != "+")


def _changed(mark: int, change: Tuple[int, int]) -> int:
    return (mark & ~change[1]) ^ change[0]


def _reachable_marks(changes: Optional[FrozenSet[Tuple[int, int]]]) -> Optional[List[int]]:
    if changes is None:
        return None
    marks, waiting = {0}, [0]
    while waiting:
        mark = waiting.pop()
        for new in {_changed(mark, change) for change in changes} - marks:
            marks.add(new)
            waiting.append(new)
        if len(marks) > MOST_MARKS:
            return None
    return sorted(marks)


__all__ = (
    "INDEX", "OPENERS", "SERVICE", "Box", "Packet", "Parts", "Space", "changed", "first_bit", "intersected", "range_of", "without",
)  # fmt: skip
