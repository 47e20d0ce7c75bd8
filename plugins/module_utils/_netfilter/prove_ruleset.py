# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of one family that a packet to this host may meet, read once for the prover; and what they do to a packet. Pure."""

from typing import Dict, FrozenSet, Iterable, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import AnyNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DPORT,
    ReadRule,
    Term,
    mark_and_mask,
    read_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import Space
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document

WAY = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("mangle", "INPUT"), ("filter", "INPUT"))
"""The tables that a packet to this host passes, and their chains."""
REFUSE = frozenset(("DROP", "REJECT", "TARPIT", "STEAL", "DELUDE", "CHAOS"))
DIVERT = frozenset(("DNAT", "REDIRECT", "NETMAP"))


class Place(NamedTuple):
    """Where a rule is."""

    table: str
    """The name of its table."""
    chain: str
    """The name of its chain."""
    number: int
    """How many rules of the chain stand before it; as many as there are for the chain's policy."""


class Ruleset:
    """The rules of one family that a packet to this host may meet, read once."""

    def __init__(self, document: Document, family: str) -> None:
        """Take a Document, and ``ipv4`` or ``ipv6``."""
        self.document, self.family = document, family
        self.tables = {name: document.table(name) for name in ("raw", "mangle", "nat", "filter")}
        self._rules: Dict[str, ReadRule] = {}
        self._reached: Set[Tuple[str, str]] = set()
        for name, chain in WAY:
            self._reach(name, chain)
        self.mark_changes = _mark_changes(self._rules.values())
        """(value, mask) of each rule that changes a packet's mark; None where that is not known."""

    def rule(self, text: str) -> ReadRule:
        """Return what a rule asks, read once."""
        found = self._rules.get(text)
        if found is None:
            found = self._rules[text] = read_rule(text, self.family)
        return found

    def _reach(self, name: str, first: str) -> None:
        table, waiting = self.tables[name], [first]
        while waiting and table is not None:
            chain = waiting.pop()
            if (name, chain) not in self._reached:
                self._reached.add((name, chain))
                targets = (self.rule(rule.text).target for rule in table.rules(chain))
                waiting += [target for target in targets if target in table.chains]

    def text(self, place: Place) -> str:
        """Return the rule at a place as iptables-save prints it, or the policy of its chain."""
        table = self.tables[place.table]
        rules = table.rules(place.chain) if table is not None else []
        if place.number < len(rules):
            return f"-A {place.chain} {rules[place.number].text.strip()}"
        return f"-P {place.chain} {table.policy(place.chain) if table is not None else 'ACCEPT'}"

    @property
    def diverts(self) -> bool:
        """Whether some rule of table nat sends packets elsewhere."""
        table = self.tables["nat"]
        chains = [chain for name, chain in self._reached if name == "nat"]
        return table is not None and any(
            self.rule(rule.text).target in DIVERT for chain in chains for rule in table.rules(chain)
        )

    def space(self, own: Sequence[AnyNetwork], more: Iterable[Term]) -> Space:
        """Return the Space of these rules.

        :param own: the host's own addresses, as ``ipaddress`` networks; empty where they are not known.
        :param more: Terms of what is asked.
        """
        rules = self._rules.values()
        ports = [new_ports(rule) for rule in rules if rule.target in DIVERT]
        sent = [Term(DPORT, (each,), False) for each in ports if each is not None]
        terms = [term for rule in rules for term in rule.terms]
        return Space(self.family, terms, self.mark_changes, own, [*more, *sent])


_MARKS_SOMEHOW = frozenset(("TPROXY", "HMARK"))


def _mark_changes(rules: Iterable[ReadRule]) -> Optional[FrozenSet[Tuple[int, int]]]:
    """Return what the rules do to marks, or None where that is not known: one may come from a connection's mark."""
    changes, saved, restored = set(), False, False
    for rule in rules:
        change = mark_change(rule)
        if change is not None:
            changes.add(change)
        elif rule.target == "MARK" or rule.target in _MARKS_SOMEHOW or "--map-mark" in rule.values:
            return None
        restored = restored or (rule.target == "CONNMARK" and change is not None)
        saved = saved or (rule.target == "CONNMARK" and change is None)
    return None if saved and restored else frozenset(changes)


def mark_change(rule: ReadRule) -> Optional[Tuple[int, int]]:
    """Return (value, mask) of what a rule does to a packet's mark, as ``--set-xmark`` has it; None where it does nothing."""
    if rule.target == "MARK":
        plain = mark_and_mask(rule.values.get("--set-mark", ""))
        if plain is not None:
            return plain[0], plain[0] | plain[1]
        return mark_and_mask(rule.values.get("--set-xmark", ""))
    if rule.target == "CONNMARK" and "--restore-mark" in rule.values:
        # A new connection has no mark but the one that a rule has given it; see _mark_changes().
        return 0, (mark_and_mask(rule.values.get("--nfmask", "")) or (0xFFFFFFFF, 0))[0]
    return None


def new_ports(rule: ReadRule) -> Optional[Tuple[int, int]]:
    """Return the first and the last port that a rule of nat may send packets to, None where it leaves the port as it is."""
    text = rule.values.get("--to-ports", "")
    if rule.target == "DNAT":
        _address, _colon, text = rule.values.get("--to-destination", "").rpartition(":")
        if not _address or "]" in text or ("[" not in _address and ":" in _address):
            return None
    first, _dash, last = text.partition("-")
    last = last.partition("/")[0]
    return (int(first), int(last or first)) if first.isdigit() and (last or first).isdigit() else None


def is_notrack(rule: ReadRule) -> bool:
    """Return whether a rule keeps packets out of connection tracking."""
    return rule.target == "NOTRACK" or (rule.target == "CT" and "--notrack" in rule.values)


def is_change(rule: ReadRule) -> bool:
    """Return whether a rule changes what later rules see of a packet."""
    return is_notrack(rule) or mark_change(rule) is not None


__all__ = ("DIVERT", "REFUSE", "WAY", "Place", "Ruleset", "is_change", "is_notrack", "mark_change", "new_ports")
