# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The theorems about doors for packets that the host sends on: to what nat publishes, and to hosts behind it. Pure.

No first packet of a connection from a stranger who has knocked nowhere gets past our chain to a port of a door; one from a source that
has knocked is not refused there. Ports are those that packets were sent to. Where nat changes what a packet is for, each question sees
the one of two destinations that it is about, and takes what rules ask of the other for a doubt.
"""

from typing import Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove import (
    MOST_REPLAYS,
    apart,
    knocked,
    not_proved,
    proved,
    unlike,
    worst,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_asked import Asked
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import (
    NOT_PROVED,
    VOID,
    GuardedDoor,
    Question,
    Word,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_replay import ACCEPTED, REFUSED, Replay
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DESTINATION,
    DNAT,
    NEW,
    RELATED,
    STATES,
    ListMatch,
    Term,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import Box, intersected, range_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import (
    Hit,
    Listed,
    TooManyCases,
    Walk,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

_EVERY_PORT = tuple(Ports(0, 65535, protocol) for protocol in PROTOCOLS)


class Sent(NamedTuple):
    """The packets of one kind that are sent on."""

    ruleset: Ruleset
    """The rules, as these packets meet them."""
    by_nat: bool
    """Whether nat has changed where they go."""
    published: bool
    """Whether doors that guard what nat publishes are asked about; those to hosts behind are in any case."""
    certain: bool
    """Whether all that our rules ask of where they go is known."""
    notes: FrozenSet[str] = frozenset()
    """Lists that our rules put only those on who have knocked."""
    reached: bool = True
    """Whether it is known that there are such packets that no rule of ours has seen before; else none of them gets in for certain."""


def prove_sent_on(sent: Sequence[Sent], question: Question) -> List[Word]:
    """Return what can be said of each door.

    :param sent: each kind of packets.
    :param question: what is asked.
    """
    found: Dict[str, List[Word]] = {door.name: [proved(door)] for door in question.doors}
    for each in sent:
        for word in _SentOn(each, question).words():
            found[word.door].append(word)
    return [worst(*words) for words in found.values()]


class _SentOn:
    """One kind of packets."""

    def __init__(self, sent: Sent, question: Question) -> None:
        self._sent = sent
        # Where they go is not this host, whatever its addresses are.
        self._asked = Asked(sent.ruleset, question._replace(own=()))
        states = (NEW, RELATED)
        found = [frozenset((state, DNAT)) if sent.by_nat else frozenset((state,)) for state in states]
        self._new = 1 << STATES.index(found[0])
        self._states = self._new | 1 << STATES.index(found[1])

    def words(self) -> List[Word]:
        """Return what can be said of each door that such a packet is for."""
        doors = [door for door in self._asked.question.doors if door.to or self._sent.published]
        try:
            refused = any(self._hits(some, gets_in=False) for some in apart(doors))
            if not refused and not self._hits(doors, gets_in=True):
                return [proved(door) for door in doors]
        except TooManyCases:
            pass
        return [word for door in doors for word in self._words(door)]

    def _words(self, door: GuardedDoor) -> List[Word]:
        try:
            return [
                self._surest(door, self._hits([door], gets_in), self._listed([door], gets_in), gets_in)
                for gets_in in (True, False)
            ]
        except TooManyCases:
            return [not_proved(door)]

    def _hits(self, doors: Sequence[GuardedDoor], gets_in: bool) -> Tuple[Hit, ...]:
        """Return the packets of strangers that may get past, or those of sources that have knocked which may be refused."""
        if not gets_in:
            doors = [door for door in doors if not door.shut and door.sources is not None and self._sent.certain]
        states = self._states if gets_in else self._new
        boxes = [box for door in doors for box in self._boxes(door, states, gets_in) if box[0]]
        if not boxes:
            return ()
        answer = Walk(self._sent.ruleset, self._asked.space, self._listed(doors, gets_in)).answer(unlike(boxes))
        return (
            answer.accepted if gets_in else tuple(hit for hit in answer.refused if self._asked.is_ours(hit.way.taken))
        )

    def _listed(self, doors: Sequence[GuardedDoor], gets_in: bool) -> Listed:
        return self._nowhere if gets_in else knocked(doors)

    def _boxes(self, door: GuardedDoor, states: int, gets_in: bool) -> List[Box]:
        asked, boxes = self._asked, self._asked.untrusted(self._asked.space.service(door.opens), states)
        if door.sources and not gets_in:
            boxes = asked.from_sources(boxes, door.sources)
        if door.to:
            found = asked.space.bits(Term(DESTINATION, tuple(map(range_of, door.to)), False))
            met = [intersected(box, (found,)) for box in boxes] if found is not None else []
            return [box for box in met if box is not None]
        for parts in map(asked.allowed, asked.question.allow):
            boxes = [left for each in boxes for left in asked.left(each, parts)]
        return boxes

    def _nowhere(self, asked: ListMatch) -> Tuple[Tuple[Ports, ...], Optional[bool]]:
        """A source that has not knocked at the port's door, nor at any to hosts behind: nat may send the packet to these."""
        if asked.name in self._sent.notes:
            return (_EVERY_PORT, False)
        door = next((each for each in self._asked.question.doors if each.listed == asked.name), None)
        if door is None or not 0 < asked.seconds <= door.window:
            return (), None
        return (_EVERY_PORT if door.to else door.opens), False

    def _surest(self, door: GuardedDoor, hits: Sequence[Hit], listed: Listed, gets_in: bool) -> Word:
        found = not_proved(door) if hits else proved(door)
        for hit in hits[:MOST_REPLAYS]:
            word = self._replayed(door, hit, listed, gets_in)
            if word.is_certain:
                return word
            if found.packet is None or (word.word == VOID and found.word != VOID):
                found = word
        return found

    def _replayed(self, door: GuardedDoor, hit: Hit, listed: Listed, gets_in: bool) -> Word:
        ruleset, packet = self._sent.ruleset, self._asked.space.packet(hit.way.box)
        replay = Replay(ruleset, packet, hit.way.taken, listed, self._asked.is_own, self._sent.by_nat)
        outcome = replay.outcome()
        wanted = outcome.verdict == (ACCEPTED if gets_in else REFUSED) and packet.state == NEW
        place = hit.way.taken[-1]
        word = VOID if wanted and (self._sent.reached or not gets_in) else NOT_PROVED
        return Word(door.name, word, packet, place, ruleset.text(place), outcome.assumed, gets_in, False)


__all__ = ("Sent", "prove_sent_on")
