# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a host's doors from outside: the one part of verify that sends and waits, behind a seam.

No observation holds a step of a knock. PRIVATE to the
collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ansible_collections.sesame.portknock.plugins.module_utils._client import half_open
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    ENGINES,
    PAUSE,
    KnockError,
    Steps,
    send_knock,
    settle_of,
    steps_of_turn,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import Target, probe
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import HostAddress, may_use
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.answers import is_open

SLACK = 1.0
"""Seconds after a window's end until it is checked that the door is closed: the kernel counts in whole ticks."""

PORTS_OF_A_DOOR = 4
REST_PORTS = 3
"""How many ports that no option names are looked at: one of them may be let in by a rule of the administrator's."""

Pair = tuple[Door, HostAddress]
Chooser = Callable[[int, int], int]
"""Returns a random number from a low to a high one."""


def ports_of(ranges: Iterable[Ports], only_tcp: bool = True) -> tuple[tuple[int, str], ...]:
    """Return some (port, protocol) of ranges of ports: the ends of each; TCP alone where there is any, as it tells more."""
    found = [(port, each.protocol) for each in ranges for port in dict.fromkeys((each.first, each.last))]
    tcp = [pair for pair in found if pair[1] == "tcp"]
    return tuple((tcp if only_tcp and tcp else found)[:PORTS_OF_A_DOOR])


def ports_of_door(door: Door) -> tuple[tuple[int, str], ...]:
    """Return the ports of a door that are looked at: one of a door that a single connection closes."""
    return ports_of(door.here)[:1] if door.once else ports_of(door.here)


def is_free(spec: Spec, port: int) -> bool:
    """Return whether no door and no exception names a port, over either protocol."""
    ranges = [each for door in spec.doors for each in door.opens] + [allow.ports for allow in spec.allow]
    steps = {step.port for door in spec.doors for step in door.knock + door.close}
    return port not in steps and not any(each.first <= port <= each.last for each in ranges)


def free_ports(spec: Spec, count: int, chooser: Chooser) -> tuple[int, ...]:
    """Return so many ports that no door and no exception names, fewer where there are not so many."""
    found: list[int] = []
    for _turn in range(10000):
        port = chooser(20000, 60999)
        if port not in found and is_free(spec, port):
            found.append(port)
        if len(found) == count:
            break
    return tuple(found)


def wrong_knock(door: Door, port: int) -> tuple[Any, ...]:
    """Return a door's knock with another port, which no option may name, in place of the last step."""
    last = door.knock[-1]
    return door.knock[:-1] + (last._replace(port=port),)


class Network(Protocol):
    """What looking needs: to send, to look and to wait."""

    def knock(self, addresses: Sequence[str], steps: Steps) -> None:
        """Send a knock to the addresses."""

    def probe(self, targets: Iterable[Target]) -> dict[Target, str]:
        """Return target to what became of it."""

    def now(self) -> float:
        """Return seconds that only go up."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class RealNetwork:
    """Packets from this machine, and its clock."""

    def __init__(self, engine: str, pause: float = PAUSE, source: str = "") -> None:
        """Take what recognises the knocks, the seconds between two steps, and the address to send from."""
        self._settle, self._pause, self._source = settle_of(engine), pause, source

    def knock(self, addresses: Sequence[str], steps: Steps) -> None:
        """Send a knock to the addresses; where there is no route to any of them, looking shows it."""
        with contextlib.suppress(KnockError):
            send_knock(addresses, steps, self._pause, self._source, settle=self._settle)

    def probe(self, targets: Iterable[Target]) -> dict[Target, str]:
        """Return target to what became of it."""
        return probe(targets, source=self._source, half_open=half_open)

    def now(self) -> float:
        """Return seconds that only go up."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(max(0, seconds))


class Observer:
    """Looks at all doors of a host in as little time as their windows allow: the windows run side by side."""

    def __init__(
        self,
        spec: Spec,
        addresses: Sequence[HostAddress],
        network: Network,
        longest_wait: float,
        seconds_open: Callable[[str, str], float],
        chooser: Chooser,
    ) -> None:
        """Take what was asked for and where to look.

        :param addresses: those that can be looked at.
        :param longest_wait: seconds; a longer window is not waited for.
        :param seconds_open: function of a door's name and family: for how long the host has it open for any source, or 0.
        """
        self._spec, self._addresses, self._network = spec, addresses, network
        # Hosts behind are not looked at: whether they can be reached from here, nothing tells.
        self._doors = [door for door in spec.doors if door.here]
        self._longest_wait, self._seconds_open, self._chooser = longest_wait, seconds_open, chooser
        self._seen: dict[tuple[str, str], dict[str, Any]] = {
            (door.name, address.family): {} for door in self._doors for address in addresses
        }
        # What is still to be knocked at.
        self._closed = [(door, address) for door in self._doors for address in addresses]

    def run(self) -> dict[str, Any]:
        """Return what was seen: door to family to observation, and the same for exceptions and for all the rest."""
        allowed, rest = self._look_around()
        self._wait_for_openings()
        self._knock_wrongly()
        ends = self._knock_rightly() if self._closed else {}
        self._look_after(ends)
        doors = [
            dict(door=door.name, family=address.family, **self._seen[door.name, address.family])
            for door in self._doors
            for address in self._addresses
        ]
        return dict(doors=doors, allow=allowed, rest=rest)

    def _look(self, key: str, pairs: Sequence[Pair]) -> list[Pair]:
        """Look at the doors' ports and write down what was seen under a name; return the pairs that are not let in."""
        return self._write_down(key, pairs, self._network.probe(_door_targets(pairs)))

    def _write_down(self, key: str, pairs: Sequence[Pair], found: dict[Target, str]) -> list[Pair]:
        closed = []
        for door, address in pairs:
            answers = {_name(target): found[target] for target in _targets(ports_of_door(door), address)}
            self._note(door, address, **{key: answers})
            if not self._is_open(door, address, key):
                closed.append((door, address))
        return closed

    def _note(self, door: Door, address: HostAddress, **what: Any) -> None:
        self._seen[door.name, address.family].update(what)

    def _is_open(self, door: Door, address: HostAddress, key: str) -> bool:
        return is_open(self._seen[door.name, address.family], key, self._spec.reject_with)

    def _look_around(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Look at everything before the first knock."""
        free = free_ports(self._spec, REST_PORTS, self._chooser) if self._spec.policy == "reject" else ()
        rest = {(address, port): (address.address, port, "tcp") for address in self._addresses for port in free}
        allow = {
            (address, index): _targets(ports_of((each.ports,)), address)
            for address in self._addresses
            for index, each in enumerate(self._spec.allow)
        }
        more = list(rest.values()) + [target for targets in allow.values() for target in targets]
        found = self._network.probe(_door_targets(self._closed) + more)
        self._closed = self._write_down("first", self._closed, found)
        allowed = [
            dict(index=index, family=address.family, answers={_name(target): found[target] for target in targets})
            for (address, index), targets in allow.items()
        ]
        others = [
            dict(family=address.family, answers={
                str(port): found[target] for (its, port), target in rest.items() if its == address})
            for address in self._addresses if free
        ]  # fmt: skip
        return allowed, others

    def _wait_for_openings(self) -> None:
        """Wait for doors that are open because a knock came from here before, and look again."""
        pairs = [(door, address) for door in self._doors for address in self._addresses]
        early = [pair for pair in pairs if pair not in self._closed]
        early = self._close(early)
        waits = {pair: self._wait_of(*pair) for pair in early}
        for door, address in [pair for pair, seconds in waits.items() if seconds is None]:
            self._note(door, address, waited="no")
        bounded = {pair: seconds for pair, seconds in waits.items() if seconds is not None}
        if bounded:
            self._network.sleep(max(bounded.values()))
            self._closed += self._look("second", list(bounded))

    def _close(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Close what has a close knock, which saves the wait; return what is still open."""
        groups = [(door, group) for door, group in _by_door(pairs) if door.close]
        for door, group in groups:
            self._network.knock([address.address for address in group], door.close)
        tried = [(door, address) for door, group in groups for address in group]
        closed = self._look("second", tried) if tried else []
        self._closed += closed
        return [pair for pair in pairs if pair not in closed]

    def _wait_of(self, door: Door, address: HostAddress) -> float | None:
        """Return the seconds until a door must be closed again, None if that is too long."""
        if door.once:
            # Having looked has used it up.
            return 0
        # Another source may have knocked last; no window is longer than the door's.
        seconds = min(self._seconds_open(door.name, address.family) or door.window, door.window)
        return seconds + SLACK if seconds <= self._longest_wait else None

    def _knock_wrongly(self) -> None:
        groups = _by_door(self._closed)
        free = free_ports(self._spec, 1, self._chooser)
        for door, group in groups if free else ():
            self._network.knock([address.address for address in group], wrong_knock(door, free[0]))
        self._closed = self._look("wrong", self._closed)

    def _knock_rightly(self) -> dict[Pair, float]:
        """Knock at one door after the other, the longest window first; return pair to when it must be closed again."""
        ends = {}
        groups = sorted(_by_door(self._closed), key=lambda item: -min(item[0].window, self._longest_wait))
        for door, group in groups:
            opened = self._open(door, group)
            if door.once and opened:
                self._look("again", [(door, address) for address in opened])
            if door.close and opened:
                self._network.knock([address.address for address in opened], door.close)
                self._look("closed", [(door, address) for address in opened])
            if door.window > self._longest_wait:
                continue
            if (door.once or door.close) and opened:
                # What follows would be seen closed anyway, if it were not opened again.
                self._network.knock([address.address for address in opened], door.knock)
                if not door.once:
                    self._look("reopened", [(door, address) for address in opened])
            ends.update({(door, address): self._network.now() + door.window + SLACK for address in opened})
        return ends

    def _open(self, door: Door, group: Sequence[HostAddress]) -> list[HostAddress]:
        """Knock until the door is open or enough was tried; return the addresses where it opened."""
        left, opened = list(group), []
        # What a wrong port does not break off, a new knock must end first.
        steps = steps_of_turn(door.knock, 1, self._spec.engine)
        traits = ENGINES[self._spec.engine]
        for turn in range(traits.verify_knocks):
            self._network.knock([address.address for address in left], steps)
            closed = [address for _door, address in self._look("right", [(door, address) for address in left])]
            for address in left:
                self._note(door, address, tries=turn + 1)
            opened += [address for address in left if address not in closed]
            # A controller that may not knock is refused once, not three times. Nor is UDP asked until it answers, but where
            # broken knocks are kept, the first right one may only have ended what was left.
            worthwhile = ports_of_door(door)[0][1] == "tcp" or traits.keeps_broken_knocks
            left = [address for address in closed if may_use(door.sources, address) and worthwhile]
            if not left:
                break
        return opened + [address for address in group if address not in opened and ports_of_door(door)[0][1] == "udp"]

    def _look_after(self, ends: dict[Pair, float]) -> None:
        windows = sorted({door.window for door, _place in ends})
        for window in windows:
            pairs = [pair for pair in ends if pair[0].window == window]
            self._network.sleep(max(ends[pair] for pair in pairs) - self._network.now())
            self._look("later", pairs)


def _by_door(pairs: Iterable[Pair]) -> list[tuple[Door, list[HostAddress]]]:
    groups: dict[Door, list[HostAddress]] = {}
    for door, address in pairs:
        groups.setdefault(door, []).append(address)
    return list(groups.items())


def _door_targets(pairs: Iterable[Pair]) -> list[Target]:
    return [target for door, address in pairs for target in _targets(ports_of_door(door), address)]


def _targets(ports: Iterable[tuple[int, str]], address: HostAddress) -> list[Target]:
    return [(address.address, port, protocol) for port, protocol in ports]


def _name(target: Target) -> str:
    return f"{target[1]}/{target[2]}"
