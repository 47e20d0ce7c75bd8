# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a scan or another door's knock would do to a sequence of steps.

Layout facts behind the checks: a packet to a knock port, to a door's port or to an allowed port never
resets a source's progress; one to any other port does.
"""

from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Allow, Door, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, Ranges

Steps = Tuple[Step, ...]
KnockSequence = Tuple[int, str, Steps]
"""Index of the door, key of the option (``knock`` or ``close``), steps."""

_ADVICE = "Choose ports that are far apart and neither rise nor fall, such as one high, one low, one between."


def check_sequences(spec: Spec, path: str) -> None:
    """Refuse knocks that a linear scan opens and knocks that open or close another door.

    :param spec: a Spec whose doors have been read.
    :param path: the option that holds the doors, for messages.
    :raises SpecError: for the first that is found; no message names a step.
    """
    silent = silent_ports(spec.doors, spec.allow)
    for index, door in enumerate(spec.doors):
        where = f"{path}[{index}]"
        for key, steps in (("knock", door.knock), ("close", door.close)):
            _check_repeats(steps, f"{where}.{key}")
        if len(door.knock) > 1 and scan_opens(door.knock, silent):
            raise SpecError(
                where + ".knock",
                "a linear port scan would hit these steps in order, with no port between them that "
                "resets the knock. " + _ADVICE,
            )
    _check_clashes(spec.doors, path)


def sequences_of(doors: Sequence[Door]) -> List[KnockSequence]:
    """Return (index of the door, key of the option, steps) of every sequence there is."""
    return [
        (index, key, steps)
        for index, door in enumerate(doors)
        for key, steps in (("knock", door.knock), ("close", door.close))
        if steps
    ]


def check_first_steps(doors: Sequence[Door], path: str) -> None:
    """Refuse two sequences that begin alike, where knockd is to recognise them.

    It follows both, and when the first of them breaks, it forgets all that it follows (knockd 0.8, sniff() in knockd.c: the
    list of attempts is emptied when the one at its head goes). So the other one would never open.

    :param path: the option that holds the doors, for messages.
    :raises SpecError: for the first that is found; never shows it.
    """
    seen: Dict[Step, str] = {}
    for index, key, steps in sequences_of(doors):
        where = f"{path}[{index}].{key}"
        if steps[0] in seen:
            raise SpecError(
                where + "[0]",
                f"is also the first step of {seen[steps[0]]}, and with engine knockd only one of the two would work. "
                "Begin one of them with another port.",
            )
        seen[steps[0]] = where


def _check_repeats(steps: Steps, path: str) -> None:
    for number in range(1, len(steps)):
        if steps[number] == steps[number - 1]:
            raise SpecError(
                f"{path}[{number}]",
                "is the same as the step before it. A repeat looks like a retransmitted packet: choose another.",
            )


class SilentPorts:
    """The ports that do not reset progress, per set of protocols, as merged ranges."""

    def __init__(self, steps: Iterable[Step], ports: Iterable[Ports]) -> None:
        """Take the steps of all knocks, and the ports that are opened or allowed."""
        self._ranges: Dict[str, List[Tuple[int, int]]] = {protocol: [] for protocol in PROTOCOLS}
        for step in steps:
            self._ranges[step.protocol].append((step.port, step.port))
        for each in ports:
            self._ranges[each.protocol].append((each.first, each.last))
        self._merged: Dict[Tuple[str, ...], Ranges] = {}

    def first_loud(self, low: int, high: int, protocols: Iterable[str]) -> Optional[int]:
        """Return the first port from low to high that resets progress under every one of protocols, or None."""
        key = tuple(sorted(protocols))
        if key not in self._merged:
            self._merged[key] = Ranges(item for protocol in key for item in self._ranges[protocol])
        return self._merged[key].first_outside(low, high)


def silent_ports(doors: Iterable[Any], allow: Iterable[Allow]) -> SilentPorts:
    """Return the SilentPorts of doors, as they were asked for or read back, and of allowed ports."""
    doors = tuple(doors)
    steps = [step for door in doors for step in door.knock + door.close]
    ports = [ports for door in doors for ports in door.opens] + [each.ports for each in allow]
    return SilentPorts(steps, ports)


def guard_port(steps: Steps, silent: SilentPorts) -> Optional[int]:
    """Return a port that every linear scan of rising or falling steps hits between two of them, or None.

    None also where no such port is needed: the steps neither only rise nor only fall.
    """
    protocols = {step.protocol for step in steps}
    ports = [step.port for step in steps]
    for ordered in (ports, ports[::-1]):
        if ordered == sorted(ordered):
            for low, high in zip(ordered, ordered[1:]):
                found = silent.first_loud(low + 1, high - 1, protocols)
                if found is not None:
                    return found
    return None


def scan_opens(steps: Steps, silent: SilentPorts) -> bool:
    """Return whether a scan of all ports, upwards or downwards, once or twice in a row, takes every step.

    A second pass begins where the first began, so 65535 counts as next to 1.
    """
    protocols = {step.protocol for step in steps}
    ports = [step.port for step in steps]
    upwards = zip(ports, ports[1:])
    downwards = zip([-port for port in ports], [-port for port in ports[1:]])
    return all(_no_reset(low, high, silent, protocols) for low, high in upwards) or all(
        _no_reset(-low, -high, silent, protocols, down=True) for low, high in downwards
    )


def _no_reset(start: int, end: int, silent: SilentPorts, protocols: Iterable[str], down: bool = False) -> bool:
    low, high = (end, start) if down else (start, end)
    if low <= high:
        return silent.first_loud(low + 1, high - 1, protocols) is None
    return silent.first_loud(low + 1, 65535, protocols) is None and silent.first_loud(1, high - 1, protocols) is None


def is_subsequence(steps: Steps, of: Steps) -> bool:
    """Return whether all steps come in their order somewhere in ``of``."""
    rest = iter(of)
    return all(step in rest for step in steps)


def _check_clashes(doors: Sequence[Door], path: str) -> None:
    """Refuse a knock that is part of another, in order: whoever knocks the longer one opens both.

    Sequences that share no first step cannot contain each other, so they are compared only through an
    index of their last steps; this keeps a thousand doors quick.
    """
    sequences = sequences_of(doors)
    by_step: Dict[Step, List[int]] = {}
    for number, (_index, _key, steps) in enumerate(sequences):
        for step in set(steps):
            by_step.setdefault(step, []).append(number)
    for number, (_index, key, steps) in enumerate(sequences):
        for other in by_step[steps[0]]:
            if other == number or (key == "close" and sequences[other][1] == "close"):
                continue
            if is_subsequence(steps, sequences[other][2]):
                _refuse_clash(path, sequences[number], sequences[other], doors)


def _refuse_clash(path: str, short: KnockSequence, long: KnockSequence, doors: Sequence[Door]) -> None:
    effect = "close" if short[1] == "close" else "open"
    raise SpecError(
        f"{path}[{long[0]}].{long[1]}",
        f"has all steps of {path}[{short[0]}].{short[1]} in their order, so it would {effect} door {doors[short[0]].name!r} as well. "
        "Choose other ports for one of the two.",
    )


__all__ = ("SilentPorts", "check_first_steps", "check_sequences", "guard_port", "sequences_of", "silent_ports")
