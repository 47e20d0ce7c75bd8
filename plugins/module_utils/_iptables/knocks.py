# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules that recognise knocks: the steps of each door. Pure."""

from typing import Dict, Iterator, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables import catalog
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES, Door, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import (
    RuleParts,
    joined,
    knocker_matches,
    port_match,
)


def kernel_doors(spec: Spec) -> Tuple[Door, ...]:
    """Return the doors whose knocks the kernel is to recognise."""
    return spec.doors if ENGINES[spec.engine].rules_recognise else ()


def knock_rules(sequences: Sequence[catalog.Sequence], family: str, lists: Lists) -> Dict[Step, List[RuleParts]]:
    """Return each step to the rules for its port, a door's last step first."""
    by_step: Dict[Step, List[RuleParts]] = {}
    for sequence in sequences:
        sources = knocker_matches(sequence.door, family)
        if not sources:
            continue
        for step, rules in _sequence_rules(sequence, sources, lists):
            by_step.setdefault(step, []).extend(rules)
    return by_step


def _sequence_rules(
    sequence: catalog.Sequence, sources: List[str], lists: Lists
) -> Iterator[Tuple[Step, List[RuleParts]]]:
    """Yield (step, rules) from the last step to the first."""
    timeout, last = sequence.door.step_timeout, len(sequence.steps)
    for number in range(last, 0, -1):
        step = sequence.steps[number - 1]
        meaning = comments.step(sequence.door.name, number, last, sequence.closing)
        port = port_match(Ports(step.port, step.port, step.protocol))
        effects = _effects(sequence, number, lists)
        if number > 1:
            before = sequence.stages[number - 2]
            known = [lists.seen(lists.progress, timeout), *map(lists.known, sequence.path)]
            known += [lists.seen(before, timeout), lists.forget(before)]
            yield step, [RuleParts(joined(port, *(known + effects)), meaning, "")]
        else:
            yield step, [RuleParts(joined(source, port, *effects), meaning, "") for source in sources]


def _effects(sequence: catalog.Sequence, number: int, lists: Lists) -> List[str]:
    """Return what a correct step does: set the next stage, or at the end open (or close) the door."""
    if number == len(sequence.steps):
        door = lists.door(sequence.door)
        return [lists.forget(door) if sequence.closing else lists.put(door)]
    path = sequence.path if number == 1 else ()
    return [lists.put(name) for name in (*path, sequence.stages[number - 1], lists.progress)]


__all__ = ("kernel_doors", "knock_rules")
