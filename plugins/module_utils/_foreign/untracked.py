# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packets that table raw hides from connection tracking. Pure.

No connection of theirs is ever established: one through a door stops when the door's window is over, and where everything but the
exceptions is refused, answers from others are refused as well.
"""

import re
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import (
    AnyAddress,
    AnyNetwork,
    Arrival,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    UNTRACK,
    Decision,
    Packets,
    Walker,
    packets_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Rule, Table
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules

_EPHEMERAL = 40000
"""Stands for the port that the side which begins a connection has."""
ASKED = (53, 80, 123, 443)
"""What nearly every host asks others for: names, time, packages."""
_PORTS = {"--sport": "--dport", "--sports": "--dports"}
_ENDS = {"-s": "-d", "-i": "-o", "--src-type": "--dst-type", "--src-range": "--dst-range"}
_ENDS.update({other: one for one, other in _ENDS.items()})

Trusted = Tuple[Sequence[str], Sequence[AnyNetwork]]
"""Interfaces and networks whose packets are accepted anyhow, tracked or not."""


class Untracked(NamedTuple):
    """What one rule hides."""

    rule: Decision
    """The rule, as it stands in table raw, and the packets by the port that is served."""
    answers: bool
    """Whether they are answers to this host, else packets to it or from it as a server."""


def untracked_served(
    document: Document,
    packets: Packets,
    trusted: Trusted,
    arrival: Arrival,
    source: Optional[AnyAddress] = None,
) -> List[Untracked]:
    """Return what is hidden of connections to ports of this host, in either direction.

    :param packets: those to the ports.
    :param source: where the connections come from, None for anywhere.
    """
    return _hidden(document, packets, trusted, arrival, source, answers=False)


def untracked_answers(document: Document, tail: int, trusted: Trusted, arrival: Arrival) -> List[Untracked]:
    """Return what is hidden of connections from this host to others, where nothing else accepts the answers.

    :param tail: the position of the final reject.
    """
    raw = document.table("raw")
    texts = [rule.text for rules in raw.chains.values() for rule in rules if "port" in rule.text] if raw else []
    named = {int(number) for text in texts for number in re.findall(r"\b\d{1,5}\b", text)}
    ports = {port for port in named if port < 65536} | set(ASKED)
    packets = packets_of((port, protocol) for port in ports for protocol in PROTOCOLS)
    found = _hidden(document, packets, trusted, arrival, None, answers=True)
    return [each for each in found if not _accepted(document, tail, each.rule.packets, trusted)]


def _hidden(
    document: Document,
    packets: Packets,
    trusted: Trusted,
    arrival: Arrival,
    source: Optional[AnyAddress],
    answers: bool,
) -> List[Untracked]:
    table = document.table("raw")
    found: List[Untracked] = []
    if table is None:
        return found
    for chain in ("PREROUTING", "OUTPUT"):
        leaves = chain == "OUTPUT"
        seen = _View(table, swap_ports=leaves != answers, swap_ends=leaves)
        walker = Walker(seen.table, *trusted, source=source, arrival=arrival._replace(unmarked=True))
        for decision in walker.chain_effect(chain, packets).decisions:
            if decision.verdict == UNTRACK:
                found.append(Untracked(decision._replace(text=seen.written[decision.text]), answers))
    return found


def _accepted(document: Document, tail: int, packets: Packets, trusted: Trusted) -> bool:
    """Return whether a foreign rule may accept answers from ports although they are not tracked."""
    table = document.table("filter")
    if table is None:
        return False
    seen = _View(table, swap_ports=True, swap_ends=False)
    walker = Walker(seen.table, *trusted, states=frozenset(("UNTRACKED",)))
    for rule in foreign_rules(table)[:tail]:
        effect = walker.rule_effect("INPUT", _view(rule.text, True, False) or "", packets)
        if effect.accepts or effect.terminal:
            return effect.accepts
    return False


class _View:
    """A table as it looks when the port that is served is the destination, and the other side is the source."""

    def __init__(self, table: Table, swap_ports: bool, swap_ends: bool) -> None:
        self.table = Table(table.name, table.header)
        self.table.policies = table.policies
        self.written: Dict[str, str] = {}
        for name, rules in table.chains.items():
            self.table.chains[name] = []
            for rule in rules:
                text = _view(rule.text, swap_ports, swap_ends)
                if text is not None:
                    self.written[text] = rule.text
                    self.table.chains[name].append(Rule(text, rule.line, rule.counters))


def _view(text: str, swap_ports: bool, swap_ends: bool) -> Optional[str]:
    """Return a rule's text so, None where it can only match the other side's port."""
    words = []
    for option, values, negated in options(text):
        is_source = option in _PORTS
        is_port = is_source or option in _PORTS.values()
        if option == "--comment":
            continue
        if is_port and is_source != swap_ports:
            if _includes(values, _EPHEMERAL) == negated:
                return None
            continue
        if is_port and is_source:
            option = _PORTS[option]
        elif swap_ends:
            option = _ENDS.get(option, option)
        words += ["!"] if negated else []
        words += [option, *values]
    return " ".join(words)


def _includes(values: List[str], port: int) -> bool:
    for item in ",".join(values).split(","):
        first, colon, last = item.partition(":")
        low, high = first or "0", (last or "65535") if colon else first
        if not low.isdigit() or not high.isdigit() or int(low) <= port <= int(high):
            return True
    return False


__all__ = ("ASKED", "Trusted", "Untracked", "untracked_answers", "untracked_served")
