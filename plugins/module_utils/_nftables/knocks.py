# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The knocks, and the sets in which a source in the middle of one is remembered. Pure.

Who has done some steps is remembered in a set for just that many of that knock: a packet to a step's port is right if its source is
in the set of the step before. The sets are named by a digest of the knock, so who is in there means the same after any change of
the other doors. They hold sources alone: an element that also names a port or a protocol is printed by some releases of nft as they
do not read it, and then a ruleset that was saved does not load.

A wrong port must forget every step that was done, in every door: one that was left would count again as soon as some door's
first step is hit. That costs a deletion for each stage there is, so where there are many, the knocks are parted into groups
with a set each, and only in those groups in which the source is does anything have to be forgotten. A digest chooses the group,
so that it stays the same when doors come and go.

A source is in the sets that say "in progress" for longer than in any other, and is put into those first. So they never lack
one of which a step still counts, also where a set is full.

What packets take out of a set stays in the kernel's memory until it clears that up, once a second, and until then it is passed by
whenever that source is looked for. One that begins and breaks a knock again and again, as fast as it can, would make each of its
packets dearer than the one before. So while many knocks are broken, by whomever, a source that breaks one begins none for a second.
(A limit of each source would be an element with a limit, and nft 0.9.8 crashes when it reads a ruleset that was saved with one.)
"""

import hashlib
import math
from typing import Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of

PROGRESS = "progress*"
"""The set of all sources in the middle of a knock, ``*`` where the family's digit stands."""
PAUSED = "paused*"
"""The set of the sources that begin no knock of several steps for now, ``*`` where the family's digit stands."""
PAUSE = 1
"""Seconds for which a source is in there."""
BROKEN_OFTEN = "limit rate over 20/second burst 50 packets"
"""Matches while knocks are broken more often than a person, or a port scan, does it."""
STAGE_SETS = ("progress", "group", "stage")
"""How the names of the sets begin in which a source in the middle of a knock is."""
FLAT = 16
"""Up to so many stages are simply forgotten one by one."""


class Sequence(NamedTuple):
    """A knock, or the knock that closes its door."""

    door: Door
    """Its door."""
    closing: bool
    """Whether it closes the door."""
    steps: Tuple[Step, ...]
    """Its steps. Secret."""
    stages: Tuple[str, ...]
    """The names of the sets of those who have done its first step, its first two, ..., all but one; ``*`` where the family's digit
    stands."""
    group: str = ""
    """The name of the set of the group that it is in, ``*`` where the family's digit stands, '' where there are no groups."""


class Knocks(NamedTuple):
    """All knocks of a Spec."""

    sequences: Tuple[Sequence, ...]
    """In the order of the doors, a door's own knock before the one that closes it."""
    timeout: int
    """Seconds for which a source is in progress: more than any of its stages counts."""
    parts: int
    """How many groups there may be, 0 for none."""

    @property
    def staged(self) -> Tuple[Sequence, ...]:
        """Those of more than one step."""
        return tuple(sequence for sequence in self.sequences if sequence.stages)

    @property
    def groups(self) -> Dict[str, List[Sequence]]:
        """The sets of groups, '' for none, and the sequences of several steps in each."""
        found: Dict[str, List[Sequence]] = {}
        for sequence in self.staged:
            found.setdefault(sequence.group, []).append(sequence)
        return found

    @property
    def stage_sets(self) -> List[str]:
        """The names of the sets of stages."""
        return [stage for sequence in self.staged for stage in sequence.stages]


def knocks_of(doors: Tuple[Door, ...]) -> Knocks:
    """Return the Knocks of doors."""
    plain = [(doors[index], key == "close", steps) for index, key, steps in sequences_of(doors)]
    total = sum(len(steps) - 1 for _door, _closing, steps in plain)
    # To ask each group, and to forget one, together costs least where there are as many groups as stages in one.
    parts = 0 if total <= FLAT else 1 << round(math.log2(total) / 2)
    timeout = max((door.step_timeout for door in doors), default=0) + 1
    return Knocks(tuple(_sequence(*each, parts=parts) for each in plain), timeout, parts)


def _sequence(door: Door, closing: bool, steps: Tuple[Step, ...], parts: int) -> Sequence:
    digest = hashlib.sha256(repr((door.name, closing, steps)).encode("utf-8")).hexdigest()
    stages = tuple(f"stage*_{digest[-8:]}_{number}" for number in range(1, len(steps)))
    group = f"group*_{int(digest[:8], 16) % parts + 1}" if parts and stages else ""
    return Sequence(door, closing, steps, stages, group)


__all__ = ("BROKEN_OFTEN", "FLAT", "PAUSE", "PAUSED", "PROGRESS", "STAGE_SETS", "Knocks", "Sequence", "knocks_of")
