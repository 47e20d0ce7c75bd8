# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The theorem about the connection that a change is made through: a new one like it gets in, after its knock. Pure.

It is proved for a connection that comes in by the interface to which the host routes its answers. It is refuted only where none gets
in by any interface.
"""

from typing import Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove import (
    MOST_REPLAYS,
    knock_of,
    knocked,
    replayed,
    unlisted,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_asked import Asked, ports_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_lists import ListRules
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import (
    CASES,
    CONNECTION,
    HIDDEN,
    NO_PACKET,
    NOT_COUNTED,
    NOT_PROVED,
    PROVED,
    Arriving,
    GuardedDoor,
    Word,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import STATE, STATES, UNTRACKED
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import INDEX, Box
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import Hit, TooManyCases, Walk
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

_UNTRACKED = 1 << STATES.index(frozenset((UNTRACKED,)))


def prove_connection(asked: Asked) -> Optional[Word]:
    """Return what can be said of the connection that is asked about, None where there is none."""
    arriving = asked.question.connection
    if arriving is None:
        return None
    try:
        return _Connection(asked, arriving).word()
    except TooManyCases:
        return _not_proved(CASES)


class _Connection:
    def __init__(self, asked: Asked, arriving: Arriving) -> None:
        self._asked, self._arriving = asked, arriving
        self._port = Ports(arriving.port, arriving.port, "tcp")
        self._door: Optional[GuardedDoor] = next((d for d in asked.question.doors if d.name == arriving.door), None)
        self._listed = knocked([self._door]) if self._door is not None else unlisted(asked.question.doors)
        self._walk = Walk(asked.ruleset, asked.space, self._listed)

    def word(self) -> Word:
        expected = self._asked.arriving(self._arriving, self._port, self._arriving.interface)
        anywhere = self._asked.arriving(self._arriving, self._port, "")
        if expected is None or anywhere is None:
            return _not_proved(NO_PACKET)
        answer = self._walk.answer([expected])
        stopped = [hit for hit in answer.accepted if hit.away] + list(answer.refused)
        if stopped:
            return self._stopped(stopped, self._gets_in(anywhere))
        if self._door is not None and any(hit.way.box[INDEX[STATE]] & _UNTRACKED for hit in answer.accepted):
            return _not_proved(HIDDEN)
        return self._counted(self._door) if self._door is not None else _word(PROVED)

    def _gets_in(self, box: Box) -> bool:
        """Return whether some packet may get in: by any interface, or by another port that nat sends to this one."""
        asked = self._asked
        if any(not hit.away for hit in self._walk.answer([box]).accepted):
            return True
        if not asked.ruleset.diverts:
            return False
        services = asked.space.service([self._port])
        others = [(asked.space.all[0] & ~services, *box[1:])]
        return any(not hit.away for hit in self._walk.answer(others, into=services).accepted)

    def _stopped(self, hits: Sequence[Hit], gets_in: bool) -> Word:
        """Return the Word of packets that may be refused: VOID if one surely is, and none gets in by another way."""
        found = _not_proved(CASES)
        for hit in hits[:MOST_REPLAYS]:
            word = replayed(self._asked, CONNECTION, (self._port,), hit, self._listed, gets_in=hit.away)
            if found.packet is None or word.is_certain:
                found = word
            if word.is_certain:
                break
        return found if found.is_certain and not gets_in else found._replace(word=NOT_PROVED)

    def _counted(self, door: GuardedDoor) -> Word:
        """Return whether its knock is counted: each packet of it meets the rule that does it."""
        rules, knock = ListRules(self._asked.ruleset), knock_of(door)
        if not door.steps or rules.wrong(knock) is not None or not rules.opens(knock):
            # The door's own word says what there is to say of it.
            return _word(PROVED)
        for step, places in zip(reversed(door.steps), rules.counters(knock)):
            box = self._asked.arriving(self._arriving, ports_of(step), self._arriving.interface)
            answer = Walk(self._asked.ruleset, self._asked.space, rules.knocking, places).answer([box] if box else [])
            for hit in (*answer.accepted, *answer.refused):
                if not places & set(hit.way.taken):
                    place = hit.way.taken[-1]
                    text = self._asked.ruleset.text(place)
                    return _not_proved(NOT_COUNTED)._replace(place=place, rule=text)
        return _word(PROVED)


def _word(word: str) -> Word:
    return Word(CONNECTION, word, None, None, "", (), False, False)


def _not_proved(why: str) -> Word:
    return _word(NOT_PROVED)._replace(why=why)


__all__ = ("prove_connection",)
