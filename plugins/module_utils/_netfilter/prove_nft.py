# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of nftables that a packet to this host may meet, beside those of iptables, read once for the prover. Pure.

What one table accepts, the next one may still refuse, and what one refuses is gone. So the table in question is asked last, wherever
its chain stands: it says which rule lets a packet in.
"""

from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, rules_in
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import base_chains, families_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_words import rule_words
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_lists import NftLists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_match import ARRIVING, View
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_rules import (
    CHAIN,
    NO_LISTS,
    RuleReader,
    lists_of,
    source_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import ReadRule
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import (
    WAY,
    Hook,
    Place,
    Ruleset,
    is_change,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    BUILT_IN,
    TABLES,
    Document,
    Rule,
    Table,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4

_HOOKS = ("ingress", "prerouting", "input")
"""The hooks that a packet to this host passes, in order."""
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0}


class Own(NamedTuple):
    """The table whose rules are in question."""

    name: str
    """Its family and name."""
    mask: str
    """The mask of an IPv6 source as the table remembers it, '' for all bits."""
    is_written: Callable[[str], bool]
    """Whether a rule is the collection's, by its comment."""


class _Entry(NamedTuple):
    """A chain that packets come to, and where it stands."""

    order: Tuple[int, int, int]
    hook: Hook


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
        tables, entries = _saved(documents)
        entries += _entries(family, items, "nft" in documents)
        for name in dict.fromkeys(entry.hook.table for entry in entries if entry.hook.table not in tables):
            tables[name] = self._table(name, family, items)
        if not any(entry.hook.table == own.name for entry in entries):
            # Nothing of it is asked, or it is dormant: it lets all in.
            tables.setdefault(own.name, Table(own.name, 0))
            entries.append(_Entry((len(_HOOKS), 0, 0), Hook(own.name, CHAIN)))
        entries.sort(key=lambda entry: entry.order)
        ours = [entry for entry in entries if entry.hook.table == own.name]
        others = [entry.hook for entry in entries if entry.hook.table != own.name]
        super().__init__(family, tables, [*others, *(entry.hook for entry in ours)], self._read)
        self._lists = NftLists(self, own.name)
        found = [rule for place, rule in self._unfollowed.items() if place in self._reached]
        self.unfollowed = f"{found[0].get('chain')}: {rule_words(found[0])}" if found else ""
        late = [entry.hook for entry in entries if ours and entry.order[:2] >= ours[0].order[:2] and entry not in ours]
        if any(self._changes(hook.table) for hook in late):
            # It changes packets that our table has seen before.
            self.mark_changes = None

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
        for item in items:
            chain = item.get("chain") or {}
            if (chain.get("family"), chain.get("table")) == (kind, plain):
                table.chains[CHAIN + chain["name"]] = []
                table.policies[CHAIN + chain["name"]] = str(chain.get("policy", "accept")).upper()
        for rule in rules:
            chain = CHAIN + str(rule.get("chain"))
            for read in reader.read(rule):
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


def _saved(documents: Mapping[str, Document]) -> Tuple[Dict[str, Optional[Table]], List[_Entry]]:
    """Return the tables of iptables, by names that tell backends apart, and their chains."""
    tables: Dict[str, Optional[Table]] = {}
    entries: List[_Entry] = []
    for backend, document in documents.items():
        for hook in WAY:
            table = document.table(hook.table)
            if table is not None:
                name = f"{hook.table} (iptables, {backend})"
                tables[name] = _renamed(table, name)
                order = (_HOOKS.index(_hook_of(hook.chain)), _PRIORITIES[hook.table], len(entries))
                entries.append(_Entry(order, hook._replace(table=name)))
    return tables, entries


def _renamed(table: Table, name: str) -> Table:
    renamed = Table(name, table.header)
    renamed.chains, renamed.policies = table.chains, table.policies
    return renamed


def _hook_of(chain: str) -> str:
    return {"PREROUTING": "prerouting", "INPUT": "input"}[chain]


def _entries(family: str, items: Sequence[Item], saved: bool) -> List[_Entry]:
    """Return the chains that packets of a family come to, of tables that are in force.

    :param saved: whether those of iptables-nft are known by what that has saved.
    """
    kind = "ip" if family == IPV4 else "ip6"
    chains = [item["chain"] for item in items if isinstance(item.get("chain"), dict)]
    nat = {(each.get("family"), each.get("table"), each.get("name")) for each in chains if each.get("type") == "nat"}
    return [
        _Entry(
            (_HOOKS.index(chain.hook), chain.priority, number),
            Hook(f"{chain.family} {chain.table}", CHAIN + chain.name, chain[:3] in nat),
        )
        for number, chain in enumerate(base_chains(items))
        if kind in families_of(chain)
        and not (saved and chain.family == kind and chain.table in TABLES and chain.name in BUILT_IN)
    ]


__all__ = ("NftRuleset", "Own", "SentOn")
