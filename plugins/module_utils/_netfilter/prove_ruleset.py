# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of one family that a packet to this host may meet, read once for the prover; and what they do to a packet. Pure."""

from types import MappingProxyType
from typing import (
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import AnyNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DPORT,
    STATE,
    ListMatch,
    ReadRule,
    Term,
    mark_and_mask,
    read_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import Space
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import TABLES, Document, Table


class Hook(NamedTuple):
    """A chain that packets to this host come to from the network."""

    table: str
    """The name of its table."""
    chain: str
    """Its name."""
    tracked: bool = False
    """Whether it sees packets that connection tracking sees and no others, as nat does."""
    either: bool = False
    """Whether the kernel may ask it before the one in front of it as well."""


WAY = (
    Hook("raw", "PREROUTING"),
    Hook("mangle", "PREROUTING"),
    Hook("nat", "PREROUTING", tracked=True),
    Hook("mangle", "INPUT"),
    Hook("filter", "INPUT"),
)
"""The chains of iptables that a packet to this host passes."""
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

    unfollowed = ""
    """What is among them that may do more to packets than is followed, in words; '' for nothing."""

    own_lists = False
    """Whether no rules can name the lists of the doors but those of one table."""

    def __init__(
        self,
        family: str,
        tables: Mapping[str, Optional[Table]],
        way: Sequence[Hook],
        known: Mapping[str, ReadRule] = MappingProxyType({}),
    ) -> None:
        """Take the tables of a family.

        :param family: ``ipv4`` or ``ipv6``.
        :param tables: those by their names, None for one that is not there.
        :param way: the chains that a packet comes to, in order. The last one says which rule lets it in.
        :param known: the text of a rule to what has been read of it; texts of iptables-save need not be there.
        """
        self.family, self.tables, self.way = family, tables, tuple(way)
        self._known = known
        self._rules: Dict[str, ReadRule] = {}
        self._reached: Set[Tuple[str, str]] = set()
        for hook in self.way:
            self._reach(hook.table, hook.chain)
        self.mark_changes = _mark_changes(self._rules.values())
        """(value, mask) of each rule that changes a packet's mark; None where that is not known."""
        self.unfollowed = next(self._early_states(), "")

    def _early_states(self) -> Iterator[str]:
        """Return the rules that ask for the state of packets which connection tracking is yet to see: it is INVALID there."""
        for name, chain in sorted(self._reached):
            table = self.tables[name]
            for rule in table.rules(chain) if table is not None and name.split()[0] == "raw" else ():
                if any(term.kind == STATE for term in self.rule(rule.text).terms):
                    yield f"-A {chain} {rule.text.strip()}"

    @property
    def stages(self) -> List[Tuple[Hook, ...]]:
        """The chains that a packet comes to, those together of which it is not known which comes first."""
        found: List[Tuple[Hook, ...]] = []
        for hook in self.way:
            if hook.either and found:
                found[-1] += (hook,)
            else:
                found.append((hook,))
        return found

    def rule(self, text: str) -> ReadRule:
        """Return what a rule asks, read once."""
        found = self._rules.get(text)
        if found is None:
            found = self._rules[text] = self._known.get(text) or read_rule(text, self.family)
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
        """Whether some rule of nat sends packets elsewhere."""
        places = [(self.tables[name], chain) for name, chain in self._reached]
        return any(
            self.rule(rule.text).target in DIVERT
            for table, chain in places
            if table is not None
            for rule in table.rules(chain)
        )

    def is_ours(self, place: Place, is_own_rule: Callable[[str, str], bool]) -> bool:
        """Return whether what decides at a place is ours, or the policy of a chain, behind all rules.

        :param is_own_rule: whether a rule of iptables, by its chain and text, is the collection's.
        """
        text = self.text(place)
        return text.startswith("-P ") or is_own_rule(place.chain, text.partition(f"-A {place.chain} ")[2])

    def is_written(self, place: Place, is_own_rule: Callable[[str, str], bool]) -> bool:
        """Return whether the rule at a place is the collection's, and not one that was put among its rules by hand."""
        return self.is_ours(place, is_own_rule)

    def naming_lists(self) -> Iterator[Tuple[Place, ReadRule]]:
        """Return the rules that name lists of sources, whether packets reach them or not."""
        for table in filter(None, self.tables.values()):
            for chain, rules in table.chains.items():
                for number, rule in enumerate(rules):
                    if "recent" in rule.text:
                        yield Place(table.name, chain, number), self.rule(rule.text)

    def takes_off(self, name: str, place: Place, setters: Sequence[ReadRule]) -> bool:  # noqa: ARG002
        """Return whether whoever is on a list loses it at a place to which all wrong packets come.

        :param setters: the rules that put sources on it.
        """
        first = self.at(place).lists[0]
        # No other list is asked before.
        return first == ListMatch("--remove", False, name, first.seconds, first.plain)

    def at(self, place: Place) -> ReadRule:
        """Return the rule at a place; there must be one."""
        table = self.tables[place.table]
        return self.rule(table.rules(place.chain)[place.number].text if table is not None else "")

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


def ruleset_of(document: Document, family: str) -> Ruleset:
    """Return the Ruleset of a Document of iptables."""
    return Ruleset(family, {name: document.table(name) for name in TABLES}, WAY)


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


__all__ = (
    "DIVERT", "REFUSE", "WAY", "Hook", "Place", "Ruleset", "is_change", "is_notrack", "mark_change", "new_ports", "ruleset_of",
)  # fmt: skip
