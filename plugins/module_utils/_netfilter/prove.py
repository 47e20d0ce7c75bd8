# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The theorems about doors, proved on a whole ruleset of one family, or refuted by a packet. Pure.

For each door: no first packet of a connection from a stranger that is not on its list gets to its ports; one from a source on the
list does. What the prover says to be proved is so for every such packet; what it refutes has been replayed with the packet that it
names; of all else it says that it is not proved.
"""

from typing import Callable, Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_asked import (
    NEW_BITS,
    RELATED_BITS,
    Asked,
    ports_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_lists import Knock, ListRules
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import (
    CASES,
    NO_KNOCK,
    NOT_COUNTED,
    NOT_PROVED,
    NOT_RESET,
    PROVED,
    SETS_LIST,
    VOID,
    GuardedDoor,
    Word,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_replay import (
    ACCEPTED,
    REFUSED,
    SENT_AWAY,
    Replay,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DNAT,
    NEW,
    RELATED,
    STATE,
    STATES,
    ListMatch,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Place
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import (
    INDEX,
    Box,
    changed,
    intersected,
    range_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import (
    MOST_CASES,
    Hit,
    Listed,
    TooManyCases,
    Walk,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

_FEW_SERVICES = 8
MOST_REPLAYS = 20
"""How many of the ways into a door are tried before it is said that none was followed."""


def prove(asked: Asked) -> Tuple[Word, ...]:
    """Return what can be said of each door."""
    return _Proof(asked).words() if asked.question.doors else ()


_Theorem = Callable[[Sequence[GuardedDoor], bool], List[Word]]
"""From doors, and whether the walk is to be coarse, to a Word of each; coarsely it proves, but refutes nothing."""


class _Proof:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def words(self) -> Tuple[Word, ...]:
        closed = self._together(self._asked.question.doors, self._closed)
        opened = [word for group in apart(self._asked.question.doors) for word in self._together(group, self._opened)]
        opened.sort(key=self._number)
        rules = ListRules(self._asked.ruleset)
        listed = [self._knock(door, rules) for door in self._asked.question.doors]
        counted = self._together(self._asked.question.doors, lambda doors, coarse: self._counted(doors, rules, coarse))
        reset = self._together(self._asked.question.doors, lambda doors, coarse: self._reset(doors, rules, coarse))
        return tuple(worst(*some) for some in zip(closed, opened, listed, counted, reset))

    def _number(self, word: Word) -> int:
        return [door.name for door in self._asked.question.doors].index(word.door)

    @staticmethod
    def _together(doors: Sequence[GuardedDoor], theorem: _Theorem) -> List[Word]:
        """Prove for all doors at once, coarsely; of those that are not proved so, once more and exactly."""
        try:
            words = theorem(doors, True)
        except TooManyCases:
            words = [not_proved(door) for door in doors]
        doubtful = [door for door, word in zip(doors, words) if word.word != PROVED]
        exact = {word.door: word for word in (_Proof._exactly(doubtful, theorem) if doubtful else ())}
        return [exact.get(word.door, word) for word in words]

    @staticmethod
    def _exactly(doors: Sequence[GuardedDoor], theorem: _Theorem) -> List[Word]:
        """Prove for some doors at once, or one by one where these are too many cases."""
        try:
            return theorem(doors, False)
        except TooManyCases:
            if len(doors) == 1:
                return [not_proved(doors[0])]
        return [word for door in doors for word in _Proof._exactly([door], theorem)]

    # No stranger gets in who is not listed.

    def _closed(self, doors: Sequence[GuardedDoor], coarse: bool) -> List[Word]:
        space, listed = self._asked.space, unlisted(self._asked.question.doors)
        services = space.service(ports for door in doors for ports in door.opens)
        walk = Walk(self._asked.ruleset, space, listed, coarse=coarse)
        hits = walk.answer(self._asked.strangers(services)).accepted
        if self._asked.ruleset.diverts:
            hits += walk.answer(self._asked.strangers(space.all[0] & ~services), into=services).accepted
        hits = tuple(hit for hit in hits if not (hit.away and self._asked.question.sent_on))
        if coarse:
            return [
                not_proved(door) if any(self._leads_to(hit, door) for hit in hits) else proved(door) for door in doors
            ]
        return [self._way_in(door, [hit for hit in hits if self._leads_to(hit, door)], listed) for door in doors]

    def _leads_to(self, hit: Hit, door: GuardedDoor) -> bool:
        return bool((hit.way.services | hit.way.box[0]) & self._asked.space.service(door.opens))

    def _way_in(self, door: GuardedDoor, hits: Sequence[Hit], listed: Listed) -> Word:
        """Return a Word about the packets that may get in: the surest of those that do."""
        found = not_proved(door) if hits else proved(door)
        hits = sorted(hits, key=lambda hit: (hit.away, not hit.way.box[INDEX[STATE]] & NEW_BITS))
        for hit in hits[:MOST_REPLAYS]:
            word = replayed(self._asked, door.name, door.opens, hit, listed, gets_in=True)
            if word.is_certain:
                return word
            if found.packet is None or (word.word == VOID and found.word != VOID):
                found = word
        return found

    # Nobody is listed but by the steps.

    def _knock(self, door: GuardedDoor, rules: ListRules) -> Word:
        knock = knock_of(door)
        place = rules.wrong(knock)
        if place is not None:
            # A foreign one meets packets that this does not look for; ours were made to be proved.
            word = NOT_PROVED if self._asked.is_written(place) else VOID
            found = Word(door.name, word, None, place, self._asked.ruleset.text(place), (), True, False, SETS_LIST)
            return self._put(found) if word == VOID and self._asked.ruleset.own_lists else found
        if not rules.opens(knock):
            return Word(door.name, NOT_PROVED, None, None, "", (), False, False, NO_KNOCK)
        return proved(door)

    def _put(self, word: Word) -> Word:
        """Return a Word about a rule that puts sources on a list, with a packet of a stranger that surely meets it, if one does."""
        asked, listed, place = self._asked, unlisted(self._asked.question.doors), word.place
        steps = asked.space.service(ports_of(step) for door in asked.question.doors for step in door.steps + door.close)
        if place is None:
            return word
        try:
            walk = Walk(asked.ruleset, asked.space, listed, frozenset((place,)))
            answer = walk.answer(asked.untrusted(asked.space.all[0], NEW_BITS))
        except TooManyCases:
            return word
        hits = [hit for hit in answer.accepted + answer.refused if place in hit.way.taken]
        # The port of a step would not be shown.
        hits.sort(key=lambda hit: not (hit.way.services or hit.way.box[0]) & ~steps)
        for hit in hits[:MOST_REPLAYS]:
            services = hit.way.services or hit.way.box[0]
            packet = asked.space.packet(changed(hit.way.box, 0, services & ~steps or services))
            replay = Replay(asked.ruleset, packet, hit.way.taken, listed, asked.is_own)
            if not replay.outcome().assumed and place in replay.met:
                return word._replace(packet=packet)
        return word

    def _counted(self, doors: Sequence[GuardedDoor], rules: ListRules, coarse: bool) -> List[Word]:
        """Return whether each packet of a knock meets the rule that counts it, once the steps before are done."""
        steps = [
            (door, step, places)
            for door in doors
            if door.steps and not door.shut and rules.wrong(knock_of(door)) is None
            for step, places in zip(reversed(door.steps), rules.counters(knock_of(door)))
        ]
        watched = frozenset(place for _door, _step, places in steps for place in places)
        walk = Walk(self._asked.ruleset, self._asked.space, rules.knocking, watched, coarse=coarse)
        boxes = [box for door, step, _places in steps for box in self._asked.knockers(door, (ports_of(step),))]
        answer = walk.answer(unlike(boxes))
        hits_of = _by_service(answer.accepted + answer.refused)
        found = {}
        for door, step, places in steps:
            for box in self._asked.knockers(door, (ports_of(step),)):
                for hit in hits_of(box[0]):
                    met = intersected(hit.way.box, tuple(enumerate(box[:3])))
                    if met is not None and not places & set(hit.way.taken) and self._asked.is_ours(hit.way.taken):
                        found[door.name] = hit.way.taken[-1]
        return [
            Word(
                door.name,
                NOT_PROVED,
                None,
                found[door.name],
                self._asked.ruleset.text(found[door.name]),
                (),
                False,
                False,
                NOT_COUNTED,
            )
            if door.name in found
            else proved(door)
            for door in doors
        ]

    # A wrong port undoes the steps that were done.

    def _reset(self, doors: Sequence[GuardedDoor], rules: ListRules, coarse: bool) -> List[Word]:
        # Where the options are not known, nor are the steps of doors that are for the other IP version alone.
        asked = [door for door in doors if len(door.steps) > 1 and door.step_timeout and not door.shut]
        resets = {
            door.name: rules.resets(knock_of(door))
            for door in asked
            if door.sources is not None and rules.wrong(knock_of(door)) is None
        }
        watched: FrozenSet[Place] = frozenset().union(*(places for groups in resets.values() for places in groups))
        walk = Walk(self._asked.ruleset, self._asked.space, rules.knocking, watched, coarse=coarse)
        answer = walk.answer(self._asked.wrong_knocks() if resets else [])
        decided = (*answer.accepted, *answer.refused)
        # What nat sends to another port is no packet to a wrong one.
        hits = [hit.way.taken for hit in decided if not hit.way.services and self._asked.is_ours(hit.way.taken)]
        met = [(taken[-1], frozenset(taken)) for taken in hits]
        words = []
        for door in doors:
            groups = resets.get(door.name, ())
            missed = [last for last, taken in met if any(not places & taken for places in groups)]
            place = missed[0] if missed else None
            text = self._asked.ruleset.text(place) if place is not None else ""
            words.append(not_proved(door)._replace(place=place, rule=text, why=NOT_RESET) if missed else proved(door))
        return words

    # Who is listed gets in.

    def _opened(self, doors: Sequence[GuardedDoor], coarse: bool) -> List[Word]:
        listed = knocked(doors)
        boxes = [box for door in doors for box in self._asked.knockers(door, door.opens)]
        walk = Walk(self._asked.ruleset, self._asked.space, listed, coarse=coarse)
        answer = walk.answer(boxes) if boxes else None
        words = []
        for door in doors:
            word = proved(door)
            if answer is not None and door.sources is not None and not door.shut:
                accepted = any(self._leads_to(hit, door) for hit in answer.accepted)
                refused = [hit for hit in answer.refused if self._leads_to(hit, door)]
                shut = refused if not accepted else [hit for hit in refused if self._asked.is_ours(hit.way.taken)]
                if shut:
                    word = not_proved(door) if coarse else self._shut_out(door, shut, listed)
            words.append(word)
        return words

    def _shut_out(self, door: GuardedDoor, hits: Sequence[Hit], listed: Listed) -> Word:
        found = not_proved(door)
        for hit in hits[:MOST_REPLAYS]:
            found = replayed(self._asked, door.name, door.opens, hit, listed, gets_in=False)
            if found.is_certain:
                break
        return found


def apart(doors: Sequence[GuardedDoor]) -> List[List[GuardedDoor]]:
    """Part doors into groups of which no two share a port: who knocked at one is not let in by the other's rule."""
    groups: List[Tuple[List[GuardedDoor], List[Ports]]] = []
    for door in doors:
        for members, taken in groups:
            if not any(_overlap(one, other) for one in door.opens for other in taken):
                members.append(door)
                taken += door.opens
                break
        else:
            groups.append(([door], list(door.opens)))
    return [members for members, _taken in groups]


def _overlap(one: Ports, other: Ports) -> bool:
    return one.protocol == other.protocol and one.first <= other.last and other.first <= one.last


def replayed(asked: Asked, name: str, ports: Sequence[Ports], hit: Hit, listed: Listed, gets_in: bool) -> Word:
    """Return the Word of one packet out of those that a rule decides, sent once more, alone.

    :param name: of what the word is.
    :param ports: the ports that it is about.
    :param gets_in: whether the packet is said to get in, or to be refused.
    """
    space, way = asked.space, hit.way
    services = way.services or way.box[0]
    box = changed(way.box, 0, services & space.service(ports) or services)
    related = box[INDEX[STATE]] in (RELATED_BITS, 1 << STATES.index(frozenset((RELATED, DNAT))))
    packet = space.packet(changed(box, INDEX[STATE], RELATED_BITS if related else NEW_BITS))
    outcome = Replay(asked.ruleset, packet, way.taken, listed, asked.is_own).outcome()
    wanted = SENT_AWAY if hit.away else ACCEPTED if gets_in else REFUSED
    place = way.taken[-1]
    # A helper must have announced a related one, which no ruleset tells.
    word = VOID if outcome.verdict == wanted and packet.state == NEW else NOT_PROVED
    away = hit.away or bool(way.services)
    return Word(name, word, packet, place, asked.ruleset.text(place), outcome.assumed, gets_in, away)


def unlisted(doors: Sequence[GuardedDoor]) -> Listed:
    """A source that is on no list which opens the port in question; what other lists hold is not known."""
    by_list = {door.listed: door for door in doors}

    def listed(asked: ListMatch) -> Tuple[Tuple[Ports, ...], Optional[bool]]:
        door = by_list.get(asked.name)
        if door is None or not 0 < asked.seconds <= door.window:
            # Whoever knocked before the window may still be on the list.
            return (), None
        return door.opens, False

    return listed


def knocked(doors: Sequence[GuardedDoor]) -> Listed:
    """A source that has just knocked at the door whose port is in question; what other lists hold is not known."""
    by_list = {door.listed: door for door in doors}

    def listed(asked: ListMatch) -> Tuple[Tuple[Ports, ...], Optional[bool]]:
        door = by_list.get(asked.name)
        if door is None or not asked.plain or 0 < (asked.least or asked.seconds) < door.window:
            return (), None
        return door.opens, True

    return listed


def knock_of(door: GuardedDoor) -> Knock:
    ranges = None if door.sources is None else tuple(map(range_of, door.sources))
    return Knock(door.listed, door.steps, door.step_timeout, ranges)


def unlike(boxes: Sequence[Box]) -> List[Box]:
    """Return boxes as few: those that differ in their services alone are one."""
    services: Dict[Box, int] = {}
    for box in boxes:
        services[box[1:]] = services.get(box[1:], 0) | box[0]
    return [(bits, *rest) for rest, bits in services.items()]


def _by_service(hits: Sequence[Hit]) -> Callable[[int], List[Hit]]:
    """Return a function from the bits of some services to the hits that may be about them: quicker than to try all for each port."""
    wide: List[Hit] = []
    narrow: Dict[int, List[Hit]] = {}
    for hit in hits:
        bits = list(_each_bit(hit.way.box[0], _FEW_SERVICES))
        if len(bits) < _FEW_SERVICES:
            for bit in bits:
                narrow.setdefault(bit, []).append(hit)
        else:
            wide.append(hit)
    return lambda services: wide + [hit for bit in _each_bit(services, MOST_CASES) for hit in narrow.get(bit, ())]


def _each_bit(bits: int, most: int) -> Iterator[int]:
    """Return the bits that are set, as numbers with one bit each; not more than some."""
    while bits and most:
        yield bits & -bits
        bits &= bits - 1
        most -= 1


def proved(door: GuardedDoor) -> Word:
    """Return that a door is proved."""
    return Word(door.name, PROVED, None, None, "", (), False, False)


def not_proved(door: GuardedDoor) -> Word:
    """Return that nothing is proved of a door, for there are too many cases."""
    return Word(door.name, NOT_PROVED, None, None, "", (), False, False, CASES)


def worst(*words: Word) -> Word:
    """Return the one of some words about one thing that says least good of it."""
    order = (VOID, NOT_PROVED, PROVED)
    return min(words, key=lambda word: (order.index(word.word), not word.is_certain))


__all__ = (
    "MOST_REPLAYS", "apart", "knock_of", "knocked", "not_proved", "prove", "proved", "replayed", "unlike", "unlisted",
    "worst",
)  # fmt: skip
