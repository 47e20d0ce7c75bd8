# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The foreign rules of INPUT, and what they may do to packets of doors, knocks and allowed ports. Pure."""

import re
from typing import Any, Callable, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import NOWHERE, RATE, Arrival
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.match import SERVICES
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ACCEPT,
    ANY_STATE,
    EVERYTHING,
    MAYBE,
    REFUSE,
    RELATED,
    Decision,
    Packets,
    Walker,
    packets_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_samples
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import guard_port, silent_ports
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import Installed
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules

Protected = Union[Spec, Installed]
"""What names the ports of doors, knocks and allowed ports: what was asked for, or what was read back."""


class WatchedPackets(NamedTuple):
    """Packets that foreign rules must not decide before the doors do."""

    doors: Packets
    """Those that the doors' chain must see first: to doors and knocks; in panic, to allowed ports as well."""
    allowed: Packets
    """Those to allowed ports, which must get in."""
    opened: Packets
    """Those to the doors' own ports."""


def watched_packets(protected: Protected, borders: Iterable[int] = ()) -> WatchedPackets:
    """Return the WatchedPackets of a Spec, or of what was read back.

    For a knock whose steps only rise or fall one port between two steps belongs to it: a foreign rule that
    took that port first would let a linear scan through without a reset.

    :param borders: ports that any foreign rule names, see port_samples.
    """
    doors = protected.doors
    opened = {(port, ports.protocol) for door in doors for ports in door.here for port in port_samples(ports, borders)}
    knocked = {(step.port, step.protocol) for door in doors for step in door.knock + door.close}
    allowed = {(port, allow.ports.protocol) for allow in protected.allow for port in port_samples(allow.ports, borders)}
    silent = silent_ports(protected.doors, protected.allow)
    guards: Set[Tuple[int, str]] = set()
    for door in doors:
        port = guard_port(door.knock, silent) if len(door.knock) > 1 else None
        guards |= {(port, step.protocol) for step in door.knock} if port else set()
    first = opened | knocked | guards
    if protected.panic:
        # They are to be closed, like the doors.
        first, allowed = first | allowed, set()
    return WatchedPackets(packets_of(first), packets_of(allowed), packets_of(opened))


_NUMBER = re.compile(r"\b\d{1,5}\b")


def borders_of(document: Document) -> Set[int]:
    """Return the ports that rules of a ruleset name."""
    texts = [
        rule.text
        for table in document.tables
        for rules in table.chains.values()
        for rule in rules
        if "port" in rule.text
    ]
    return {int(number) for text in texts for number in _NUMBER.findall(text)} | set(SERVICES.values())


def arrival_of(local: LocalNetwork, family: str) -> Arrival:
    """Return what is known of how packets of an IP version come in."""
    return Arrival(local.own, local.outside(family))


class ForeignRules:
    """The foreign rules of INPUT, each with what it may do to watched packets."""

    def __init__(
        self, document: Document, protected: Protected, arrival: Arrival = NOWHERE, arriving: bool = False
    ) -> None:
        """Take the Document of a ruleset, and what names the ports.

        :param arrival: what is known of how packets come in.
        :param arriving: whether to look at packets from strangers as they really come in, and at no others; see as_arriving().
        """
        self._origin = (document, protected, arrival)
        self.document = document
        self.table = table = document.table("filter")
        self.rules = foreign_rules(table)
        borders = borders_of(document)
        self.watched = watched_packets(protected, borders)
        self._effects: List[_RuleEffects] = []
        self.limits: FrozenSet[str] = frozenset((RATE,))
        """What counts the doors' own packets: who refuses by it limits them, and is no list of particular sources."""
        if table is None or not self.rules:
            return
        trusted = protected.trusted_interfaces, protected.trusted_sources
        unmarked = arriving and not _marks(document, trusted, self.watched.doors, arrival)
        arrival = arrival._replace(unmarked=unmarked) if arriving else NOWHERE
        walker = Walker(table, *trusted, arrival=arrival)
        self.limits = walker.lists_fed_by(self.watched.doors) | {RATE}
        established = Walker(table, *trusted, states=ANY_STATE, arrival=arrival)
        related = Walker(table, *trusted, states=RELATED, arrival=arrival, like=established)
        all_packets = packets_of((port, protocol) for port in borders | set(EVERYTHING.tcp) for protocol in PROTOCOLS)
        all_packets = all_packets._replace(other=True)
        self._effects = [
            _RuleEffects(walker, established, related, rule.text, self.watched, all_packets, self.limits)
            for rule in self.rules
        ]
        if arriving:
            for effects in self._effects:
                effects.spare_particular()

    def as_arriving(self) -> "Optional[ForeignRules]":
        """Return the same rules as strangers' packets meet them: what is sent to other addresses or bears a mark is none of theirs.

        None where too little is known. A hook need not move for the sake of other packets: who puts a jump of its own in front again
        and again, as kube-router does for its pods, would make that a change at every run.
        """
        document, protected, arrival = self._origin
        return ForeignRules(document, protected, arrival, arriving=True) if arrival.own else None

    def first_decisive(self) -> int:
        """Return the position of the first rule that could decide a door's or knock's packets for everyone."""
        return self._first(lambda effects: effects.decisive)

    def behind_blocks(self, before: int) -> int:
        """Return the position behind the last rule ahead of ``before`` that only refuses particular sources."""
        return 1 + max([index for index in range(before) if self._effects[index].blocks] or [-1])

    def head_before(self) -> int:
        """Return the position of the first rule that the head must stand in front of.

        One that could refuse packets of established connections for everyone, or accept what a tracking helper calls
        related at a door's port.
        """
        return self._first(lambda effects: effects.refuses_established or effects.accepts_related)

    def catch_all(self) -> int:
        """Return the position of the first rule that decides every packet."""
        return self._first(lambda effects: effects.catch_all)

    def behind_exceptions(self, before: int) -> int:
        """Return the position behind the last rule ahead of ``before`` that decides anything at all."""
        return 1 + max([index for index in range(before) if self._effects[index].acts] or [-1])

    def decisions(self, position: int) -> List[Decision]:
        """Return the decisions on doors' and allowed ports by the rules from a position on."""
        return [decision for effects in self._effects[position:] for decision in effects.decisions]

    def limits_before(self, position: int) -> List[Decision]:
        """Return the decisions ahead of a position that refuse a door's or knock's packets for being too many."""
        return [decision for effects in self._effects[:position] for decision in effects.limits]

    def _first(self, test: "Callable[[_RuleEffects], bool]") -> int:
        return next((index for index, effects in enumerate(self._effects) if test(effects)), len(self.rules))


class _RuleEffects:
    """What one foreign rule of INPUT may do, as plain answers."""

    def __init__(
        self,
        walker: Walker,
        established: Walker,
        related: Walker,
        text: str,
        watched: WatchedPackets,
        all_packets: Packets,
        limits: FrozenSet[str],
    ) -> None:
        condition = walker.condition(text)
        doors = walker.rule_effect("INPUT", text, watched.doors)
        allowed = walker.rule_effect("INPUT", text, watched.allowed)
        refusals = [item for item in doors.decisions if item.verdict == REFUSE]
        self.limits = [item for item in refusals if item.counts in limits]
        # A limit that counts connections to doors would refuse an owner in a hurry. What limits allowed ports, or keeps particular
        # sources out as well, must stand above them all the same.
        limits_doors = bool(self.limits) and len(self.limits) == len(refusals) and not allowed.refuses_some
        self.decisive = doors.accepts or doors.refuses_everyone or allowed.refuses_everyone or limits_doors
        self.blocks = not self.decisive and (doors.refuses_some or allowed.refuses_some)
        self.decisions = doors.decisions + [item for item in allowed.decisions if item.verdict == REFUSE]
        self.refuses_established = established.rule_effect("INPUT", text, all_packets).refuses_everyone
        self._related = related.rule_effect("INPUT", text, watched.opened).decisions
        self.accepts_related = any(item.verdict in (ACCEPT, MAYBE) for item in self._related)
        self.catch_all = condition.sure and walker.rule_effect("INPUT", text, EVERYTHING).terminal
        self.acts = not condition.never and bool(condition.target) and condition.target not in ("LOG", "NFLOG", "ULOG")

    def spare_particular(self) -> None:
        """Leave out what is accepted as related for particular sources alone, such as a pod's."""
        self.accepts_related = any(item.verdict in (ACCEPT, MAYBE) and not item.particular for item in self._related)


_ON_THE_WAY = (
    ("raw", "PREROUTING"),
    ("mangle", "PREROUTING"),
    ("nat", "PREROUTING"),
    ("mangle", "INPUT"),
    ("filter", "INPUT"),
)


def _marks(document: Document, trusted: Tuple[Any, Any], packets: Packets, arrival: Arrival) -> bool:
    """Return whether some rule on the way to the end of INPUT may put a mark on such packets of strangers."""
    tables = [(document.table(name), chain) for name, chain in _ON_THE_WAY]
    return any(
        Walker(table, *trusted, arrival=arrival).may_mark(chain, packets)
        for table, chain in tables
        if table is not None
    )


__all__ = (
    "ForeignRules",
    "Protected",
    "WatchedPackets",
    "arrival_of",
    "borders_of",
    "watched_packets",
)
