# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules that recognise knocks: the steps of each door, and what forgets them. Pure."""

from typing import Dict, Iterator, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables import comments
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rule_parts import (
    RuleParts,
    joined,
    knocker_matches,
    port_match,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES, Door, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


def kernel_doors(spec: Spec) -> Tuple[Door, ...]:
    """Return the doors whose knocks the kernel is to recognise."""
    return spec.doors if ENGINES[spec.engine].rules_recognise else ()


def knock_rules(doors: Tuple[Door, ...], family: str, lists: Lists) -> Dict[Step, List[RuleParts]]:
    """Return each step to the rules for its port, a door's last step first."""
    by_step: Dict[Step, List[RuleParts]] = {}
    for door in doors:
        sources = knocker_matches(door, family)
        if not sources:
            continue
        for steps, closing in ((door.knock, False), (door.close, True)):
            for step, rules in _sequence_rules(door, steps, closing, sources, lists):
                by_step.setdefault(step, []).extend(rules)
    return by_step


def _sequence_rules(
    door: Door, steps: Tuple[Step, ...], closing: bool, sources: List[str], lists: Lists
) -> Iterator[Tuple[Step, List[RuleParts]]]:
    """Yield (step, rules) from the last step to the first."""
    last = len(steps)
    for number in range(last, 0, -1):
        step = steps[number - 1]
        meaning = comments.step(door.name, number, last, closing)
        port = port_match(Ports(step.port, step.port, step.protocol))
        effects = _effects(door, number, last, closing, lists)
        if number > 1:
            before = lists.stage(door, number - 1, closing)
            known = [
                lists.seen(lists.progress, door.step_timeout),
                lists.seen(before, door.step_timeout),
                lists.forget(before),
            ]
            yield step, [RuleParts(joined(port, *(known + effects)), meaning, "")]
        else:
            yield step, [RuleParts(joined(source, port, *effects), meaning, "") for source in sources]


def _effects(door: Door, number: int, last: int, closing: bool, lists: Lists) -> List[str]:
    """Return what a correct step does: set the next stage, or at the end open (or close) the door."""
    if number < last:
        return [lists.put(lists.stage(door, number, closing)), lists.put(lists.progress)]
    return [lists.forget(lists.door(door)) if closing else lists.put(lists.door(door))]


def staged_sequences(doors: Tuple[Door, ...]) -> Iterator[Tuple[Door, Tuple[Step, ...], bool]]:
    """Yield (door, steps, closing) for every sequence of more than one step: those that have stages."""
    for door in doors:
        for steps, closing in ((door.knock, False), (door.close, True)):
            if len(steps) > 1:
                yield door, steps, closing


def forget_rules(doors: Tuple[Door, ...], lists: Lists) -> List[RuleParts]:
    """Return the rules that forget every stage of a source.

    All of them, for a stage that was left would count again as soon as any door's first step is hit. They
    cost a lookup each, but only a source that has done a step comes here.
    """
    rules = [
        RuleParts(lists.forget(lists.stage(door, number, closing)), comments.reset(door.name), "")
        for door, steps, closing in staged_sequences(doors)
        for number in range(1, len(steps))
    ]
    return rules + [RuleParts(lists.forget(lists.progress), comments.NO_PROGRESS, "")] if rules else []


__all__ = ("forget_rules", "kernel_doors", "knock_rules", "staged_sequences")
