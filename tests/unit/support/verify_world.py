# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose doors work, as the observer of knock_verify sees it."""

import random
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple, Type

from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import OPEN
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import HostAddress
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import Context
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.observe import Observer
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.table import rows
from knockd_attempts import Knockd

ICMP = {"ipv4": "icmp 3/3", "ipv6": "icmp 1/4"}
V4 = HostAddress("ipv4", "192.0.2.1", True, "192.0.2.7", "eth0", "")
V6 = HostAddress("ipv6", "2001:db8::1", False, "2001:db8::7", "eth0", "")
SSH = {"name": "ssh", "knock": ["7000", "9100/udp", "3100"], "opens": ["22"], "window": 15}
WEB = {"name": "web", "knock": ["7500", "2500"], "opens": ["8000-8010", "443"], "window": 30}
DNS = {"name": "dns", "knock": ["7600", "2600"], "opens": ["53/udp"], "window": 15}


def spec_of(*doors: Dict[str, Any], **options: Any) -> Spec:
    return spec_from_options(dict({"doors": list(doors or (SSH,))}, **options))


COUNTED = {"name": "ssh", "ip_version": "ipv4", "knocked": 4, "let_in": 9, "open_for": {}}
TOLD = {"doors": [COUNTED], "drift": [], "ip_versions": ["ipv4", "ipv6"], "pending": {}}


class World:
    """A host whose doors work, and the clock; it writes down all that reaches it."""

    def __init__(self, spec: Spec, places: Sequence[HostAddress], broken: Sequence[str] = ()) -> None:
        self.spec, self.clock = spec, 100.0
        self.log: List[Tuple[Any, ...]] = []
        self.until: Dict[Tuple[Door, str], float] = {}
        self._broken = broken
        self._families = {place.address: place.family for place in places}

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.log.append(("sleep", round(max(0, seconds), 3)))
        self.clock += max(0, seconds)

    def knock(self, addresses: Sequence[str], steps: Sequence[Any]) -> None:
        self.clock += 0.1 * len(steps)
        name = "?"
        for door in self.spec.doors:
            if tuple(steps) == door.knock:
                name = door.name
                if "deaf" not in self._broken:
                    self.until.update({(door, address): self.clock + door.window for address in addresses})
            if tuple(steps) == door.close:
                name = "close " + door.name
                if "deaf to one close" in self._broken:
                    self._broken = ()
                    continue
                for address in addresses:
                    self.until.pop((door, address), None)
        self.log.append(("knock", name, len(addresses)))

    def probe(self, targets: Iterable[Tuple[str, int, str]]) -> Dict[Tuple[str, int, str], str]:
        self.clock += 0.01
        self.log.append(("probe", len(set(targets))))
        return {target: self._answer(*target) for target in targets}

    def _answer(self, address: str, port: int, protocol: str) -> str:
        for allow in self.spec.allow:
            if allow.ports.first <= port <= allow.ports.last:
                return OPEN
        for door in self.spec.doors:
            if any(each.first <= port <= each.last and each.protocol == protocol for each in door.opens):
                until = self.until.get((door, address), 0)
                if door.once and "reused" not in self._broken:
                    self.until.pop((door, address), None)
                if self.clock <= until or "void" in self._broken:
                    return OPEN
        return ICMP[self._families[address]]


def nobody(*_door: str) -> int:
    """Nobody has any door open."""
    return 0


class KnockdWorld(World):
    """A host where knockd hears the knocks."""

    def __init__(self, spec: Spec, places: Sequence[HostAddress], broken: Sequence[str] = ()) -> None:
        super().__init__(spec, places, broken)
        sequences = [steps for door in spec.doors for steps in (door.knock, door.close) if steps]
        self._daemons = {place.address: Knockd(*sequences) for place in places}

    def knock(self, addresses: Sequence[str], steps: Sequence[Any]) -> None:
        self.clock += 0.1 * len(steps)
        self.log.append(("knock", len(steps), len(addresses)))
        for address in addresses if "deaf" not in self._broken else ():
            daemon = self._daemons[address]
            daemon.opened.clear()
            for step in steps:
                daemon.hear(step)
            for door in self.spec.doors:
                if door.close in daemon.opened:
                    self.until.pop((door, address), None)
                if door.knock in daemon.opened:
                    self.until[door, address] = self.clock + door.window


def observed(
    *doors: Dict[str, Any],
    places: Sequence[HostAddress] = (V4, V6),
    broken: Sequence[str] = (),
    longest: int = 30,
    left: Callable[[str, str], float] = nobody,
    before: Sequence[str] = (),
    kind: Type[World] = World,
    **options: Any,
) -> Tuple[World, Dict[Tuple[str, str], Tuple[str, str]], float]:
    spec = spec_of(*doors, **options)
    world = kind(spec, places, broken)
    for door in spec.doors:
        if door.name in before:
            world.until.update({(door, place.address): world.clock + door.window for place in places})
    begun = world.clock
    seen = Observer(spec, places, world, longest, left, random.Random(1).randint).run()
    context = Context(spec, {place.family: place for place in places}, dict(TOLD, doors=[]), {}, longest)
    found = {(row["what"], row["ip_version"]): (row["state"], row["note"]) for row in rows(seen, context)}
    return world, found, world.clock - begun
