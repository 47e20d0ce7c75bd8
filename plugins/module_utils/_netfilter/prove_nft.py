# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of nftables that a packet to this host may meet, beside those of iptables, read once for the prover. Pure.

What one table accepts, the next one may still refuse, and what one refuses is gone. So the table in question is asked last, wherever
its chain stands: it says which rule lets a packet in.
"""

from itertools import groupby
from typing import Callable, Dict, Iterable, Iterator, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, rules_in
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import base_chains
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_words import rule_words
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_asking import ARRIVING, View
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_lists import NftLists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_order import (
    LAST,
    Entry,
    is_ingress,
    native_entries,
    saved_entries,
    tracked_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_rules import (
    CHAIN,
    NO_LISTS,
    RuleReader,
    lists_of,
    source_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import ReadRule
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import (
    DIVERT,
    Hook,
    Place,
    Ruleset,
    is_change,
    is_notrack,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Rule, Table

MOST_TOGETHER = 6
"""Of how many chains with one priority each order is walked: of eight that would take a quarter of a minute."""


class Own(NamedTuple):
    """The table whose rules are in question."""

    name: str
    """Its family and name."""
    mask: str
    """The mask of an IPv6 source as the table remembers it, '' for all bits."""
    is_written: Callable[[str], bool]
    """Whether a rule is the collection's, by its comment."""


class NftRuleset(Ruleset):
    """The rules of one family on a host whose table in question is one of nftables."""

    own_lists = True

    def __init__(
        self,
        family: str,
        own: Own,
        items: Sequence[Item],
        documents: Mapping[str, Document],
        view: View = ARRIVING,
    ) -> None:
        """Take what is in the kernel.

        :param family: ``ipv4`` or ``ipv6``.
        :param items: what read_listing() returned, with the table in question.
        :param documents: backend of iptables, ``nft`` or ``legacy``, to its rules of this family.
        :param view: how fields are seen that nat may change.
        """
        self.own, self._view = own, view
        self._words: Dict[str, Tuple[str, Item]] = {}
        self._read: Dict[str, ReadRule] = {}
        self._unfollowed: Dict[Tuple[str, str], Item] = {}
        tables, entries = saved_entries(documents)
        entries += native_entries(family, items, "nft" in documents)
        for name in dict.fromkeys(entry.hook.table for entry in entries if entry.hook.table not in tables):
            tables[name] = self._table(name, family, items)
        if not any(entry.hook.table == own.name for entry in entries):
            # Nothing of it is asked, or it is dormant: it lets all in.
            tables.setdefault(own.name, Table(own.name, 0))
            entries.append(Entry((LAST, 0, 0, 0), Hook(own.name, CHAIN)))
        entries.sort(key=lambda entry: entry.order)
        ours = [entry for entry in entries if entry.hook.table == own.name]
        others = [entry for entry in entries if entry.hook.table != own.name]
        super().__init__(family, tables, [entry.hook for entry in (*others, *ours)], self._read)
        self.way = (*self._in_either_order(others), *(entry.hook for entry in ours))
        self._lists = NftLists(self, own.name)
        found = [rule for place, rule in self._unfollowed.items() if place in self._reached]
        if found:
            self.unfollowed = f"{found[0].get('chain')}: {rule_words(found[0])}"
        self._doubt_order(entries, ours)

    def _doubt_order(self, entries: Sequence[Entry], ours: Sequence[Entry]) -> None:
        """Believe nothing of marks where packets are changed between the table in question and others: it is asked last here."""
        late = [entry for entry in entries if entry.place >= ours[0].place and entry not in ours]
        if late and any(self._changes(entry.hook.table) for entry in (*late, *ours)):
            self.mark_changes = None
        for entry in ours if late else ():
            if not self.unfollowed and entry.is_before_input and self._hides_or_diverts(entry.hook):
                self.unfollowed = f"{entry.hook.chain[len(CHAIN) :]}: changes packets before others see them"

    def _in_either_order(self, entries: Sequence[Entry]) -> Iterator[Hook]:
        """Return hooks with what is known of their order: which of two chains with one priority is asked first, nobody lists."""
        for _place, group in groupby(entries, lambda entry: entry.place):
            some = list(group)
            is_nat = all(entry.hook.tracked for entry in some)
            matters = any(entry.hook.tracked or self._changes(entry.hook.table) for entry in some)
            either = [
                matters and not (is_nat and before.order[2] != entry.order[2]) for before, entry in zip(some, some[1:])
            ]
            if sum(either) >= MOST_TOGETHER:
                words = f"{some[0].hook.chain[len(CHAIN) :]}: one of {len(some)} chains with one priority, in any order"
                self.unfollowed, either = self.unfollowed or words, [False] * len(either)
            for entry, is_either in zip(some, [False, *either]):
                yield entry.hook._replace(either=is_either)

    def _hides_or_diverts(self, hook: Hook) -> bool:
        table = self.tables[hook.table]
        rules = [self.rule(rule.text) for rule in (table.rules(hook.chain) if table is not None else [])]
        return any(is_notrack(rule) or rule.target in DIVERT or rule.target.startswith(CHAIN) for rule in rules)

    def _table(self, name: str, family: str, items: Sequence[Item]) -> Table:
        """Return a table with its rules as the prover takes them."""
        kind, _space, plain = name.partition(" ")
        rules, table = rules_in(items, kind, plain), Table(name, 0)
        ours = name == self.own.name
        lists = lists_of(rules, source_of(family, self.own.mask)) if ours else NO_LISTS
        maps = {
            item["map"]["name"]: item["map"].get("elem") or []
            for item in items
            if "map" in item and (item["map"].get("family"), item["map"].get("table")) == (kind, plain)
        }
        reader = RuleReader(family, lists, maps, doubts=kind == "netdev", view=self._view)
        tracked = tracked_in(items, rules, maps, kind, plain)
        ingress = {each.name for each in base_chains(items) if each[:2] == (kind, plain) and is_ingress(each)}
        for item in items:
            chain = item.get("chain") or {}
            if (chain.get("family"), chain.get("table")) == (kind, plain):
                table.chains[CHAIN + chain["name"]] = []
                table.policies[CHAIN + chain["name"]] = str(chain.get("policy", "accept")).upper()
        for rule in [*rules, *_policies(table, ingress)]:
            first = str(rule.get("chain"))
            chain = CHAIN + first
            for read in reader.read(rule, tracked.get(first, True), first in ingress):
                number = len(table.chains.setdefault(chain, []))
                text = f"\0{name} {chain} {number}"
                table.chains[chain].append(Rule(text, 0, ""))
                self._read[text] = read
                self._words[text] = (chain, rule)
            if reader.unfollowed:
                self._unfollowed.setdefault((name, chain), rule)
                reader.unfollowed = False
        return table

    def _changes(self, name: str) -> bool:
        table = self.tables[name]
        chains = table.chains.values() if table is not None else ()
        return any(is_change(self.rule(rule.text)) for rules in chains for rule in rules)

    def text(self, place: Place) -> str:
        """Return the rule at a place, as people write it."""
        table = self.tables[place.table]
        rules = table.rules(place.chain) if table is not None else []
        if place.number < len(rules) and rules[place.number].text in self._words:
            chain, rule = self._words[rules[place.number].text]
            return f"{chain[len(CHAIN) :]}: {rule_words(rule)}"
        if place.chain.startswith(CHAIN):
            policy = table.policy(place.chain).lower() if table is not None else ""
            return f"{place.chain[len(CHAIN) :]}: policy {policy}"
        return super().text(place)

    def is_ours(self, place: Place, is_own_rule: Callable[[str, str], bool]) -> bool:  # noqa: ARG002
        """Return whether it is in the table in question."""
        return place.table == self.own.name

    def is_written(self, place: Place, is_own_rule: Callable[[str, str], bool]) -> bool:  # noqa: ARG002
        """Return whether the rule at a place is the collection's."""
        table = self.tables[place.table]
        rules = table.rules(place.chain) if table is not None else []
        known = self._words.get(rules[place.number].text) if place.number < len(rules) else None
        return known is not None and self.own.is_written(str(known[1].get("comment", "")))

    # Who gets on which list.

    def naming_lists(self) -> Iterator[Tuple[Place, ReadRule]]:
        """Return the rules of the table in question that name sets, with what packets have met on their way there."""
        return iter(self._lists.rules)

    def takes_off(self, name: str, place: Place, setters: Sequence[ReadRule]) -> bool:
        """Return whether whoever is on a list loses it at a place to which all wrong packets come."""
        return self._lists.takes_off(name, place, setters)


class SentOn(NftRuleset):
    """The rules of the table in question that packets of one family meet which the host sends on.

    What the tables of others accept lets in none that these refuse.
    """

    def __init__(self, family: str, own: Own, items: Sequence[Item], chain: str, view: View) -> None:
        """Take the table in question.

        :param items: what read_listing() returned; only what is of that table matters.
        :param chain: the name of the chain that packets come to.
        :param view: how fields are seen that nat may change.
        """
        kind, _space, plain = own.name.partition(" ")
        ours = [
            item
            for item in items
            for what, each in item.items()
            if isinstance(each, dict)
            and (each.get("family"), each.get("name" if what == "table" else "table")) == (kind, plain)
        ]
        super().__init__(family, own, ours, {}, view)
        if self.way[-1].chain != CHAIN:
            self.way = (Hook(own.name, CHAIN + chain),)
            self._reach(*self.way[0][:2])
        # Those of others may have put any on packets.
        self.mark_changes = None


def _policies(table: Table, ingress: Iterable[str]) -> Iterator[Item]:
    """Return rules in place of the policies of chains to which not all packets come."""
    for name in ingress:
        if table.policy(CHAIN + name) != "ACCEPT":
            table.policies[CHAIN + name] = "ACCEPT"
            yield {"chain": name, "expr": [{"drop": None}]}


__all__ = ("NftRuleset", "Own", "SentOn")
