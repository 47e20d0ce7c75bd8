# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The knocks, and how a source in the middle of one is remembered. Pure.

Who has done some steps is remembered in one set for all knocks, beside a number that stands for just that many steps of that
knock. It is a digest, so a source in there means the same after any change of the other doors. One set is what costs least where
there are many doors: a packet finds it in the processor's memory, and the kernel, which looks sets up by their names in a list, has
few to look up while it loads them.

A wrong port must forget every step that was done, in every door: one that was left would count again as soon as some door's
first step is hit. That costs a deletion for each stage there is, so where there are many, the knocks are parted into groups
with a number each, and only in those groups in which the source is does anything have to be forgotten. A digest chooses the group,
so that it stays the same when doors come and go.

That a source is in the middle of any knock, and in which groups, is remembered for longer than any stage, and first. So it is never
unknown where a step still counts, also where a set is full.

What packets take out of a set stays in the kernel's memory until it clears that up, once a second, and until then it is passed by
whenever that source is looked for. One that begins and breaks a knock again and again, as fast as it can, would make each of its
packets dearer than the one before. So while many knocks are broken, by whomever, a source that breaks one begins none for a second.
(A limit of each source would be an element with a limit, and nft 0.9.8 crashes when it reads a ruleset that was saved with one.)
"""

import hashlib
import math
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import STAGES, Entry
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of

PROGRESS = Entry("progress*")
"""A source in the middle of any knock."""
PAUSED = Entry("paused*")
"""A source that begins no knock for now."""
PAUSE = 1
"""Seconds for which a source is in there."""
BROKEN_OFTEN = "limit rate over 20/second burst 50 packets"
"""Matches while knocks are broken more often than a person, or a port scan, does it."""
FLAT = 16
"""Up to so many stages are simply forgotten one by one."""
AT_ONCE = 4
"""For how many stages and groups there is room, for each source that may be in the middle of a knock."""
_FIRST = 1 << 31
"""Numbers of stages have this bit, and those of groups do not."""


class Sequence(NamedTuple):
    """A knock, or the knock that closes its door."""

    door: Door
    """Its door."""
    closing: bool
    """Whether it closes the door."""
    steps: Tuple[Step, ...]
    """Its steps. Secret."""
    stages: Tuple[Entry, ...]
    """Where those are who have done its first step, its first two, ..., all but one."""
    group: Entry = PROGRESS
    """Where those are who are in the middle of a knock of its group."""

    @property
    def marks(self) -> List[Entry]:
        """What says of a source that it has something of this knock to be forgotten, in the order in which that is asked."""
        return list(dict.fromkeys((PROGRESS, self.group)))


class Knocks(NamedTuple):
    """All knocks of a Spec."""

    sequences: Tuple[Sequence, ...]
    """In the order of the doors, a door's own knock before the one that closes it."""
    timeout: int
    """Seconds for which a source is in progress: more than any of its stages counts."""
    parts: int
    """How many groups there may be: one is the set of all sources in the middle of a knock."""

    @property
    def staged(self) -> Tuple[Sequence, ...]:
        """Those of more than one step."""
        return tuple(sequence for sequence in self.sequences if sequence.stages)

    @property
    def groups(self) -> Dict[Entry, List[Sequence]]:
        """The groups, and the sequences of several steps in each."""
        found: Dict[Entry, List[Sequence]] = {}
        for sequence in self.staged:
            found.setdefault(sequence.group, []).append(sequence)
        return found

    @property
    def stages(self) -> List[Entry]:
        """Those of all sequences."""
        return [stage for sequence in self.sequences for stage in sequence.stages]


def knocks_of(doors: Tuple[Door, ...]) -> Knocks:
    """Return the Knocks of doors."""
    plain = [(doors[index], key == "close", steps) for index, key, steps in sequences_of(doors)]
    total = sum(len(steps) - 1 for _door, _closing, steps in plain)
    # To ask each group, and to forget one, together costs least where there are as many groups as stages in one.
    parts = 1 if total <= FLAT else 1 << round(math.log2(total) / 2)
    timeout = max((door.step_timeout for door in doors), default=0) + 1
    return Knocks(tuple(_sequences(plain, parts)), timeout, parts)


def _sequences(plain: List[Tuple[Door, bool, Tuple[Step, ...]]], parts: int) -> Iterator[Sequence]:
    taken: Set[int] = set()
    for door, closing, steps in plain:
        digest, first = hashlib.sha256(repr((door.name, closing, steps)).encode("utf-8")).digest(), 0
        while not first or first in taken:
            # Two knocks may have the same 28 bits, if hardly ever: then the later one takes others.
            first = _FIRST | int.from_bytes(digest[-4:], "big") >> 4 << 3
            part, digest = int.from_bytes(digest[:4], "big") % parts + 1, hashlib.sha256(digest).digest()
        taken.add(first)
        stages = tuple(Entry(STAGES, first + number) for number in range(1, len(steps)))
        yield Sequence(door, closing, steps, stages, Entry(STAGES, part) if parts > 1 else PROGRESS)


__all__ = ("AT_ONCE", "BROKEN_OFTEN", "FLAT", "PAUSE", "PAUSED", "PROGRESS", "Knocks", "Sequence", "knocks_of")
