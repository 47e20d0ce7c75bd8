# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The knocks, and the sets in which a source in the middle of one is remembered. Pure.

Who has done a step is remembered with the step that comes next: a packet is right if its source waits for just this port. So one
set does for many doors. Where two of them wait for the same port, they use different sets.

A wrong port must forget every step that was done, in every door: one that was left would count again as soon as some door's
first step is hit. That costs a deletion for each stage there is, so where there are many, the knocks are parted into groups
with a set each, and only in those groups in which the source is does anything have to be forgotten.

A source is in the sets that say "in progress" for longer than in any other, and is put into those first. So they never lack
one of which a step still counts, also where a set is full.
"""

import math
from typing import Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of

PROGRESS = "progress*"
"""The set of all sources in the middle of a knock, ``*`` where the family's digit stands."""
STAGE_SETS = ("progress", "group", "stage")
"""How the names of the sets begin in which a source in the middle of a knock is."""
FLAT = 16
"""Up to so many stages are simply forgotten one by one."""


class Stage(NamedTuple):
    """What is remembered of a source that has done some steps of a knock, but not all."""

    set: str
    """The name of the set, ``*`` where the family's digit stands."""
    next: Step
    """The step that it must do next. Secret."""


class Sequence(NamedTuple):
    """A knock, or the knock that closes its door."""

    door: Door
    """Its door."""
    closing: bool
    """Whether it closes the door."""
    steps: Tuple[Step, ...]
    """Its steps. Secret."""
    stages: Tuple[Stage, ...]
    """What is remembered after its first step, its first two, ..., all but one."""
    group: str = ""
    """The name of the set of the group that it is in, ``*`` where the family's digit stands, '' where there are no groups."""


class Knocks(NamedTuple):
    """All knocks of a Spec."""

    sequences: Tuple[Sequence, ...]
    """In the order of the doors, a door's own knock before the one that closes it."""
    timeout: int
    """Seconds for which a source is in progress: more than any of its stages counts."""

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
        return list(dict.fromkeys(stage.set for sequence in self.staged for stage in sequence.stages))


def knocks_of(doors: Tuple[Door, ...]) -> Knocks:
    """Return the Knocks of doors."""
    waiting: Dict[Step, int] = {}
    plain = [
        Sequence(doors[index], key == "close", steps, tuple(_stage(step, waiting) for step in steps[1:]))
        for index, key, steps in sequences_of(doors)
    ]
    timeout = max((door.step_timeout for door in doors), default=0) + 1
    return Knocks(tuple(_grouped(plain)), timeout)


def _stage(step: Step, waiting: Dict[Step, int]) -> Stage:
    waiting[step] = waiting.get(step, 0) + 1
    return Stage(f"stage*_{waiting[step]}", step)


def _grouped(sequences: List[Sequence]) -> List[Sequence]:
    """Part sequences into groups so that to ask each group, and to forget one, costs as little as it can."""
    total = sum(len(sequence.stages) for sequence in sequences)
    if total <= FLAT:
        return sequences
    size = math.ceil(math.sqrt(total))
    grouped, before = [], 0
    for sequence in sequences:
        grouped.append(sequence._replace(group=f"group*_{before // size + 1}") if sequence.stages else sequence)
        before += len(sequence.stages)
    return grouped


__all__ = ("FLAT", "PROGRESS", "STAGE_SETS", "Knocks", "Sequence", "Stage", "knocks_of")
