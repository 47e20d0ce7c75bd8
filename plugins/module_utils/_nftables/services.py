# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ports of doors and allowed ports, and the chains that decide about packets to them. Pure.

Doors and allowed ports may overlap, so the ports are cut into pieces to which the same doors and allowed ports apply. Then one
look-up finds the chain of a packet's port, however many ports there are.
"""

from typing import Any, Dict, Iterable, List, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import REFUSED_PREFIX
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    NUMBERS,
    OPENED,
    REFUSE,
    Entry,
    Family,
    families_of,
    knocker_matches,
    open_set,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import (
    LOG_LIMIT,
    PUBLISHED_PORTS,
    SENT_ON,
    SYN,
    Chains,
    Rule,
    joined,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    PROTOCOLS,
    PUBLISHED_NONE,
    PUBLISHED_POLICY,
    Allow,
    Door,
    Spec,
    family_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import PortIndex, Ports, ports_name

Piece = Tuple[Ports, Tuple[Any, ...]]
"""Ports, and what applies to each of them: an Allow or a Door."""
Found = Tuple[Ports, str]
"""Ports, and the verdict for packets to them."""


class Services:
    """The rules that find the chain of a service's port, and those chains."""

    def __init__(self, spec: Spec) -> None:
        """Take the Spec."""
        self._spec = spec
        self._families = families_of(spec)
        self.chains: Chains = {}
        self._verdicts: Dict[Tuple[str, Tuple[Any, ...]], str] = {}
        self._pieces = pieces(
            [(each.ports, each) for each in spec.allow] + [(ports, door) for door in spec.doors for ports in door.here]
        )
        self._here = self._found(self._pieces)
        self._index = PortIndex(self._here)

    def rules(self, more: Iterable[Found] = ()) -> List[Rule]:
        """Return the rules that look up the port of a packet to this host.

        :param more: single ports that are no service's, and what becomes of packets to them.
        """
        return by_port([*self._here, *more])

    def has(self, ports: Ports) -> bool:
        """Return whether a port of this host is a door's or allowed."""
        return self._index.find(ports) is not None

    def published(self) -> List[Rule]:
        """Return the rules for packets that nat sends to another port or host, by the port that they were sent to."""
        if self._spec.published == PUBLISHED_NONE:
            return []
        # Where the rest is not refused, ports that need no knock are as all others.
        allowed = refuses_published(self._spec)
        which = [piece for piece in self._pieces if allowed or any(isinstance(each, Door) for each in piece[1])]
        return by_first_port(self._found(which))

    def behind(self, doors: Iterable[Door]) -> List[Rule]:
        """Return the rules for packets to a host behind this one: by the port there, and by the one that they were sent to."""
        found = self._found(pieces((ports, door) for door in doors for ports in door.opens))
        return by_port(found) + by_first_port(found)

    def _found(self, some: Iterable[Piece]) -> List[Found]:
        return [(ports, self._verdict(ports.protocol, what)) for ports, what in some]

    def _verdict(self, protocol: str, what: Tuple[Any, ...]) -> str:
        key = (protocol, what)
        if key not in self._verdicts:
            name = f"service{len(self._verdicts) + 1}"
            doors = [each for each in what if isinstance(each, Door)]
            rules = [rule for each in what if isinstance(each, Allow) for rule in self._allow(each)]
            rules += [rule for door in doors for rule in self._entrance(door, protocol)]
            # An allowed port is to those who may not use it what any other port is.
            self._verdicts[key] = f"{'goto' if doors else 'jump'} {name}"
            self.chains[name] = rules + (self._closed() if doors else [])
        return self._verdicts[key]

    def _closed(self) -> List[Rule]:
        rules = [Rule(f'{LOG_LIMIT} log prefix "{REFUSED_PREFIX}"', comments.LOG_REFUSED)] if self._spec.log else []
        # One for each version of IP, as everything is counted for each.
        refused = [
            Rule(f"{family.packet} counter goto {REFUSE}", comments.REFUSE_NOT_KNOCKED) for family in self._families
        ]
        return rules + refused

    def _allow(self, allow: Allow) -> List[Rule]:
        panic = self._spec.panic
        meaning = comments.allowed(allow.comment or ports_name(allow.ports), panic)
        if panic:
            # Whoever it would be open to: the policy may be to accept the others.
            return [Rule(f"counter goto {REFUSE}", meaning)]
        if not allow.sources:
            return [Rule("counter accept", meaning)]
        return [
            Rule(joined(family.within(networks), "counter accept"), meaning)
            for family in self._families
            for networks in [tuple(network for network in allow.sources if family_of(network) == family.name)]
            if networks
        ]

    def _entrance(self, door: Door, protocol: str) -> List[Rule]:
        return [
            Rule(joined(who, self._known(door, family, protocol)), comments.entrance(door.name, self._spec.panic))
            for family in self._families
            for who in knocker_matches(door, family)
        ]

    def _known(self, door: Door, family: Family, protocol: str) -> str:
        """Accept sources that have knocked; for ``once`` the knock is forgotten by the packet that uses it."""
        name = open_set(door)
        target = f"goto {REFUSE}" if self._spec.panic else f"goto {OPENED}" if self._spec.log else "accept"
        if not door.once or self._spec.panic:
            return joined(family.seen(Entry(name)), "counter", target)
        begins = SYN if protocol == "tcp" else ""
        return joined(begins, family.seen(Entry(name)), family.forget(Entry(name)), "counter", target)


def refuses_published(spec: Spec) -> bool:
    """Return whether what nat publishes is refused unless it is a door's or allowed."""
    return spec.published == PUBLISHED_POLICY and spec.policy == "reject"


def by_port(found: Sequence[Found], meaning: comments.Meaning = comments.DOOR_PORTS) -> List[Rule]:
    """Return the rules that look up the port which a packet goes to."""
    single = [f"{NUMBERS[ports.protocol]} . {ports.first} : {verdict}" for ports, verdict in found if is_one(ports)]
    texts = [f"meta l4proto . th dport vmap {{ {', '.join(single)} }}"] if single else []
    for protocol in PROTOCOLS:
        wide = _elements(found, protocol, single=False)
        texts += [f"{protocol} dport vmap {{ {wide} }}"] if wide else []
    return [Rule(text, meaning) for text in texts]


def by_first_port(found: Sequence[Found]) -> List[Rule]:
    """Return the rules that look up the port which a connection was sent to before nat has changed that."""
    # That port in a concatenation, nft does not take.
    return [
        Rule(f"{SENT_ON} meta l4proto {NUMBERS[protocol]} ct original proto-dst vmap {{ {elements} }}", PUBLISHED_PORTS)
        for protocol in PROTOCOLS
        for elements in [_elements(found, protocol, single) for single in (True, False)]
        if elements
    ]


def _elements(found: Sequence[Found], protocol: str, single: bool) -> str:
    return ", ".join(
        f"{ports.first if single else f'{ports.first}-{ports.last}'} : {verdict}"
        for ports, verdict in found
        if ports.protocol == protocol and is_one(ports) == single
    )


def is_one(ports: Ports) -> bool:
    """Return whether Ports are a single one."""
    return ports.first == ports.last


def pieces(services: Iterable[Tuple[Ports, Any]]) -> List[Piece]:
    """Cut Ports that may overlap into such that do not, each with the values of all that it was part of, in their order."""
    services = list(services)
    return [
        (Ports(first, last, protocol), values)
        for protocol in PROTOCOLS
        for first, last, values in cut(
            [(ports.first, ports.last, value) for ports, value in services if ports.protocol == protocol]
        )
    ]


def cut(spans: Sequence[Tuple[int, int, Any]]) -> List[Tuple[int, int, Tuple[Any, ...]]]:
    """Cut spans of numbers, their ends included, as pieces() does."""
    begins: Dict[int, List[int]] = {}
    ends: Dict[int, List[int]] = {}
    for number, (first, last, _value) in enumerate(spans):
        begins.setdefault(first, []).append(number)
        ends.setdefault(last + 1, []).append(number)
    borders = sorted({*begins, *ends})
    here: Set[int] = set()
    found = []
    for first, after in zip(borders, borders[1:]):
        here = (here - set(ends.get(first, ()))) | set(begins.get(first, ()))
        if here:
            found.append((first, after - 1, tuple(dict.fromkeys(spans[number][2] for number in sorted(here)))))
    return found


__all__ = ("Services", "by_first_port", "by_port", "cut", "is_one", "pieces", "refuses_published")
