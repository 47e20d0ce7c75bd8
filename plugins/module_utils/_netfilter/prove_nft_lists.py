# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who gets on the lists of a table of nftables, and off them, as far as its chains tell. Pure."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DPORT,
    FORGET,
    PROTOCOL,
    ListMatch,
    ReadRule,
    Term,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Place, Ruleset


class _Context(NamedTuple):
    """What packets that come to a chain have met."""

    terms: Tuple[Term, ...]
    """What all of them have, as far as one rule alone leads there."""
    lists: Tuple[ListMatch, ...]
    """What may have been asked of lists."""
    several: bool
    """Whether a packet might come there twice: more than one rule leads there, or to a chain before."""
    caller: str
    """The chain from which they come, '' for the network."""


class NftLists:
    """The rules of one table that name its sets, with what packets have met on their way there."""

    def __init__(self, ruleset: Ruleset, name: str) -> None:
        """Take the rules, and the name of the table."""
        self._name, self._ruleset = name, ruleset
        table = ruleset.tables.get(name)
        self._chains: Dict[str, List[ReadRule]] = {
            chain: [ruleset.rule(rule.text) for rule in rules]
            for chain, rules in (table.chains.items() if table is not None else ())
        }
        self._callers: Dict[str, List[Tuple[str, ReadRule]]] = {}
        for chain, rules in self._chains.items():
            for rule in rules:
                if rule.target in self._chains:
                    self._callers.setdefault(rule.target, []).append((chain, rule))
        self._contexts: Dict[str, Optional[_Context]] = {
            hook.chain: _Context((), (), False, "") for hook in ruleset.way if hook.table == name
        }
        self.rules = [
            (Place(name, chain, number), rule._replace(terms=context.terms + rule.terms))
            for chain, rules in self._chains.items()
            for context in [self._context(chain)]
            for number, rule in enumerate(rules)
            if rule.lists and context is not None and _may_be(context.terms + rule.terms)
        ]
        """Those that packets may come to."""
        self._stays: Dict[str, List[int]] = {}
        self._removers: Dict[str, List[str]] = {}
        for place, rule in self.rules:
            for each in rule.lists:
                if each.verb == "--set":
                    self._stays.setdefault(each.name, []).append(each.seconds)
                elif each.verb == FORGET:
                    self._removers.setdefault(each.name, []).append(place.chain)

    def _context(self, chain: str) -> Optional[_Context]:
        """Return the _Context of a chain, None where no packet comes to it."""
        if chain not in self._contexts:
            self._contexts[chain] = None
            ways = [
                (caller, before, rule)
                for caller, rule in self._callers.get(chain, ())
                for before in [self._context(caller)]
                if before is not None
            ]
            if ways:
                several = len(ways) > 1 or ways[0][1].several
                terms = () if several else ways[0][1].terms + ways[0][2].terms
                lists = tuple(each for _caller, before, rule in ways for each in before.lists + rule.lists)
                self._contexts[chain] = _Context(terms, lists, several, ways[0][0] if len(ways) == 1 else "")
        return self._contexts[chain]

    def takes_off(self, name: str, place: Place, setters: Sequence[ReadRule]) -> bool:
        """Return whether whoever is on a list loses it at a place to which all wrong packets come.

        Its source must be on other lists to come there. So whoever puts it on this list must put it on those before, for longer,
        and it must be taken off those nowhere but on its way to this place.

        :param setters: the rules that put sources on the list.
        """
        rule, context = self._chains[place.chain][place.number], self._context(place.chain)
        verbs = [(each.verb, each.name) for each in rule.lists]
        before = rule.lists[: verbs.index((FORGET, name))]
        if context is None or not setters:
            return False
        asked = [each for each in (*context.lists, *before) if each.verb != FORGET]
        return all(
            each.verb == "--rcheck"
            and not each.negated
            and self._outlives(each.name, name, setters)
            and self._goes_with(each.name, place.chain)
            for each in asked
        )

    def _outlives(self, guard: str, name: str, setters: Sequence[ReadRule]) -> bool:
        """Return whether all who are put on a list are put on another one before, for longer."""
        stays, others = self._stays.get(name, []), self._stays.get(guard, [])
        if not stays or not others or not min(stays) or min(others) <= max(stays):
            return False
        for rule in setters:
            puts = [each.name for each in rule.lists if each.verb == "--set"]
            if guard not in puts[: puts.index(name)]:
                return False
        return True

    def _goes_with(self, guard: str, last: str) -> bool:
        """Return whether whoever is taken off a list comes to the end of a chain then, whatever the packet."""
        path = [last]
        while path[-1]:
            context = self._context(path[-1])
            path.append(context.caller if context is not None else "")
        removers = self._removers.get(guard, [])
        if any(chain not in path for chain in removers):
            return False
        highest = max((path.index(chain) for chain in removers), default=-1)
        return all(self._is_plain(chain) for chain in path[: highest + 1])

    def _is_plain(self, chain: str) -> bool:
        """Return whether all packets that come to a chain come to its end."""
        return all(
            not rule.target or (rule.target in self._chains and not (rule.goto or rule.terms or rule.doubts))
            for rule in self._chains[chain]
        )


def _may_be(terms: Sequence[Term]) -> bool:
    """Return whether a packet may have the protocol and port of terms, if each asks for one alone."""
    asked = {(term.kind, term.data) for term in terms if term.kind in (PROTOCOL, DPORT) and not term.negated}
    alone = [kind for kind, data in asked if kind == PROTOCOL or (len(data) == 1 and data[0][0] == data[0][1])]
    return len(alone) == len(set(alone))


__all__ = ("NftLists",)
