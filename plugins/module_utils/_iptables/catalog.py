# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lists that a source in the middle of a knock is on, and the rules that take it off all of them. Pure.

Every step that was done must be forgotten after a wrong port, for a stage that was left would count again as soon as
any door's first step is hit. A rule for every stage of every door would cost a lookup each. So where there are many,
the knocks are parted into groups, those into smaller ones, down to the single knock, and each has a list: the first step
puts the source on those that lead to its knock, and forgetting looks only into groups whose list has the source.

A list holds a limited number of sources and drops the oldest. So that forgetting never misses a stage that still
counts, a step counts only while the source is on all of the lists that lead to it.
"""

from typing import Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import CATALOG, CATALOG_STAGES, UNUSED
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Step
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import Chains, RuleParts, joined

FLAT = 16
"""Up to so many stages are simply forgotten one by one."""
BRANCHES = 5
"""How many parts a group has."""
NAMES_OF_A_KNOCK, NAMES_AT_LEAST = 8, 32
"""A knock of eight steps needs so many lists; so many names there are at least where several knocks could need them."""
LISTS_A_RULE = 8


class Sequence(NamedTuple):
    """A knock, or the knock that closes its door."""

    door: Door
    """Its door."""
    closing: bool
    """Whether it closes the door."""
    steps: Tuple[Step, ...]
    """Its steps. Secret."""
    stages: Tuple[str, ...]
    """Names of the lists of sources that have done its first step, its first two, ..., all but one."""
    path: Tuple[str, ...]
    """Names of the lists of the groups that it is in, from the largest to its own."""


class Catalog:
    """The knocks of some doors with the names of their lists, and the chains that forget them."""

    def __init__(self, doors: Tuple[Door, ...], lists: Lists) -> None:
        """Take the doors, and the Lists of a family."""
        self._lists = lists
        self._count = 1 if doors else 0  # lists.progress is the first
        plain = [
            Sequence(door, closing, steps, self._numbered(len(steps) - 1), ())
            for door in doors
            for closing, steps in ((False, door.knock), (True, door.close))
            if steps
        ]
        self._groups: Chains = {}
        self._stages: Chains = {}
        self._paths: Dict[Sequence, Tuple[str, ...]] = {}
        self._fill([sequence for sequence in plain if sequence.stages])
        self.sequences = [sequence._replace(path=self._paths.get(sequence, ())) for sequence in plain]

    def chains(self) -> Chains:
        """Return the chains, those whose lists are asked most in front, that of unused lists at the end.

        The kernel makes lists in the order of the chains that name them, in a file with one backend, by their names with
        the other, and looks through them in that order. The numbers of their files in /proc tell it to every user, so
        these chains come before those of the doors both ways: no door's list parts the used ones from the unused.
        """
        return dict(self._groups, **self._stages, **self._unused())

    def _unused(self) -> Chains:
        """Return the chain that names lists which nothing uses, so that their number does not tell that of the steps.

        One or two knocks have as many lists as if all had eight steps; beyond that, only the order of magnitude shows.
        """
        least = min(NAMES_OF_A_KNOCK * len(self.sequences), NAMES_AT_LEAST)
        wanted = 1 << (max(self._count, least) - 1).bit_length() if self.sequences else 0
        names = [self._lists.numbered(number) for number in range(self._first_unused(), wanted + 1)]
        rules = [
            RuleParts(joined(*map(self._lists.known, names[first : first + LISTS_A_RULE])), comments.UNUSED_LISTS, "")
            for first in range(0, len(names), LISTS_A_RULE)
        ]
        return {UNUSED: rules} if rules else {}

    def _first_unused(self) -> int:
        return self._count + 1 if self._stages or self._groups else 1

    def _numbered(self, count: int) -> Tuple[str, ...]:
        first = self._count + 1
        self._count += count
        return tuple(self._lists.numbered(number) for number in range(first, first + count))

    def _fill(self, sequences: List[Sequence]) -> None:
        """Make the chains, group by group from the largest on, so that the lists asked most are made first."""
        if sequences and sum(len(sequence.stages) for sequence in sequences) <= FLAT:
            self._groups[CATALOG] = [rule for sequence in sequences for rule in self._forget(sequence)]
            return
        waiting = [(CATALOG, sequences)] if sequences else []
        groups = 0
        while waiting:
            chain, members = waiting.pop(0)
            self._groups[chain] = []
            for part in _parts(members):
                (name,) = self._numbered(1)
                for sequence in part:
                    self._paths[sequence] = self._paths.get(sequence, ()) + (name,)
                if len(part) == 1:
                    target = f"{CATALOG_STAGES}{len(self._stages) + 1}"
                    self._stages[target] = self._forget(part[0])
                else:
                    groups += 1
                    target = f"{CATALOG}{groups}"
                    waiting.append((target, part))
                self._groups[chain].append(RuleParts(self._lists.forget(name), comments.IN_PROGRESS, "-j " + target))

    def _forget(self, sequence: Sequence) -> List[RuleParts]:
        meaning = comments.reset(sequence.door.name)
        return [RuleParts(self._lists.forget(stage), meaning, "") for stage in sequence.stages]


def _parts(members: List[Sequence]) -> List[List[Sequence]]:
    """Split a group into BRANCHES parts of about the same size, none of them empty."""
    count = min(BRANCHES, len(members))
    borders = [number * len(members) // count for number in range(count + 1)]
    return [members[first:last] for first, last in zip(borders, borders[1:])]


__all__ = ("Catalog", "Sequence")
