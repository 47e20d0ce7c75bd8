# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd of a host, where it runs."""

import glob
import os
from typing import Iterable, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command, Result
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UNITS, WANTED_UNITS


class Systemd:
    """Units of a host."""

    def __init__(self, command: Command, filesystem: Filesystem) -> None:
        """Take the host's commands and files."""
        self._command, self._filesystem = command, filesystem

    def runs(self) -> bool:
        """Return whether systemd is what runs services here."""
        return os.path.isdir("/run/systemd/system") and bool(self._command.find("systemctl"))

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
        return self._command.run([self._command.find("systemctl") or "systemctl", verb, *units])


__all__ = ("Systemd",)
