# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent that undoes an unconfirmed change: a program of its own on the host, started outside the ssh session.

Where systemd runs, a transient timer waits and a transient service rolls back: no session, no parent and no kill of
anything of ours ends a timer of PID 1. Elsewhere, and beside the timer, a process waits that has left its session and its
parents behind: a timer can be stopped, lose its unit file, or wait for a PID 1 that hangs. Whichever comes first has the lock.
The program is this collection's own code as a zip file in /run, because the files of a module are gone once it ends. A second
copy lies on the disk: for when /run is emptied, and for the next boot, which undoes what was saved meanwhile. Where no
Python runs it any more, a few commands of sh, which are in the unit itself, let everybody in again.
"""

import contextlib
import json
import os
import select
import shlex
import sys
from typing import Any, List, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._change.archive import archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import ROLLED_BACK, Record, Store
from ansible_collections.sesame.portknock.plugins.module_utils._engine import EMPTIED, Files
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import GUARD_UNIT as UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    LAST,
    LATE_UNDO_UNIT,
    LOCK,
    LOCK_DIRECTORY,
    PROGRAM,
    RUN,
    SPARE_PROGRAM,
    SPARE_RECORD,
    SPARE_UNDO,
    UNDO_UNIT,
    UNDO_UNIT_NAME,
    UNDO_WANTS,
    UNDONE_RECORD,
)

_START_SECONDS = 15
_LOCK_SECONDS = 10
"""For which the last way waits for another process that undoes."""
_FORMER_SCRIPTS = ("confirm", "rollback", "status", "tidy")
"""What earlier releases left beside the program."""


_UNDO_UNIT_TEXT = f"""# Written by sesame.portknock; it goes when the pending change is confirmed or rolled back.
[Unit]
Description=Port knocking: undoes a change of the ruleset that was not confirmed before the host was restarted
DefaultDependencies=no
ConditionPathExists={SPARE_RECORD}
After=local-fs.target systemd-modules-load.service
After=netfilter-persistent.service iptables.service ip6tables.service nftables.service firewalld.service ufw.service
After=portknock.service
Wants=network-pre.target
Before=network-pre.target shutdown.target ssh.service sshd.service
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh {SPARE_UNDO}
"""
"""Behind whatever loads rules, in front of whatever opens a port."""


_LATEST_UNITS = "multi-user.target rc-local.service cloud-final.service"


class Agent:
    """Arms and disarms."""

    def __init__(self, host: Any, program: str = "") -> None:
        """Take a Host, and the name of the module whose main() the agent runs; without it nothing can be armed."""
        self._host, self._program = host, program

    def arm(self, record: Record, timeout: int, last_way: Sequence[str] = (), last_look: Sequence[str] = ()) -> str:
        """Make sure that a change is rolled back after some seconds, whatever becomes of this process.

        :param timeout: the seconds.
        :param last_way: commands for sh, for when the program cannot run.
        :param last_look: commands for sh that succeed only if nothing is refused any more then.
        :returns: ``systemd``, a timer beside which a process waits as well, or ``process``, which waits alone.
        :raises HostError: if nothing can be armed.
        """
        # The controller reads in the first line by what Python it is run.
        data = archive(self._program, f"#!{_python()} -ISB\n")
        last = [*last_way, *_word_of_last_way(record, last_look)]
        self._host.filesystem.replace_bytes(PROGRAM, data)
        self._remove_former_scripts()
        runs = self._host.systemd.runs()
        # As with the record's copy: a disk that takes no file takes no ruleset either.
        with contextlib.suppress(HostError):
            self._host.filesystem.replace_bytes(SPARE_PROGRAM, data)
            self._host.filesystem.replace_files(_boot_files(record, last) if runs else {})
        waiting = python_words(PROGRAM) + ["wait", record.id]
        if runs and self._host.command.find("systemd-run") and self._arm_unit(record, timeout, last):
            # It has everything loaded, so it also undoes what the timer's program, started at the deadline, could not.
            with contextlib.suppress(OSError):
                detach(waiting, must_answer=False)
            return "systemd"
        detach(waiting)
        return "process"

    def look_again(self, record: Record) -> None:
        """Look once more when the boot is done at a change that is undone early in it: what loads rules late may bring it back."""
        self.put_back()
        words = ["--quiet", "--collect", "--no-block", f"--unit={LATE_UNDO_UNIT}", f"--property=After={_LATEST_UNITS}"]
        # The boot is not done, for whoever waits for that, before this has ended.
        words.append("--service-type=oneshot")
        with contextlib.suppress(HostError):
            self._host.filesystem.replace_files({UNDONE_RECORD: (json.dumps(record._asdict()), 0o600)})
            run = self._host.command.find("systemd-run")
            if run:
                self._host.command.run([run, *words, *python_words(PROGRAM), "boot-again", record.id])

    def put_back(self) -> None:
        """Have the program in /run again if it was removed: the controller asks it how a change ended."""
        filesystem = self._host.filesystem
        with contextlib.suppress(HostError, OSError):
            if filesystem.mode(PROGRAM) is None and filesystem.mode(SPARE_PROGRAM) is not None:
                with open(SPARE_PROGRAM, "rb") as stream:
                    filesystem.replace_bytes(PROGRAM, stream.read())

    def _remove_former_scripts(self) -> None:
        filesystem = self._host.filesystem
        paths = [f"{RUN}/{name}" for name in _FORMER_SCRIPTS if filesystem.mode(f"{RUN}/{name}") is not None]
        filesystem.replace_files(dict.fromkeys(paths, (None, None)))

    def _arm_unit(self, record: Record, timeout: int, last: Sequence[str]) -> bool:
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
        rollback = ["rollback", "--deadline", record.id, Store(self._host.filesystem).last().get("id", "")]
        command = ["/bin/sh", "-c", _commands(rollback, (PROGRAM, SPARE_PROGRAM), record, last)]
        for more in (lasting, lasting, []):
            if self._host.command.run(words + more + command)[0] == 0:
                return True
            # A unit of an earlier change that failed would keep the name.
            self._host.systemd.call("stop", UNIT + ".timer", UNIT + ".service")
            self._host.systemd.call("reset-failed", UNIT + ".timer", UNIT + ".service")
        return False

    def is_lost(self, record: Record) -> bool:
        """Return whether the timer of a change is gone.

        A restart of the user space alone (systemctl soft-reboot) takes it away, and leaves /run, the rules and the boot's id.
        """
        return record.agent != "process" and self._host.systemd.call("is-active", "--quiet", UNIT + ".timer") != 0

    def disarm(self, record: Record) -> None:
        """Take the timer away; a waiting process notices by itself that its change is no longer pending."""
        if record.agent == "systemd":
            self._host.systemd.call("stop", UNIT + ".timer")
            # One whose file was removed has failed, and stays known by its name.
            self._host.systemd.call("reset-failed", UNIT + ".timer")


def python_words(program: str) -> List[str]:
    """Return the words that run a program with the Python that runs this, wherever a name of it may point to later."""
    return [_python(), "-I", "-S", "-B", program]


def _python() -> str:
    return sys.executable or "/usr/bin/python3"


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _commands(words: Sequence[str], programs: Sequence[str], record: Record, last: Sequence[str]) -> str:
    """Return commands for sh that run the first program that can be run, and else do the last if nothing has ended the change.

    They stand in a unit, which systemd reads again at each daemon-reload: a semicolon would come back as two characters
    (systemd 252), and what begins with a dollar or percent sign as something else. A newline is safe.
    """
    tries = [_quoted(python_words(program) + list(words)) for program in programs]
    # A program that was killed may be so by the one that waits beside the timer, which has done its work since.
    has_ended = f"grep -qsF {shlex.quote(json.dumps(dict(id=record.id))[1:-1])} {LAST}"
    return " || ".join([*tries, has_ended, "\n".join(["{", *_under_lock(has_ended), *last, "}"])])


def _under_lock(has_ended: str) -> List[str]:
    """Return commands for sh that wait for whoever holds the lock, a while, and end where the change has ended meanwhile.

    Else what waits beside the timer could put back the rules that the last way is just emptying.
    """
    return [
        "umask 077",
        f"mkdir -p {LOCK_DIRECTORY}",
        f"touch {LOCK}",
        # Where one of these cannot be done, the way is gone all the same.
        f"[ -r {LOCK} ] && exec 9< {LOCK} && flock -w {_LOCK_SECONDS} 9",
        f"{has_ended} && exit 0",
    ]


def _word_of_last_way(record: Record, last_look: Sequence[str]) -> List[str]:
    """Return commands for sh that leave word for the controller of what the last way has done, as far as it is seen."""

    def told(undo: str, why: str) -> str:
        last = dict(
            id=record.id, owner=record.owner, outcome=ROLLED_BACK, undo=undo, connection="", ended=record.begun,
            why=f"the program that undoes it could not run, {why}",
        )  # fmt: skip
        text = json.dumps(last).translate(dict.fromkeys(map(ord, "$%\\;"), " "))
        return f"echo {shlex.quote(text)} > {LAST}.new"

    written = f"mv -f {LAST}.new {LAST}"
    if not last_look:
        return [told("", "and the change has no rules that could be emptied"), written]
    emptied = told(EMPTIED, "so the knock rules were emptied")
    unseen = told("", "and that the knock rules are emptied was tried and could not be seen")
    return [f"if {' && '.join(last_look)}", "then", emptied, "else", unseen, "fi", written]


def _boot_files(record: Record, last: Sequence[str]) -> Files:
    """Return the unit that undoes a change at the next boot, if it was not confirmed before that."""
    commands = _commands(["boot"], (SPARE_PROGRAM,), record, last)
    return {
        SPARE_UNDO: (f"#!/bin/sh\n# Written by sesame.portknock.\n{commands}\n", 0o700),
        UNDO_UNIT: (_UNDO_UNIT_TEXT, 0o644),
        UNDO_WANTS: (f"# Written by sesame.portknock.\n[Unit]\nWants={UNDO_UNIT_NAME}\n", 0o644),
    }


def detach(words: List[str], must_answer: bool = True) -> None:
    """Start a program that survives the session it was started from.

    :param must_answer: whether to wait until it says that it runs.
    :raises HostError: if it does not within some seconds.
    """
    reader, writer = os.pipe() if must_answer else (None, os.open(os.devnull, os.O_WRONLY))
    child = os.fork()
    if child == 0:
        _become(words, writer)
    os.close(writer)
    os.waitpid(child, 0)
    if reader is None:
        return
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


__all__ = ("PROGRAM", "UNIT", "Agent", "detach", "python_words")
