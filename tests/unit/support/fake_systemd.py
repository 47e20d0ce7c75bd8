# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd and the lock of a host in memory."""

from typing import TYPE_CHECKING, ContextManager, Dict, Iterable, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import UnitState
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UNIT_NAME

if TYPE_CHECKING:
    from fake_host import FakeHost

KNOCKD = "knockd.service"
NOT_THERE = UnitState(False, False, False, False)
ENABLED = UnitState(True, False, True, False)
RUNNING = UnitState(True, True, True, False)
LOADERS = ("netfilter-persistent", "iptables", "ip6tables")
"""Services that load the rules at boot."""


class FakeLock:
    """The lock of a FakeHost; tests replace what it does."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def hold(self, seconds: float = 30) -> ContextManager[None]:
        return self._host.hold_lock(seconds)

    def holder(self) -> Optional[int]:
        return self._host.lock_holder()


class FakeSystemd:
    """systemd of a FakeHost: our own unit, and knockd's."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def runs(self) -> bool:
        return self._host.runs_systemd

    def states(self, *services: str) -> Dict[str, UnitState]:
        self._host._alive()
        return {name: self._host.units.get(name, NOT_THERE) for name in services}

    def call(self, verb: str, *units: str) -> int:
        return self._host.run(["/usr/bin/systemctl", verb] + list(units), "")[0]

    def service(self, verb: str, *units: str, must: bool = True) -> None:
        self._host.service(verb, *units, must=must)

    def is_enabled(self, unit: str) -> bool:
        assert unit == UNIT_NAME
        return self._host.unit

    is_ready = is_enabled

    def enable(self, unit: str) -> None:
        assert unit == UNIT_NAME
        self._host._change("enable_unit")
        if self._host.unit_refuses:
            raise HostError("systemctl restart portknock.service failed: no")
        self._host.unit = True

    def disable(self, unit: str) -> None:
        assert unit == UNIT_NAME
        if self._host.unit:
            self._host._change("disable_unit")
            self._host.unit = False

    def reload(self) -> None:
        if self._host.runs_systemd:
            self.service("daemon-reload")

    def is_wanted(self, unit: str) -> bool:
        return unit in self._host.wants

    def in_use(self, names: Iterable[str]) -> List[str]:
        return [name for name in names if name in self._host.services]

    def add_wants(self, unit: str) -> None:
        if self._host.runs_systemd:
            self._host._change("enable", unit)
            self._host.wants.add(unit)

    def remove_wants(self, unit: str) -> None:
        if unit in self._host.wants:
            self._host._change("disable", unit)
            self._host.wants.discard(unit)

    def main_process(self, unit: str) -> Optional[int]:
        self._host._alive()
        assert unit == KNOCKD, unit
        if not self._host.runs_systemd or self._host.daemon is None:
            return None
        return 0 if self._host.daemon_dies else 4711
