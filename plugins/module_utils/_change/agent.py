# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent that undoes an unconfirmed change: a program of its own on the host, started outside the ssh session.

Where systemd runs, a transient timer waits and a transient service rolls back: no session, no parent and no kill of
anything of ours ends a timer of PID 1. Elsewhere a process waits that has left its session and its parents behind.
The program is this collection's own code as a zip file in /run, because the files of a module are gone once it ends.
"""

import os
import select
import shlex
import sys
from typing import Any, List

from ansible_collections.sesame.portknock.plugins.module_utils._change.archive import archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import Record
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Files
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import GUARD_UNIT as UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._paths import PROGRAM, RUN

_START_SECONDS = 15
_COMMAND = """#!/bin/sh
# Written by sesame.portknock. {what}
exec {program} {verb} "$@"
"""
_COMMANDS = {
    "confirm": "Keeps the change of the knock ruleset that is pending.",
    "rollback": "Undoes the change of the knock ruleset that is pending.",
    "status": "Tells which change of the knock ruleset is pending, or how the last one ended.",
    "tidy": "Removes this directory, unless a change is pending.",
}


class Agent:
    """Arms and disarms."""

    def __init__(self, host: Any, program: str = "") -> None:
        """Take a Host, and the name of the module whose main() the agent runs; without it nothing can be armed."""
        self._host, self._program = host, program

    def arm(self, record: Record, timeout: int) -> str:
        """Make sure that a change is rolled back after some seconds, whatever becomes of this process.

        :param timeout: the seconds.
        :returns: ``systemd`` or ``process``.
        :raises HostError: if nothing can be armed.
        """
        program = [sys.executable or "/usr/bin/python3", "-I", "-S", "-B", PROGRAM]
        self._host.filesystem.replace_bytes(PROGRAM, archive(self._program))
        self._host.filesystem.replace_files(_scripts(program))
        if (
            self._host.systemd.runs()
            and self._host.command.find("systemd-run")
            and self._arm_unit(program, record, timeout)
        ):
            return "systemd"
        _detach(program + ["wait", record.id])
        return "process"

    def _arm_unit(self, program: List[str], record: Record, timeout: int) -> bool:
        words = [
            self._host.command.find("systemd-run"),
            "--quiet",
            "--collect",
            "--unit=" + UNIT,
            "--description=Port knocking: undoes an unconfirmed change of the ruleset",
            f"--on-active={timeout}s",
            "--timer-property=AccuracySec=10ms",
            "--property=Restart=on-failure",
            "--property=RestartSec=1",
            "--property=StartLimitIntervalSec=0",
        ]
        # Else the change of a target (systemctl isolate) takes the timer away; not every release takes it here.
        lasting = ["--timer-property=IgnoreOnIsolate=yes", "--property=IgnoreOnIsolate=yes"]
        command = program + ["rollback", "--deadline", record.id]
        for more in (lasting, lasting, []):
            if self._host.command.run(words + more + command)[0] == 0:
                return True
            # A unit of an earlier change that failed would keep the name.
            self._host.systemd.call("stop", UNIT + ".timer", UNIT + ".service")
            self._host.systemd.call("reset-failed", UNIT + ".service")
        return False

    def disarm(self, record: Record) -> None:
        """Take the timer away; a waiting process notices by itself that its change is no longer pending."""
        if record.agent == "systemd":
            self._host.systemd.call("stop", UNIT + ".timer")


def _scripts(program: List[str]) -> Files:
    words = " ".join(shlex.quote(word) for word in program)
    return {
        f"{RUN}/{verb}": (_COMMAND.format(what=what, program=words, verb=verb), 0o700)
        for verb, what in _COMMANDS.items()
    }


def _detach(words: List[str]) -> None:
    """Start a program that survives the session it was started from, and wait until it says that it runs.

    :raises HostError: if it does not within some seconds.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _become(words, writer)
    os.close(writer)
    os.waitpid(child, 0)
    ready, _writers, _errors = select.select([reader], [], [], _START_SECONDS)
    said = os.read(reader, 16) if ready else b""
    os.close(reader)
    if not said.startswith(b"armed"):
        raise HostError("the process that would undo the change does not start, so nothing was changed.")


def _become(words: List[str], writer: int) -> None:
    """In the child: leave the session, lose the parent, close what the ssh session waits for, and run."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 2):
            os.dup2(null, number)
        os.dup2(writer, 1)
        os.closerange(3, 4096)
        os.execv(words[0], words)
    finally:
        os._exit(1)


__all__ = ("PROGRAM", "UNIT", "Agent")
