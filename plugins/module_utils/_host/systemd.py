# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd of a host, where it runs."""

import glob
import os
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command, Result
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UNITS, WANTED_UNITS


class UnitState(NamedTuple):
    """How a unit is."""

    present: bool
    """Whether it is installed."""
    active: bool
    """Whether it runs, or is just starting."""
    enabled: bool
    """Whether a boot starts it."""
    masked: bool
    """Whether nothing can start it."""


STATE_PROPERTIES = ("-p", "LoadState", "-p", "ActiveState", "-p", "UnitFileState")
"""What ``systemctl show`` is asked for."""

LIMIT = 300
"""Seconds that systemctl may take: a service has 90 to stop and 90 to start, unless its unit says otherwise.

Some units have no limit at all, and whoever waits for one has the lock of the host, also while a change is undone.
"""
_TIMED_OUT = (124, 137, -9)
"""Exit codes of ``timeout``: what it ran had to be ended, by the first signal or by the one that none survives, itself included."""


def parse_states(text: str, names: Sequence[str]) -> Dict[str, UnitState]:
    """Return the state of each unit; one that systemd says nothing of is not there.

    :param text: what ``systemctl show`` prints: in the order of the question, a blank line between two units.
    """
    blocks = [
        {name: value for name, _equals, value in (line.partition("=") for line in block.splitlines())}
        for block in text.strip().split("\n\n")
    ]
    blocks += [{}] * (len(names) - len(blocks))
    return {name: _state(fields) for name, fields in zip(names, blocks)}


def _state(fields: Dict[str, str]) -> UnitState:
    return UnitState(
        present=fields.get("LoadState", "not-found") not in ("not-found", "masked"),
        active=fields.get("ActiveState") in ("active", "activating", "reloading"),
        enabled=fields.get("UnitFileState", "").startswith("enabled"),
        masked=fields.get("LoadState") == "masked",
    )


class Systemd:
    """Units of a host."""

    def __init__(self, command: Command, filesystem: Filesystem) -> None:
        """Take the host's commands and files."""
        self._command, self._filesystem = command, filesystem

    def runs(self) -> bool:
        """Return whether systemd is what runs services here."""
        return os.path.isdir("/run/systemd/system") and bool(self._command.find("systemctl"))

    def states(self, *services: str) -> Dict[str, UnitState]:
        """Return the state of services, by their names without the suffix, all of them asked for at once."""
        if not self.runs():
            return parse_states("", services)
        names = [f"{name}.service" for name in services]
        return parse_states(self._systemctl("show", *STATE_PROPERTIES, *names)[1], services)

    def call(self, verb: str, *units: str) -> int:
        """Run systemctl and return its exit code; what it says is of no interest."""
        return self._systemctl(verb, *units)[0]

    def service(self, verb: str, *units: str, must: bool = True) -> None:
        """Run systemctl where systemd runs.

        :param must: whether it has to succeed.
        :raises HostError: with what it said.
        """
        if self.runs():
            self._do(verb, *units, must=must)

    def is_wanted(self, unit: str) -> bool:
        """Return whether a unit is started at boot."""
        return bool(glob.glob(f"{UNITS}/*.wants/{unit}"))

    def in_use(self, names: Iterable[str]) -> List[str]:
        """Return those services that run, or that a boot starts, be it with an init script; without asking systemd."""
        return [
            name
            for name in names
            if self.is_wanted(f"{name}.service")
            or glob.glob(f"/etc/rc[2-5S].d/S[0-9][0-9]{name}")
            or os.path.lexists(f"/run/systemd/units/invocation:{name}.service")
        ]

    def add_wants(self, unit: str) -> None:
        """Have a unit started at boot.

        Not with "systemctl enable": that changes the links of a service's old init script as well, for good.
        """
        self.service("add-wants", "multi-user.target", unit)

    def remove_wants(self, unit: str) -> None:
        """Have a unit no longer started at boot."""
        for link in glob.glob(f"{UNITS}/*.wants/{unit}"):
            self._filesystem.remove(link)

    def main_process(self, unit: str) -> Optional[int]:
        """Return the main process of a unit that runs or is about to, 0 where that is not known, None where it does not."""
        if not self.runs():
            return None
        out = self._systemctl("show", "-p", "ActiveState", "-p", "MainPID", unit)[1]
        facts = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if facts.get("ActiveState") not in ("active", "activating", "reloading"):
            return None
        return int(facts.get("MainPID") or 0)

    def is_enabled(self, unit: str) -> bool:
        """Return whether a unit of the collection is enabled."""
        return os.path.lexists(f"{WANTED_UNITS}/{unit}")

    def is_ready(self, unit: str) -> bool:
        """Return whether a unit of the collection is enabled and, where systemd runs, was started and is well."""
        if not os.path.islink(f"{WANTED_UNITS}/{unit}"):
            return False
        return not self.runs() or self.call("is-active", "--quiet", unit) == 0

    def enable(self, unit: str) -> None:
        """Enable a unit of the collection and, where systemd runs, run it.

        :raises HostError: with what systemctl said.
        """
        self.service("daemon-reload")
        self._do("enable", unit)
        self.service("restart", unit)

    def disable(self, unit: str) -> None:
        """Stop and disable a unit of the collection, before its file goes.

        :raises HostError: with what systemctl said.
        """
        if self.is_enabled(unit):
            self.service("stop", unit)
            self._do("disable", unit)
            self.service("reset-failed", unit, must=False)

    def reload(self) -> None:
        """Have systemd read its units again.

        :raises HostError: with what systemctl said.
        """
        self.service("daemon-reload")

    def _do(self, verb: str, *units: str, must: bool = True) -> None:
        if not self._command.find("systemctl"):
            return
        code, _out, err = self._systemctl(verb, *units)
        if code and must:
            raise HostError("systemctl {} {} failed: {}".format(verb, " ".join(units), err.strip()))

    def _systemctl(self, verb: str, *units: str) -> Result:
        words = [self._command.find("systemctl") or "systemctl", verb, *units]
        timeout = self._command.find("timeout")
        code, out, err = self._command.run([timeout, "-k", "5", str(LIMIT), *words] if timeout else words)
        if timeout and code in _TIMED_OUT:
            err = f"it did not end within {LIMIT} s. 'systemctl list-jobs' shows what it waits for."
        return code, out, err


__all__ = ("LIMIT", "STATE_PROPERTIES", "Systemd", "UnitState", "parse_states")
