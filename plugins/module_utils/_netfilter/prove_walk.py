# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All packets of a set at once on their way to a program of this host: the tables raw, mangle, nat and filter of one family. Pure.

Where a match is not understood, its packets go both ways, so what may be accepted, and what may be refused, is never less than what
the kernel accepts or refuses. The number of sets is bounded; beyond it nothing is said.
"""

from itertools import permutations
from typing import Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import GOES_ON
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    ALWAYS,
    DESTINATION,
    DNAT,
    MARK,
    STATE,
    STATES,
    UNTRACKED,
    ListMatch,
    ReadRule,
    network_range,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import (
    DIVERT,
    REFUSE,
    Hook,
    Place,
    Ruleset,
    is_change,
    is_notrack,
    mark_change,
    new_ports,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import (
    INDEX,
    SERVICE,
    Box,
    Parts,
    Space,
    changed,
    intersected,
    without,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Table
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

MOST_CASES = 20000
"""How many sets of packets one question may part into."""
_UNTRACKED = 1 << STATES.index(frozenset((UNTRACKED,)))
_SENT = sum(1 << place for place, state in enumerate(STATES) if DNAT in state)
_FOR_NAT = (1 << len(STATES)) - 1 & ~_UNTRACKED & ~_SENT


class TooManyCases(Exception):
    """The packets part into more sets than are followed."""


class Way(NamedTuple):
    """A set of packets, and the rules that changed them or sent them here."""

    box: Box
    """The packets."""
    taken: Tuple[Place, ...]
    """The rules."""
    services: int
    """The services that they were sent to, as bits, where nat has changed that; else 0."""


class Hit(NamedTuple):
    """Packets that one rule decides."""

    way: Way
    """The packets, and the rules that led there, the deciding one last."""
    away: bool
    """Whether nat sends them to another host, or to a place that is not known."""


class Answer(NamedTuple):
    """What becomes of a set of packets."""

    accepted: Tuple[Hit, ...]
    """Those that may get in."""
    refused: Tuple[Hit, ...]
    """Those that may be refused."""


Listed = Callable[[ListMatch], Tuple[Tuple[Ports, ...], Optional[bool]]]
"""From a match of a list to the ports for whose packets its answer is known, and whether the source is on the list then; None where
that is never known."""


class Condition(NamedTuple):
    """A rule in the bits of a Space."""

    parts: Parts
    """The packets that may meet it; empty for all."""
    never: bool
    """Whether none does."""
    sure: bool
    """Whether all of these packets do that are to known services."""
    known: int
    """The services, as bits, for whose packets it is known who is on the lists that it asks; all of them where it asks none."""
    rule: ReadRule
    """What was read."""


class Walk:
    """One question to a Ruleset."""

    def __init__(
        self,
        ruleset: Ruleset,
        space: Space,
        listed: Listed,
        watched: FrozenSet[Place] = frozenset(),
        most: int = MOST_CASES,
        coarse: bool = False,
    ) -> None:
        """Take the rules, their Space, and what is known of who is on which list.

        :param watched: rules without a verdict that are to be in the ways of packets which meet them.
        :param most: how many sets of packets it may part into.
        :param coarse: whether a rule that would part the packets behind it lets all of them go on. That is quick however many
            rules there are, and what may be accepted, and what may be refused, is still never less than what the kernel does.
        """
        self.watched, self.coarse, self._most = watched, coarse, most
        self._ruleset, self._space, self._listed = ruleset, space, listed
        self._conditions: Dict[str, Condition] = {}
        self._cases = 0
        self._accepted: List[Hit] = []
        self._refused: List[Hit] = []

    def answer(self, boxes: Iterable[Box], into: int = 0) -> Answer:
        """Return what becomes of packets.

        :param into: services, as bits, if only those packets are in question that nat sends there.
        :raises TooManyCases: if they part into too many sets.
        """
        self._cases, self._accepted, self._refused = 0, [], []
        ways = [Way(box, (), 0) for box in boxes]
        stages = self._ruleset.stages
        last = max((place for place, hooks in enumerate(stages) if any(hook.tracked for hook in hooks)), default=-1)
        for place, hooks in enumerate(stages):
            ways = self._stage(hooks, ways)
            if into and place == last:
                ways = [way for way in ways if way.services and way.box[0] & into]
                self._accepted, self._refused = [], []
        self._accepted += [Hit(way, False) for way in ways]
        return Answer(tuple(self._accepted), tuple(self._refused))

    def _stage(self, hooks: Sequence[Hook], ways: List[Way]) -> List[Way]:
        """Return what leaves some chains, in any order that they may be asked in."""
        found: List[Way] = []
        for order in permutations(hooks):
            some = ways
            for hook in order:
                tracked, bypass = self._parted(some) if hook.tracked else (some, [])
                some = self._through(hook, tracked) + bypass if tracked else bypass
            found += some
        return list(dict.fromkeys(found)) if len(hooks) > 1 else found

    @staticmethod
    def _parted(ways: List[Way]) -> Tuple[List[Way], List[Way]]:
        """Return the packets that meet a chain of nat, which are tracked and were sent elsewhere by none before, and the others."""
        index, tracked, others = INDEX[STATE], [], []  # type: int, List[Way], List[Way]
        for way in ways:
            for bits, found in ((_FOR_NAT, tracked), (_UNTRACKED | _SENT, others)):
                box = intersected(way.box, ((index, bits),))
                if box is not None:
                    found.append(way._replace(box=box))
        return tracked, others

    def _through(self, hook: Hook, ways: List[Way]) -> List[Way]:
        """Return what leaves one table; where it changes and refuses nothing, that is what came."""
        (name, chain), final = hook[:2], hook == self._ruleset.way[-1]
        table = self._ruleset.tables[name]
        if table is None:
            # As one without rules would: the kernel makes tables when they are first asked for.
            return [_taken(way, (Place(name, chain, 0),)) for way in ways] if final else ways
        if not (table.rules(chain) or table.policy(chain) != "ACCEPT" or final):
            return ways
        refused_before, away_before, walk = len(self._refused), len(self._accepted), _TableWalk(self, table)
        ended = walk.chain(chain, ways, ())
        policy = Place(name, chain, len(table.rules(chain)))
        if table.policy(chain) == "ACCEPT":
            walk.accepted += [_taken(way, (policy,)) for way in ended]
        else:
            self._refused += [Hit(_taken(way, (policy,)), False) for way in ended]
        if final or walk.changes or (len(self._refused), len(self._accepted)) != (refused_before, away_before):
            # A rule that merely accepted them there has no part in what happens behind this table.
            return walk.accepted if final else [self._onwards(way, name) for way in walk.accepted]
        return ways

    def _onwards(self, way: Way, name: str) -> Way:
        return way._replace(taken=tuple(each for each in way.taken if each.table != name or self._changes(each)))

    def _changes(self, place: Place) -> bool:
        table = self._ruleset.tables[place.table]
        rules = table.rules(place.chain) if table is not None else []
        if place.number >= len(rules):
            return False
        rule = self._ruleset.rule(rules[place.number].text)
        return table is not None and (rule.target in table.chains or rule.target in DIVERT or is_change(rule))

    def count(self) -> None:
        """Count one set more.

        :raises TooManyCases: if these are too many.
        """
        self._cases += 1
        if self._cases > self._most:
            raise TooManyCases

    def refuse(self, way: Way) -> None:
        """Take note of packets that a rule may refuse."""
        self._refused.append(Hit(way, False))

    def away(self, way: Way) -> None:
        """Take note of packets that a rule of nat sends to another host."""
        self._accepted.append(Hit(way, True))

    def condition(self, text: str) -> Condition:
        """Return the Condition of a rule's text, worked out once."""
        found = self._space.conditions.get(text) or self._conditions.get(text)
        if found is None:
            rule = self._ruleset.rule(text)
            # One that asks for no list is the same in each question.
            known = self._conditions if rule.lists else self._space.conditions
            found = known[text] = self._worked_out(rule)
        return found

    def _worked_out(self, rule: ReadRule) -> Condition:
        bits: Dict[int, int] = {}
        never, sure, everything = rule.never, not rule.doubts, self._space.all
        known = everything[0]
        for term in rule.terms:
            found = self._space.bits(term)
            if found is None:
                sure = False
            else:
                bits[found[0]] = bits.get(found[0], everything[found[0]]) & found[1]
        for asked in rule.lists:
            if asked.verb in ALWAYS:
                never = never or asked.negated
                continue
            ports, answer = self._listed(asked)
            services = self._space.service(ports) if answer is not None else 0
            if answer == asked.negated:
                bits[0] = bits.get(0, everything[0]) & ~services
                services = 0
            known &= services
        # The narrowest first: most sets are told apart by it alone.
        parts = tuple(sorted(bits.items(), key=lambda pair: bin(pair[1]).count("1")))
        return Condition(parts, never or not all(found for _index, found in parts), sure, known, rule)

    def moved(self, way: Way, rule: ReadRule) -> Way:
        """Return packets with the mark that a rule gives them, or hidden from connection tracking by it."""
        if is_notrack(rule):
            return way._replace(box=changed(way.box, INDEX[STATE], _UNTRACKED))
        change, index = mark_change(rule), INDEX[MARK]
        if change is None:
            return way
        return way._replace(box=changed(way.box, index, self._space.moved_mark(way.box[index], change)))

    def diverted(self, way: Way, rule: ReadRule) -> Optional[Way]:
        """Return packets after a rule of nat, or None where it sends them to another host."""
        ports, space, box = new_ports(rule), self._space, way.box
        if rule.target == "NETMAP" or (rule.target == "DNAT" and not self._is_own(rule)):
            return None
        services = box[0]
        if ports is not None:
            moved = space.dports.bits([ports])
            halves = [moved << shift for shift in (0, space.half) if services >> shift & space.dports.all]
            box = changed(box, INDEX[SERVICE], sum(halves))
        index, states = INDEX[STATE], [state for place, state in enumerate(STATES) if box[INDEX[STATE]] >> place & 1]
        box = changed(box, index, sum({1 << STATES.index(state | {DNAT}) for state in states}))
        box = changed(box, INDEX[DESTINATION], space.all[INDEX[DESTINATION]])
        return way._replace(box=box, services=services)

    def _is_own(self, rule: ReadRule) -> bool:
        text = rule.values.get("--to-destination", "")
        address = text.rpartition(":")[0] if new_ports(rule) is not None else text
        found = network_range(address.strip("[]"))
        ranges = self._space.own_ranges
        return found is not None and any(low <= found[0] and found[1] <= high for low, high in ranges)


def _taken(way: Way, places: Tuple[Place, ...]) -> Way:
    return way._replace(taken=way.taken + places)


def _is_in(way: Way, other: Way) -> bool:
    """Return whether packets are among others that have come the same way."""
    if (way.taken, way.services) != (other.taken, other.services):
        return False
    return all(bits & more == bits for bits, more in zip(way.box, other.box))


class _TableWalk:
    """Packets on their way through one table."""

    def __init__(self, walk: Walk, table: Table) -> None:
        self._walk, self._table = walk, table
        self.accepted: List[Way] = []
        self.changes = False

    def chain(self, name: str, ways: List[Way], calls: Tuple[Place, ...]) -> List[Way]:
        """Return the packets that come to the end of a chain, or return from it before."""
        back: List[Way] = []
        for number, rule in enumerate(self._table.rules(name)):
            condition = self._walk.condition(rule.text)
            if condition.never:
                continue
            meeting = [(way, intersected(way.box, condition.parts)) for way in ways]
            if all(met is None for _way, met in meeting):
                continue
            places = (*calls, Place(self._table.name, name, number))
            ways = self._parted(condition, meeting, places, back)
            if not condition.sure or condition.rule.lists or condition.rule.target in self._table.chains:
                # Two that differ in the rules behind them alone are one from here on.
                ways = list({(way.box, way.services): way for way in reversed(ways)}.values())[::-1]
            if not ways:
                break
        if self._walk.coarse:
            back = [each for each in back if not any(_is_in(each, way) for way in ways)]
        return back + ways

    def _parted(
        self,
        condition: Condition,
        meeting: Iterable[Tuple[Way, Optional[Box]]],
        places: Tuple[Place, ...],
        back: List[Way],
    ) -> List[Way]:
        """Return the packets that go on behind a rule, given those that come to it and which of them may meet it."""
        going: List[Way] = []
        for way, met in meeting:
            if met is None:
                going.append(way)
                continue
            self._walk.count()
            here = condition if not met[0] & ~condition.known else condition._replace(sure=False)
            left = without(way.box, condition.parts) if here.sure else [way.box]
            if self._walk.coarse and len(left) > (condition.rule.target != "RETURN"):
                # What returns is no set of its own then, for it comes to the same place.
                here, left = condition._replace(sure=False), [way.box]
            going += [Way(box, way.taken, way.services) for box in left]
            going += self._apply(here, Way(met, way.taken, way.services), places, back)
        return going

    def _apply(self, condition: Condition, way: Way, places: Tuple[Place, ...], back: List[Way]) -> List[Way]:
        """Do what a rule does to packets that meet it, and return those that go on behind it."""
        rule, target, before = condition.rule, condition.rule.target, way.taken
        if places[-1] in self._walk.watched:
            way = _taken(way, places[-1:])
        if target in self._table.chains:
            inner = self.chain(target, [way], places)
            if rule.goto:
                back += inner
                return []
            # What nothing changed there is a part of what goes on anyhow.
            return inner if condition.sure else [each for each in inner if each.taken != before]
        if target == "RETURN":
            back.append(way)
            return []
        if not target or target in GOES_ON:
            moved = self._walk.moved(way, rule)
            if moved != way:
                self.changes = True
                moved = _taken(moved, places)
            return [moved] if condition.sure or moved.taken != before else []
        return self._verdict(condition, way, places)

    def _verdict(self, condition: Condition, way: Way, places: Tuple[Place, ...]) -> List[Way]:
        rule, here = condition.rule, _taken(way, places)
        if rule.target in REFUSE:
            self._walk.refuse(here)
        elif rule.target in DIVERT:
            self.changes = True
            sent = self._walk.diverted(here, rule)
            if sent is None:
                self._walk.away(here)
            else:
                self.accepted.append(sent)
        elif rule.target == "ACCEPT":
            self.accepted.append(here)
        else:
            # Not known: it may do anything.
            self.accepted.append(here)
            self._walk.refuse(here)
            return [way] if condition.sure else []
        return []


__all__ = ("MOST_CASES", "Answer", "Hit", "Listed", "TooManyCases", "Walk", "Way")
