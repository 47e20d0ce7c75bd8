# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules that recognise knocks: the steps of each door, and what forgets them. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.match_text import joined, knockers
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import KNOCKD


def heard_by_kernel(spec):
    """Return the Spec with those doors alone whose knocks the kernel is to recognise."""
    return spec._replace(doors=()) if spec.engine == KNOCKD else spec


def knock_rules(spec, family, lists):
    """Return (port, protocol) to the rules for that knock port, a door's last step first."""
    by_port = {}
    for door in spec.doors:
        sources = knockers(door, family)
        if not sources:
            continue
        for steps, closing in ((door.knock, False), (door.close, True)):
            for step, rules in _sequence(door, steps, closing, sources, lists):
                by_port.setdefault((step.port, step.protocol), []).extend(rules)
    return by_port


def _sequence(door, steps, closing, sources, lists):
    """Yield (step, rules) from the last step to the first."""
    last = len(steps)
    for number in range(last, 0, -1):
        step = steps[number - 1]
        what = "door {0}: {1} {2} of {3}".format(door.name, "closing step" if closing else "step", number, last)
        done = _arrival(door, number, last, closing, lists)
        if number > 1:
            before = lists.stage(door, number - 1, closing)
            known = [
                lists.seen(lists.progress, door.step_timeout),
                lists.seen(before, door.step_timeout),
                lists.forget(before),
            ]
            yield step, [(joined(_to(step), *(known + done)), what, "")]
        else:
            yield step, [(joined(source, _to(step), *done), what, "") for source in sources]


def _to(step):
    return "-p {0} -m {0} --dport {1}".format(step.protocol, step.port)


def _arrival(door, number, last, closing, lists):
    """Return what a right step does: enter the next stage, or at the end open (or shut) the door."""
    if number < last:
        return [lists.put(lists.stage(door, number, closing)), lists.put(lists.progress)]
    return [lists.forget(lists.door(door)) if closing else lists.put(lists.door(door))]


def staged_sequences(spec):
    """Yield (door, steps, closing) for every sequence of more than one step: those that have stages."""
    for door in spec.doors:
        for steps, closing in ((door.knock, False), (door.close, True)):
            if len(steps) > 1:
                yield door, steps, closing


def forget_rules(spec, lists):
    """Return the rules that forget every stage of a source.

    All of them, for a stage that was left would count again as soon as any door's first step is hit. They
    cost a lookup each, but only a source that has done a step comes here.
    """
    names = [
        (door.name, lists.stage(door, number, closing))
        for door, steps, closing in staged_sequences(spec)
        for number in range(1, len(steps))
    ]
    rules = [(lists.forget(name), "door {0}: forget a step".format(door), "") for door, name in names]
    return rules + [(lists.forget(lists.progress), "no longer on its way", "")] if rules else []


__all__ = (
    "forget_rules",
    "heard_by_kernel",
    "knock_rules",
    "staged_sequences",
)
