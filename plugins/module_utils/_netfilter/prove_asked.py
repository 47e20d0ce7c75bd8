# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The packets that the prover is asked about, as sets: strangers, those who may knock, those for whom a port is. Pure."""

import ipaddress
from typing import Any, Callable, List, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import AnyNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import (
    Arriving,
    GuardedDoor,
    Question,
    Unguarded,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DESTINATION,
    DPORT,
    FLAG_BITS,
    FLAGS,
    INTERFACE,
    MARK,
    NEW,
    RELATED,
    SOURCE,
    STATE,
    STATES,
    Term,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Place, Ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import (
    INDEX,
    OPENERS,
    Box,
    Parts,
    changed,
    intersected,
    range_of,
    without,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

NEW_BITS, RELATED_BITS = (1 << STATES.index(frozenset((state,))) for state in (NEW, RELATED))
"""The conntrack states NEW and RELATED as sets."""
DHCPV6 = Ports(546, 546, "udp")
"""Answers to a host that asks for an address come to this port from a server that it did not ask: they are let in for that."""
_SYN = 1 << OPENERS.index(FLAG_BITS["SYN"])
"""The flag that every program of a client begins a connection with, alone."""


class Asked:
    """The packets that a Question is about, as sets."""

    def __init__(self, ruleset: Ruleset, question: Question) -> None:
        """Take the Ruleset of a family, and what is asked of it."""
        self.question, self.ruleset = question, ruleset
        self.space = self.ruleset.space(question.own, _terms(question))
        self.is_own = _is_own(question.own)
        """Whether an address, as text, is the host's own."""

    def strangers(self, services: int) -> List[Box]:
        """Return the packets to some services from all whom nothing lets in without a knock."""
        boxes = self.untrusted(services, NEW_BITS | RELATED_BITS)
        for parts in map(self.allowed, self.question.allow):
            boxes = [left for each in boxes for left in self.left(each, parts)]
        return [each for each in boxes if each[0] & self.space.all[0]]

    def untrusted(self, services: int, states: int) -> List[Box]:
        """Return the first packets to some services, with some conntrack states, from all who are not trusted."""
        boxes = [self.first(services, states)]
        for parts in self.trusted():
            boxes = [left for each in boxes for left in self.left(each, parts)]
        return boxes

    def wrong_knocks(self) -> List[Box]:
        """Return the first packets of strangers to all ports that are no step, and that nothing opens.

        Of protocols alone that some knock uses: the others are not looked at.
        """
        space, doors = self.space, self.question.doors
        used = {step.protocol for door in doors for step in door.steps + door.close}
        known = [ports for door in doors for ports in (*door.opens, *map(ports_of, door.steps + door.close))]
        known += [each.ports for each in self.question.allow] + [DHCPV6]
        boxes = self.strangers(sum(map(space.protocol, used)) & ~space.service(known))
        met = [intersected(box, ((INDEX[STATE], NEW_BITS),)) for box in boxes]
        return [box for box in met if box is not None]

    def first(self, services: int, states: int) -> Box:
        """Return all packets to some services with some conntrack states, as they come in: unmarked and not diverted."""
        space = self.space
        box = changed(changed(space.all, 0, services), INDEX[STATE], states)
        return changed(box, INDEX[MARK], 1 << (space.marks or [0]).index(0))

    def trusted(self) -> List[Parts]:
        """Return the packets that need no knock, those of the loopback interface first."""
        space, question = self.space, self.question
        terms = [Term(INTERFACE, name, False) for name in ("lo", *question.trusted_interfaces)]
        terms += [Term(SOURCE, (range_of(network),), False) for network in question.trusted_sources]
        return [(found,) for found in map(space.bits, terms) if found is not None]

    def allowed(self, allow: Unguarded) -> Parts:
        """Return the packets to a port that needs no knock, from those for whom it is."""
        if allow.sources is None:
            return ((0, 0),)
        parts = [(0, self.space.service([allow.ports]))]
        if allow.sources:
            found = self.space.bits(Term(SOURCE, tuple(range_of(each) for each in allow.sources), False))
            parts += [found] if found is not None else []
        return tuple(parts)

    def knockers(self, door: GuardedDoor, ports: Sequence[Ports]) -> List[Box]:
        """Return the first packets to some ports from those who may knock and are not trusted."""
        if door.sources is None:
            return []
        boxes = self.untrusted(self.space.service(ports), NEW_BITS)
        return self.from_sources(boxes, door.sources) if door.sources else boxes

    def from_sources(self, boxes: Sequence[Box], sources: Sequence[AnyNetwork]) -> List[Box]:
        """Return those packets of sets that come from some networks."""
        found = self.space.bits(Term(SOURCE, tuple(map(range_of, sources)), False))
        return [met for met in (intersected(each, (found,)) for each in boxes if found) if met is not None]

    @staticmethod
    def left(box: Box, parts: Parts) -> List[Box]:
        """Return a set of packets without some of them."""
        return without(box, parts) if intersected(box, parts) is not None else [box]

    def arriving(self, arriving: Arriving, port: Ports, by: str) -> Optional[Box]:
        """Return the first packets from the source of a connection to a port, None where none can be.

        :param by: the interface that they come in by, '' for any but the loopback's.
        """
        space, source = self.space, arriving.source
        box = changed(self.first(space.service([port]), NEW_BITS), INDEX[FLAGS], _SYN)
        must = [Term(SOURCE, ((int(source), int(source)),), False)]
        # What the host sends to itself, comes in by the loopback interface, whatever its address.
        must.append(Term(INTERFACE, "lo", not self.is_own(str(source))))
        # Where nat or routing is not what is known of it, any address and interface will do.
        may = [Term(DESTINATION, ((int(arriving.address),) * 2,), False)] if arriving.address is not None else []
        may += [Term(INTERFACE, by, False)] if by else []
        for term in (*must, *may):
            found = space.bits(term)
            met = intersected(box, (found,)) if found is not None else None
            if met is None and term in must:
                return None
            box = met or box
        return box

    def is_ours(self, taken: Sequence[Place]) -> bool:
        """Return whether a rule of ours refuses, or the policy of a chain, behind all rules."""
        return self.ruleset.is_ours(taken[-1], self.question.is_ours)

    def is_written(self, place: Place) -> bool:
        """Return whether the rule at a place is the collection's, and not one that was put among its rules by hand."""
        return self.ruleset.is_written(place, self.question.is_ours)


def _terms(question: Question) -> List[Term]:
    """Return what is asked about, so that the classes know its borders."""
    ports = [each for door in question.doors for each in (*door.opens, *map(ports_of, door.steps + door.close))]
    ports += [each.ports for each in question.allow]
    sources = [each.sources for each in question.doors] + [each.sources for each in question.allow]
    networks = [network for some in sources for network in some or ()]
    terms = [Term(DPORT, ((each.first, each.last),), False) for each in (*ports, DHCPV6)]
    terms += [Term(SOURCE, (range_of(each),), False) for each in (*networks, *question.trusted_sources)]
    terms += [Term(INTERFACE, name, False) for name in question.trusted_interfaces]
    terms += [Term(DESTINATION, (range_of(each),), False) for door in question.doors for each in door.to]
    return terms + (_terms_of(question.connection) if question.connection is not None else [])


def _terms_of(arriving: Arriving) -> List[Term]:
    terms = [Term(DPORT, ((arriving.port, arriving.port),), False)]
    terms += [Term(SOURCE, ((int(arriving.source),) * 2,), False)]
    terms += [Term(DESTINATION, ((int(arriving.address),) * 2,), False)] if arriving.address is not None else []
    return terms + ([Term(INTERFACE, arriving.interface, False)] if arriving.interface else [])


def ports_of(step: Step) -> Ports:
    """Return the port of a step."""
    return Ports(step.port, step.port, step.protocol)


def _is_own(own: Sequence[AnyNetwork]) -> Callable[[str], bool]:
    def answer(text: str) -> bool:
        try:
            address: Any = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address.version == each.version and address in each for each in own)

    return answer


__all__ = ("DHCPV6", "NEW_BITS", "RELATED_BITS", "Asked", "ports_of")
