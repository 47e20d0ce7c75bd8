# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program in /run/portknock: what waits for the deadline, and what confirms or rolls back.

It runs without Ansible, on the plain Python of the host.
"""

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any, Dict, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    CONFIRMED,
    MARK,
    NOT_CONFIRMED,
    ROLLED_BACK,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import Host, this_host
from ansible_collections.sesame.portknock.plugins.module_utils._paths import RUN

Answer = Dict[str, Any]
"""``outcome`` and more, see guard.Answer."""
Outcome = Tuple[Answer, bool]
"""An answer, and whether it is what was asked for."""
_LOCK_SECONDS = 10
_STUCK_SECONDS = 30
_TRIES = 600


def main(words: Sequence[str]) -> int:
    """Do what the command line says; return the exit code: 0 if the change is as was asked for, else 1 (2: usage)."""
    verb = words[0] if words else ""
    flags = {word for word in words[1:] if word.startswith("--")}
    name = ([word for word in words[1:] if not word.startswith("--")] or [""])[0]
    actions = {"confirm": _confirm, "rollback": _rollback, "status": _status, "tidy": _tidy, "wait": _wait}
    if "--deadline" in flags:
        actions["rollback"] = _at_deadline
    if verb not in actions or flags - {"--json", "--deadline"}:
        sys.stderr.write(f"usage: sh {RUN}/confirm | sh {RUN}/rollback | sh {RUN}/status\n")
        return 2
    host = this_host(PlainRunner())
    try:
        answer, good = actions[verb](Guard(host, Agent(host)), host, name)
    except HostError as error:
        answer, good = dict(outcome="error", why=str(error)), False
    _say(answer, "--json" in flags)
    return 0 if good else 1


def _say(answer: Answer, as_json: bool) -> None:
    try:
        sys.stdout.write((MARK + json.dumps(answer) if as_json else _sentence(answer)) + "\n")
        sys.stdout.flush()
    except OSError:
        # Nobody listens any more; what was done is done.
        pass


def _sentence(answer: Answer) -> str:
    outcome, why = answer.get("outcome"), answer.get("why", "")
    if outcome == CONFIRMED:
        return "The change is confirmed and kept."
    if outcome == ROLLED_BACK:
        return "The change was rolled back: {0}.".format(why.rstrip(".") or "somebody asked for it")
    if outcome == "pending":
        return "A change is pending, made by {owner}, {age} s ago. It is undone in {left} s unless it is confirmed.".format(
            **answer
        )
    if outcome == "tidied":
        return "Done."
    if outcome == "stale":
        return "This connection is older than the change, so it proves nothing. Nothing was done."
    return why or "No change is pending, and none was since the host was started."


def _confirm(guard: Guard, host: Host, name: str) -> Outcome:
    with host.lock.hold(_LOCK_SECONDS):
        answer = guard.confirm(name, host.processes.session())
    return answer, answer["outcome"] == CONFIRMED


def _status(guard: Guard, host: Host, name: str) -> Outcome:
    record = guard.pending()
    if record is None or (name and record.id != name):
        answer = guard.ended(name)
    else:
        left = record.deadline - host.clock.monotonic()
        answer = dict(
            outcome="pending",
            owner=record.owner or "somebody",
            age=int(time.time() - record.begun),
            left=max(0, int(left)),
        )
    return answer, True


def _tidy(guard: Guard, host: Host, _name: str) -> Outcome:
    """Remove this program, unless something is pending: the last thing of ours that goes."""
    with host.lock.hold(_LOCK_SECONDS):
        if guard.pending() is None:
            host.filesystem.remove_directory(RUN)
    return dict(outcome="tidied"), True


def _rollback(guard: Guard, host: Host, name: str) -> Outcome:
    with host.lock.hold(_LOCK_SECONDS):
        answer = guard.undo(name, _why_now(guard, host))
    return answer, answer["outcome"] == ROLLED_BACK


def _wait(guard: Guard, host: Host, name: str) -> Outcome:
    """Wait for the deadline of a change, then roll it back; end at once when it is no longer pending."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    record = guard.pending()
    sys.stdout.write("armed\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    # The kernel, short of memory, takes others first.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write("-900\n")
    deadline = record.deadline if record else 0
    while record and record.id == name:
        left = deadline - host.clock.monotonic()
        if left <= 0:
            return _at_deadline(guard, host, name)
        time.sleep(min(left, 0.5))
        # What cannot be read is not over yet.
        with contextlib.suppress(Exception):
            record = guard.pending()
    return dict(outcome="ended"), True


def _at_deadline(guard: Guard, host: Host, name: str) -> Outcome:
    """Roll back, again and again until it works: nobody else will."""
    for _turn in range(_TRIES):
        try:
            with host.lock.hold(_STUCK_SECONDS):
                answer = guard.undo(name, _why_now(guard, host))
            return answer, True
        except Exception as error:
            # Whatever it is: to give up would leave the controller cut off.
            with contextlib.suppress(Exception):
                _report(error)
                _end_stuck_run(guard, host, name)
        time.sleep(1)
    return dict(outcome="error", why="it could not be rolled back, see the log"), False


def _why_now(guard: Guard, host: Host) -> str:
    """Return why a change is undone: by hand, or at its deadline, by its own timer or where that is late by the controller."""
    record = guard.pending()
    early = record is not None and host.clock.monotonic() < record.deadline - 0.5
    return "somebody on the host asked for it" if early else NOT_CONFIRMED


def _report(error: Exception) -> None:
    import syslog

    sys.stderr.write(f"portknock: {error}\n")
    syslog.openlog("portknock-guard")
    syslog.syslog(syslog.LOG_ERR, f"rolling back does not work yet, trying again: {error}")


def _end_stuck_run(guard: Guard, host: Host, name: str) -> None:
    """Kill the run that made the change, if it still holds the lock long after the deadline: it hangs."""
    record = guard.pending()
    if record is None or record.id != name:
        return
    pid, started = record.module
    if started is not None and host.processes.start_of(pid) == started and host.lock.is_held():
        os.kill(pid, signal.SIGKILL)


__all__ = ("main",)
