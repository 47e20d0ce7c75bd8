# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The theorems about ports that are no door's: allowed ones are reached, the rest is not. Pure."""

from typing import List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove import replayed, unlisted
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_asked import DHCPV6, NEW_BITS, Asked
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import (
    CASES,
    NOT_PROVED,
    PROVED,
    VOID,
    Unguarded,
    Word,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import STATE
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import INDEX, Box, intersected
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import Hit, TooManyCases, Walk
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, ports_name

MOST_EXCEPTIONS = 20
FEW_CASES, MOST_CASES = 1000, 8000
"""Into how many sets all other ports may part before it is tried coarsely, and if that proves nothing: thousands of foreign
exceptions take too long to tell apart."""


class PortsWord(NamedTuple):
    """What the prover says of ports that are no door's."""

    word: Word
    """What it says; its name is ``allow PORT/PROTOCOL`` or ``rest``."""
    exceptions: Tuple[str, ...]
    """The foreign rules that let packets in to the rest, or send them to another host; not all where there are many."""


def prove_ports(asked: Asked) -> Tuple[PortsWord, ...]:
    """Return what can be said of each allowed port and, where all else is to be refused, of the rest."""
    rest = _Rest(asked)
    shut = any(door.shut for door in asked.question.doors)
    words = [rest.allowed(each) for each in asked.question.allow if each.sources is not None and not shut]
    return tuple(words + ([rest.rest()] if asked.question.refuses_rest else []))


class _Rest:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._listed = unlisted(asked.question.doors)
        self._walk = Walk(asked.ruleset, asked.space, self._listed)

    def allowed(self, allow: Unguarded) -> PortsWord:
        """Whom a port is for, gets to it, but for those whom a foreign rule refuses."""
        asked, name = self._asked, f"allow {ports_name(allow.ports)}"
        first = asked.first(asked.space.service([allow.ports]), NEW_BITS)
        box = intersected(first, asked.allowed(allow))
        try:
            answer = self._walk.answer([box] if box is not None else [])
        except TooManyCases:
            return PortsWord(_word(name, NOT_PROVED, CASES), ())
        refused = [hit for hit in answer.refused if not answer.accepted or asked.is_ours(hit.way.taken)]
        return PortsWord(self._surest(name, (allow.ports,), refused, gets_in=False), ())

    def rest(self) -> PortsWord:
        """Nothing else is reached but by foreign rules, which are named."""
        asked = self._asked
        doors = asked.space.service(ports for door in asked.question.doors for ports in door.opens)
        others = asked.space.all[0] & ~(doors | asked.space.service([DHCPV6]))
        met = [intersected(box, ((INDEX[STATE], NEW_BITS),)) for box in asked.strangers(others)]
        boxes: List[Box] = [box for box in met if box is not None]
        try:
            accepted = self._reached(boxes)
        except TooManyCases:
            return PortsWord(_word("rest", NOT_PROVED, CASES), ())
        foreign = [hit for hit in accepted if not asked.is_ours(hit.way.taken)]
        ours = [hit for hit in accepted if asked.is_ours(hit.way.taken)]
        texts = dict.fromkeys(asked.ruleset.text(hit.way.taken[-1]) for hit in foreign)
        return PortsWord(self._surest("rest", (), ours, gets_in=True), tuple(texts)[:MOST_EXCEPTIONS])

    def _reached(self, boxes: List[Box]) -> Tuple[Hit, ...]:
        """Return what may be accepted; coarsely where that takes long, and proves all the same.

        :raises TooManyCases: if neither way is possible.
        """
        ruleset, space = self._asked.ruleset, self._asked.space
        try:
            return Walk(ruleset, space, self._listed, most=FEW_CASES).answer(boxes).accepted
        except TooManyCases:
            coarse = Walk(ruleset, space, self._listed, coarse=True).answer(boxes).accepted
        if all(not self._asked.is_ours(hit.way.taken) for hit in coarse):
            return coarse
        return Walk(ruleset, space, self._listed, most=MOST_CASES).answer(boxes).accepted

    def _surest(self, name: str, ports: Tuple[Ports, ...], hits: List[Hit], gets_in: bool) -> Word:
        found = _word(name, PROVED)
        for hit in hits[:MOST_EXCEPTIONS]:
            found = replayed(self._asked, name, ports, hit, self._listed, gets_in)
            if found.word == VOID:
                break
        return found


def _word(name: str, word: str, why: str = "") -> Word:
    return Word(name, word, None, None, "", (), False, False, why)


__all__ = ("PortsWord", "prove_ports")
