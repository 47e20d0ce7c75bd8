# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One packet on the way that the prover found for it: whether it really goes there, and what must be so for that. Pure.

No sets and no classes: each match is asked of this one packet. What is said to be void has been seen here.
"""

import ipaddress
from typing import Any, Callable, FrozenSet, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import is_interface
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import GOES_ON
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    ALWAYS,
    DESTINATION,
    DNAT,
    DPORT,
    FIRST_DPORT,
    FLAG_BITS,
    FLAGS,
    INTERFACE,
    MARK,
    PROTOCOL,
    SOURCE,
    SPORT,
    UNTRACKED,
    ReadRule,
    Term,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import (
    DIVERT,
    REFUSE,
    Place,
    Ruleset,
    is_notrack,
    mark_change,
    new_ports,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import Packet
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import (
    Listed,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Table

ACCEPTED, REFUSED, SENT_AWAY, LOST = "accepted", "refused", "sent away", ""
"""What becomes of a packet; LOST where it cannot be followed."""
_BACK = "back"


class Outcome(NamedTuple):
    """What becomes of one packet."""

    verdict: str
    """ACCEPTED, REFUSED, SENT_AWAY or LOST."""
    assumed: Tuple[str, ...]
    """Rules that it must meet for that and of which nothing tells whether it does."""


class Replay:
    """One packet on its way."""

    def __init__(
        self,
        ruleset: Ruleset,
        packet: Packet,
        taken: Tuple[Place, ...],
        listed: Listed,
        is_own: Callable[[str], bool],
        sent_on: bool = False,
    ) -> None:
        """Take the rules, a packet, the rules that it is said to meet, who is on which list, and which addresses are the host's own.

        :param sent_on: whether nat has sent it elsewhere before.
        """
        self._ruleset, self._listed, self._is_own = ruleset, listed, is_own
        self._taken: FrozenSet[Place] = frozenset(taken)
        self._packet, self._port, self._state, self._mark = packet, packet.port, packet.state, 0
        self._diverted, self._sent_on = False, sent_on
        self._assumed: List[str] = []
        self.met: Set[Place] = set()
        """The rules that it has met."""

    def outcome(self) -> Outcome:
        """Return what becomes of it."""
        for hook in self._ruleset.way:
            table = self._ruleset.tables[hook.table]
            if table is None or (hook.tracked and self._state == UNTRACKED):
                continue
            verdict = self._chain(table, hook.chain)
            if verdict == _BACK:
                verdict = ACCEPTED if table.policy(hook.chain) == "ACCEPT" else REFUSED
            if verdict != ACCEPTED:
                return Outcome(verdict, tuple(self._assumed))
        return Outcome(ACCEPTED, tuple(self._assumed))

    def _chain(self, table: Table, chain: str) -> str:
        for number, rule in enumerate(table.rules(chain)):
            place = Place(table.name, chain, number)
            read = self._ruleset.rule(rule.text)
            meets = self._meets(read)
            if meets is None:
                meets = place in self._taken
                if meets:
                    self._assumed.append(self._ruleset.text(place))
            if meets:
                self.met.add(place)
            verdict = self._apply(table, read) if meets else ""
            if verdict:
                return verdict
        return _BACK

    def _apply(self, table: Table, rule: ReadRule) -> str:
        """Return what a rule does with it, '' where it goes on behind the rule."""
        target = rule.target
        if target in table.chains:
            inner = self._chain(table, target)
            return "" if inner == _BACK and not rule.goto else inner
        if target == "RETURN":
            return _BACK
        if not target or target in GOES_ON:
            self._change(rule)
            return ""
        if target in DIVERT:
            return self._divert(rule)
        return ACCEPTED if target == "ACCEPT" else REFUSED if target in REFUSE else LOST

    def _change(self, rule: ReadRule) -> None:
        change = mark_change(rule)
        if change is not None:
            self._mark = (self._mark & ~change[1]) ^ change[0]
        if is_notrack(rule):
            self._state = UNTRACKED

    def _divert(self, rule: ReadRule) -> str:
        ports = new_ports(rule)
        if rule.target == "NETMAP":
            return SENT_AWAY
        if rule.target == "DNAT":
            text = rule.values.get("--to-destination", "")
            address = text.rpartition(":")[0] if ports is not None else text
            if not self._is_own(address.strip("[]")):
                return SENT_AWAY
        if ports is not None:
            self._port = ports[0]
        self._diverted = self._sent_on = True
        return ACCEPTED

    def _meets(self, rule: ReadRule) -> Optional[bool]:
        """Return whether it meets a rule, None where nothing tells."""
        answers: List[Optional[bool]] = [False] if rule.never else []
        answers += [self._fits(term) for term in rule.terms]
        for asked in rule.lists:
            answers.append(True if asked.verb in ALWAYS else self._is_listed(asked))
            if asked.negated and answers[-1] is not None:
                answers[-1] = not answers[-1]
        if False in answers:
            return False
        return None if None in answers or rule.doubts else True

    def _is_listed(self, asked: Any) -> Optional[bool]:
        ports, answer = self._listed(asked)
        protocol = self._packet.protocol
        # Also where nat has changed the port, it is the door's that the packet was sent to.
        mine = {self._port, self._packet.port}
        known = any(each.protocol == protocol and each.first <= port <= each.last for each in ports for port in mine)
        return answer if known else None

    def _fits(self, term: Term) -> Optional[bool]:
        if (term.kind == MARK and self._ruleset.mark_changes is None) or (term.kind == DESTINATION and self._diverted):
            return None
        return self._asked(term.kind, term.data) != term.negated

    def _asked(self, kind: str, data: Any) -> bool:
        packet = self._packet
        if kind in (DPORT, FIRST_DPORT, SPORT, SOURCE, DESTINATION):
            number = {
                DPORT: self._port,
                FIRST_DPORT: packet.port,
                SPORT: packet.sport,
                SOURCE: int(ipaddress.ip_address(packet.source)),
                DESTINATION: int(ipaddress.ip_address(packet.destination)),
            }[kind]
            return any(low <= number <= high for low, high in data)
        if kind == FLAGS:
            return sum(FLAG_BITS[flag] for flag in packet.flags) & data[0] == data[1]
        if kind == MARK:
            return self._mark & data[1] == data[0]
        if kind == INTERFACE:
            return is_interface(data, packet.interface)
        if kind == PROTOCOL:
            return packet.protocol == data
        return self._state in data or (self._sent_on and DNAT in data)


__all__ = ("ACCEPTED", "LOST", "REFUSED", "SENT_AWAY", "Outcome", "Replay")
