# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who gets on the lists of the doors: the third theorem of the prover. Pure.

A source is put on a door's list by the last step alone, if it is on a list that the step before alone puts it on, and so on to the
first step. Which lists these are the rules themselves tell; names and comments are not looked at.
"""

from typing import Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DPORT,
    FORGET,
    PROTOCOL,
    SOURCE,
    ListMatch,
    ReadRule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Place, Ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

_EVERY_PORT = tuple(Ports(0, 65535, protocol) for protocol in PROTOCOLS)
_PUT = frozenset(("--set", "--update"))
_ASK = frozenset(("--rcheck", "--update", "--remove"))
_TAKE = frozenset(("--remove", FORGET))


class Knock(NamedTuple):
    """How a source gets on a door's list."""

    listed: str
    """The name of the list."""
    steps: Tuple[Step, ...]
    """The steps in order; empty where no rule recognises them, so that none may touch the list. Secret."""
    timeout: int
    """The longest pause between two steps, in seconds; 0 where it is not known."""
    sources: Optional[Tuple[Tuple[int, int], ...]]
    """Who may knock: first and last of each network as numbers, empty for everyone; None for nobody."""


class _Setter(NamedTuple):
    """A rule that puts sources on a list."""

    place: Place
    rule: ReadRule
    asked: Tuple[ListMatch, ...]
    """What it asks of lists before that."""


class ListRules:
    """All rules of one family that name lists of xt_recent, whether packets reach them or not."""

    def __init__(self, ruleset: Ruleset) -> None:
        """Take the rules."""
        self._ruleset = ruleset
        self._setters: Dict[str, List[_Setter]] = {}
        self._setters_at: Dict[Place, List[_Setter]] = {}
        self._removers: Dict[str, List[Place]] = {}
        for place, rule in ruleset.naming_lists():
            self._read(rule, place)
        self._pausing = self._lists_that_pause()

    def knocking(self, asked: ListMatch) -> Tuple[Tuple[Ports, ...], Optional[bool]]:
        """A source that is in the middle of every knock, and that nothing keeps from going on."""
        return _EVERY_PORT, asked.name not in self._pausing

    def _lists_that_pause(self) -> FrozenSet[str]:
        """Return the lists on which a source counts no step for a time.

        Only a rule that not all packets meet puts sources on them, as where there is a limit of how often knocks are broken.
        """
        return frozenset(name for name, setters in self._setters.items() if all(map(_is_seldom, setters)))

    def _read(self, rule: ReadRule, place: Place) -> None:
        for number, match in enumerate(rule.lists):
            if match.verb in _PUT and not (match.verb == "--update" and match.negated):
                setter = _Setter(place, rule, rule.lists[:number])
                self._setters.setdefault(match.name, []).append(setter)
                self._setters_at.setdefault(place, []).append(setter)
            if match.verb in _TAKE:
                self._removers.setdefault(match.name, []).append(place)

    def resets(self, knock: Knock) -> List[FrozenSet[Place]]:
        """Return for each step behind the first the rules that take sources off a list that it asks for; wrong() found none."""
        return [self._resets(places) for places in self.counters(knock)[:-1]]

    def _resets(self, places: FrozenSet[Place]) -> FrozenSet[Place]:
        asked = [
            {match.name for match in setter.asked if match.verb in _ASK and not match.negated}
            for place in places
            for setter in self._setters_at.get(place, ())
        ]
        return frozenset(
            place
            for name in (set.intersection(*asked) if asked else ())
            for place in self._removers.get(name, ())
            if self._ruleset.takes_off(name, place, [setter.rule for setter in self._setters.get(name, ())])
        )

    def wrong(self, knock: Knock) -> Optional[Place]:
        """Return a rule that puts sources on a door's list although they have not done all its steps, None where there is none."""
        if not knock.steps:
            return next((setter.place for setter in self._setters.get(knock.listed, ())), None)
        return self._wrong(knock, knock.listed, len(knock.steps), frozenset())

    def counters(self, knock: Knock) -> List[FrozenSet[Place]]:
        """Return the rules that count each step of a knock for which wrong() found none, the last step first."""
        found, name, seen = [], knock.listed, frozenset()  # type: List[FrozenSet[Place]], str, FrozenSet[str]
        for number in range(len(knock.steps), 0, -1):
            setters = self._setters.get(name, [])
            found.append(frozenset(setter.place for setter in setters))
            seen |= {name}
            name = next(
                (
                    asked.name
                    for setter in setters[:1]
                    for asked in setter.asked
                    if number > 1 and self._shows_steps(knock, asked, number - 1, seen, setter)
                ),
                "",
            )
        return found

    def opens(self, knock: Knock) -> bool:
        """Return whether some rule puts sources on a door's list."""
        return not knock.steps or knock.sources is None or bool(self._setters.get(knock.listed))

    def _wrong(self, knock: Knock, name: str, number: int, seen: FrozenSet[str]) -> Optional[Place]:
        """Return a rule that puts sources on a list although they have not done so many steps."""
        for setter in self._setters.get(name, ()):
            if not _is_of_step(setter.rule, knock.steps[number - 1]):
                return setter.place
            if number == 1:
                if not _is_of_sources(setter.rule, knock.sources):
                    return setter.place
            elif not any(self._shows_steps(knock, asked, number - 1, seen | {name}, setter) for asked in setter.asked):
                return setter.place
        return None

    def _shows_steps(self, knock: Knock, asked: ListMatch, number: int, seen: FrozenSet[str], setter: _Setter) -> bool:
        """Return whether who is on a list has done so many steps, by an earlier packet, and not too long ago."""
        if asked.verb not in _ASK or asked.negated or asked.name in seen or not asked.seconds > 0:
            return False
        if knock.timeout and asked.seconds > knock.timeout:
            return False
        if self._wrong(knock, asked.name, number, seen) is not None or not self._setters.get(asked.name):
            return False
        return not any(_stands_before(other, setter) for other in self._setters[asked.name])


def _is_seldom(setter: _Setter) -> bool:
    """Return whether a rule puts sources on a list for a time only, and not all that come to it."""
    return bool(setter.rule.doubts) and setter.rule.lists[len(setter.asked)].seconds > 0


def _stands_before(one: _Setter, other: _Setter) -> bool:
    """Return whether a packet that meets one rule may meet the other behind it, and do two steps at once."""
    same = one.place[:2] == other.place[:2] and one.place.number < other.place.number
    return same and _ports(one.rule) == _ports(other.rule)


def _ports(rule: ReadRule) -> List[str]:
    return sorted(repr(term) for term in rule.terms if term.kind in (PROTOCOL, DPORT))


def _is_of_step(rule: ReadRule, step: Step) -> bool:
    asked = [(term.kind, term.data) for term in rule.terms if not term.negated]
    return (PROTOCOL, step.protocol) in asked and (DPORT, ((step.port, step.port),)) in asked


def _is_of_sources(rule: ReadRule, sources: Optional[Tuple[Tuple[int, int], ...]]) -> bool:
    if sources is None:
        return False
    named = [term.data for term in rule.terms if term.kind == SOURCE and not term.negated]
    return not sources or any(_inside(ranges, sources) for ranges in named)


def _inside(ranges: Sequence[Tuple[int, int]], sources: Sequence[Tuple[int, int]]) -> bool:
    return all(any(low <= first and last <= high for low, high in sources) for first, last in ranges)


__all__ = ("Knock", "ListRules")
