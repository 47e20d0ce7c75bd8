# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the port first: rules that send a packet to the chain of its port, and those chains. Pure."""

from typing import Dict, Iterable, List, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.catalog import Catalog
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.knocks import knock_rules
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    CATALOG,
    OPEN,
    REFUSE,
    REFUSED_PREFIX,
    RELATED,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import MULTIPORT, Ports, multiport_groups
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import (
    LOG_LIMIT,
    SYN,
    Chains,
    RuleParts,
    joined,
    knocker_matches,
    multiport_match,
    port_match,
)

DOOR, KNOCK, WRONG = "door", "knock", "wrong"
Entry = Tuple[Ports, str]
"""Ports, and what they are: DOOR, KNOCK or WRONG (a step's port over the wrong protocol)."""

FEW, MANY = 3, 6
"""Up to FEW multiport rules stand in one row; more are parted into ranges of ports with MANY rules each, so that a
packet to a port that belongs to nothing passes tens of rules and not hundreds."""


class Dispatch:
    """The rules of the doors' chain that find the port, and the chains that they send packets to."""

    def __init__(self, spec: Spec, family: str, lists: Lists, catalog: Catalog) -> None:
        """Take the Spec, the family with its Lists, and the Catalog of the knocks that the kernel recognises."""
        self.chains: Chains = {}
        self._door_rules: List[RuleParts] = []
        self._knock_rules: List[RuleParts] = []
        self._resets: List[RuleParts] = []
        self._lists = lists
        self._log = spec.log
        self._entrances = _entrances(spec, family, lists)
        self._reaching = Reaching(self._entrances)
        self._knocks = knock_rules(catalog.sequences, family, lists)
        self._knocked = {
            Ports(step.port, step.port, step.protocol) for sequence in catalog.sequences for step in sequence.steps
        }
        self._staged = {step for sequence in catalog.sequences if sequence.stages for step in sequence.steps}
        self._used = {step.protocol for step in self._staged}
        self._counts = {"D": 0, "K": 0, "R": 0}

    def rules(self, protocol: str) -> List[RuleParts]:
        """Return the rules for one protocol, for the doors' chain; adds the chains that they name."""
        entries = sorted(self._entries(protocol))
        reset = self._reset(protocol)
        self._resets += reset
        if len(entries) <= FEW * MULTIPORT:
            return self._row(protocol, entries) + reset
        rules = []
        for span, block in blocks(entries, MANY * MULTIPORT):
            name = self._name("R")
            rules.append(RuleParts(port_match(span), comments.PORT_RANGE, "-g " + name))
            self.chains[name] = self._row(protocol, block) + reset
        return rules + reset

    def knocks(self) -> List[RuleParts]:
        """Return the rules for knocks at hosts behind: what recognises them, and what makes a wrong packet forget progress.

        To be asked for once rules() has been, of both protocols.
        """
        return self._knock_rules + self._resets

    def related(self) -> Chains:
        """Return the chain for packets that belong to another connection: to the ports of doors they need the knock, too."""
        return {RELATED: self._door_rules} if self._door_rules else {}

    def _name(self, letter: str) -> str:
        self._counts[letter] += 1
        return f"PORTKNOCK_{letter}{self._counts[letter]}"

    def _entries(self, protocol: str) -> Set[Entry]:
        entries = {(ports, DOOR) for ports in self._entrances if ports.protocol == protocol}
        entries |= {(ports, KNOCK) for ports in self._knocked if ports.protocol == protocol}
        if self._used and protocol not in self._used:
            wrong = {Ports(step.port, step.port, protocol) for step in self._staged} - self._knocked
            entries |= {(ports, WRONG) for ports in wrong}
        return entries

    def _row(self, protocol: str, entries: List[Entry]) -> List[RuleParts]:
        rules = []
        for kind, rule in ((DOOR, self._door_rule), (KNOCK, self._knock_rule), (WRONG, self._wrong_rule)):
            for group in multiport_groups(ports for ports, its_kind in entries if its_kind == kind):
                rules.append(rule(protocol, group))
        return rules

    def _door_rule(self, protocol: str, group: List[Ports]) -> RuleParts:
        name = self._name("D")
        self.chains[name] = [rule for ports in self._reaching.of(group) for rule in self._entrances[ports]]
        if self._log:
            target = f'-j LOG --log-prefix "{REFUSED_PREFIX}"'
            self.chains[name].append(RuleParts(LOG_LIMIT, comments.LOG_REFUSED, target))
        self.chains[name] += self._refusals(group)
        rule = RuleParts(multiport_match(protocol, group), comments.DOOR_PORTS, "-g " + name)
        self._door_rules.append(rule)
        return rule

    def _refusals(self, group: List[Ports]) -> List[RuleParts]:
        """Refuse the rest of a group's packets; where it has ports of several doors, each port by a rule, which counts for its doors.

        The narrowest ports stand first, so that a range counts no packet of a port of its own. The last rule refuses whatever is left.
        """
        doors = {tuple(rule.meaning.door for rule in self._entrances[ports]) for ports in group}
        narrow = sorted(group, key=lambda ports: ports.last - ports.first) if len(doors) > 1 else group
        matches = [port_match(ports) for ports in narrow[:-1]] if len(doors) > 1 else []
        return [RuleParts(match, comments.REFUSE_NOT_KNOCKED, "-g " + REFUSE) for match in [*matches, ""]]

    def _knock_rule(self, protocol: str, group: List[Ports]) -> RuleParts:
        name = self._name("K")
        self.chains[name] = [rule for ports in group for rule in self._knocks.get(Step(ports.first, protocol), ())]
        self._knock_rules.append(
            RuleParts(multiport_match(protocol, group, new=True), comments.KNOCK_PORTS, "-g " + name)
        )
        return self._knock_rules[-1]

    def _wrong_rule(self, protocol: str, group: List[Ports]) -> RuleParts:
        match = joined(multiport_match(protocol, group, new=True), self._lists.forget(self._lists.progress))
        self._knock_rules.append(RuleParts(match, comments.WRONG_PROTOCOL, "-g " + CATALOG))
        return self._knock_rules[-1]

    def _reset(self, protocol: str) -> List[RuleParts]:
        """Return the rule that makes a wrong packet forget the source's progress in every door.

        A protocol that some sequence uses is watched on all ports; on the other one only the right port over
        the wrong protocol counts, so that a client's ordinary traffic does not break its knock. Broadcasts
        never count.
        """
        if protocol not in self._used:
            return []
        match = "-p tcp -m tcp " + SYN if protocol == "tcp" else "-p udp -m pkttype --pkt-type unicast"
        forget = self._lists.forget(self._lists.progress)
        return [RuleParts(joined(match, forget), comments.WRONG_PORT, "-g " + CATALOG)]


class Reaching:
    """Which of many ports have a port of a group as well: its packets may be for these."""

    def __init__(self, every: Iterable[Ports]) -> None:
        """Take all ports that there are."""
        self._every = sorted(every)
        self._ranges = [ports for ports in self._every if ports.first != ports.last]

    def of(self, group: Sequence[Ports]) -> List[Ports]:
        """Return the ports of a group, and the others that have a port of it as well.

        :param group: ports of one protocol.
        """
        wide = [each for each in group if each.first != each.last]
        # Of two single ports none has one of the other, and they are most.
        others = [
            ports
            for ports in (self._every if wide else self._ranges)
            if any(
                ports.protocol == each.protocol and ports.first <= each.last and each.first <= ports.last
                for each in (group if ports.first != ports.last else wide)
            )
        ]
        return [*group, *(ports for ports in others if ports not in group)]


def blocks(entries: Sequence[Entry], size: int) -> List[Tuple[Ports, List[Entry]]]:
    """Split sorted entries of one protocol into blocks of about that size, each with the range of its ports; no two ranges overlap."""
    found: List[List[Entry]] = []
    last = 0
    for entry in entries:
        if not found or (len(found[-1]) >= size and entry[0].first > last):
            found.append([])
        found[-1].append(entry)
        last = max(last, entry[0].last)
    return [
        (Ports(block[0][0].first, max(ports.last for ports, _kind in block), block[0][0].protocol), block)
        for block in found
    ]


def _entrances(spec: Spec, family: str, lists: Lists) -> Dict[Ports, List[RuleParts]]:
    """Return Ports to the rules that accept sources that have knocked for them."""
    by_ports: Dict[Ports, List[RuleParts]] = {}
    for door in spec.doors:
        for ports in door.here:
            by_ports.setdefault(ports, []).extend(_entrance(spec, door, family, lists, ports))
    return by_ports


def _entrance(spec: Spec, door: Door, family: str, lists: Lists, ports: Ports) -> List[RuleParts]:
    """Accept sources that have knocked; for ``once`` the knock is forgotten by the packet that uses it."""
    target = "-g " + REFUSE if spec.panic else "-g " + OPEN if spec.log else "-j ACCEPT"
    known = lists.seen(lists.door(door), door.window)
    syn = ""
    if door.once:
        known = joined(known, lists.forget(lists.door(door)))
        syn = SYN if ports.protocol == "tcp" else ""
    match = joined(port_match(ports), syn, known)
    meaning = comments.entrance(door.name, spec.panic)
    return [RuleParts(joined(source, match), meaning, target) for source in knocker_matches(door, family)]


__all__ = ("DOOR", "Dispatch", "Reaching", "blocks")
