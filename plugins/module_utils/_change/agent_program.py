# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program in /run/portknock: what waits for the deadline, and what confirms or rolls back.

It runs without Ansible, on the plain Python of the host.
"""

import contextlib
import functools
import json
import os
import signal
import sys
import time
from typing import Any, Dict, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import parts_on
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    CONFIRMED,
    MARK,
    NOT_CONFIRMED,
    ROLLED_BACK,
    Record,
    Store,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import end_other_boot, undo_loaded
from ansible_collections.sesame.portknock.plugins.module_utils._change.undone import undone_sentence
from ansible_collections.sesame.portknock.plugins.module_utils._engine import EXACT
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import Host, this_host
from ansible_collections.sesame.portknock.plugins.module_utils._host.lock import LockedError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    PROGRAM,
    RUN,
    SPARE_PROGRAM,
    UNDONE_RECORD,
)

Answer = Dict[str, Any]
"""``outcome`` and more, see guard.Answer."""
Outcome = Tuple[Answer, bool]
"""An answer, and whether it is what was asked for."""
_LOCK_SECONDS = 10
_STUCK_SECONDS = 30
_TRIES = 600
_SECONDS_FOR_TIMER = 3
"""How long after the deadline a process comes that waits beside a timer."""


def main(words: Sequence[str]) -> int:
    """Do what the command line says; return the exit code: 0 if the change is as was asked for, else 1 (2: usage)."""
    verb = words[0] if words else ""
    flags = {word for word in words[1:] if word.startswith("--")}
    names = [word for word in words[1:] if not word.startswith("--")]
    name = "".join(names[:1])
    actions = {
        "confirm": _confirm,
        "rollback": _rollback,
        "status": _status,
        "tidy": _tidy,
        "wait": _wait,
        "boot": _boot,
        "boot-again": _boot_again,
    }
    if "--deadline" in flags:
        actions["rollback"] = functools.partial(_at_deadline, before="".join(names[1:2]))
    if verb not in actions or flags - {"--json", "--deadline"}:
        sys.stderr.write("usage: portknock confirm | portknock rollback | portknock status\n")
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
        sys.stdout.write((MARK + json.dumps(answer) if as_json else sentence_of(answer)) + "\n")
        sys.stdout.flush()
    except OSError:
        # Nothing reads it any more; what was done is done.
        pass


def sentence_of(answer: Answer) -> str:
    """Return how a change ended, for a person."""
    outcome, why = answer.get("outcome"), answer.get("why", "")
    if outcome == CONFIRMED:
        return "The change is confirmed and kept."
    if outcome == ROLLED_BACK:
        reason, undo = why.rstrip(".") or "it was asked for", answer.get("undo", "")
        return f"The change was rolled back: {reason}." + ("" if undo == EXACT else f" {undone_sentence(undo)}")
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
    # Commands of sh may have undone the change, which leave the record: the controller still has it rolled back, a person reads how it is.
    is_undone = record is not None and not name and guard.ended(record.id).get("id") == record.id
    if record is None or is_undone or (name and record.id != name):
        answer = guard.ended(name)
    else:
        left = record.deadline - host.clock.monotonic()
        answer = dict(
            outcome="pending",
            owner=record.owner or "an unnamed run",
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


def _boot(guard: Guard, host: Host, _name: str) -> Outcome:
    """Undo what was not confirmed before the host was restarted."""
    agent = Agent(host)
    with contextlib.ExitStack() as stack:
        locked = False
        # At boot nothing else runs yet that could have it, and no connection gets in until this is done.
        with contextlib.suppress(HostError):
            stack.enter_context(host.lock.hold(_LOCK_SECONDS))
            locked = True
        record = guard.pending()
        if record is not None and (record.boot != host.processes.boot() or (locked and agent.is_lost(record))):
            agent.look_again(record)
            end_other_boot(host, parts_on(host), record)
    return guard.ended(""), True


def _boot_again(guard: Guard, host: Host, name: str) -> Outcome:
    """Take out what a script has loaded late in this boot of a change that was undone early in it, unless there was one since."""
    with host.lock.hold(_LOCK_SECONDS):
        text = host.filesystem.read(UNDONE_RECORD)
        if text and guard.pending() is None and guard.ended(name).get("id") == name:
            undo_loaded(parts_on(host), Record(**json.loads(text)))
    return guard.ended(name), True


def _rollback(guard: Guard, host: Host, name: str) -> Outcome:
    with host.lock.hold(_LOCK_SECONDS):
        answer = undo_now(guard, host, name)
    return answer, answer["outcome"] == ROLLED_BACK


def undo_now(guard: Guard, host: Host, name: str = "") -> Answer:
    """Undo a change because it is asked for; name its id, or '' for whichever is pending."""
    return guard.undo(name, _why_now(guard, host))


def _wait(guard: Guard, host: Host, name: str) -> Outcome:
    """Wait for the deadline of a change, then roll it back; end at once when it is no longer pending."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    record = guard.pending()
    for part in parts_on(host):
        # As long as the program's file is there.
        part.import_late()
    sys.stdout.write("armed\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    # The kernel, short of memory, takes others first.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write("-900\n")
    deadline = record.deadline if record else 0
    store = Store(host.filesystem)
    before = store.last().get("id", "")
    while record and record.id == name:
        turn = deadline + (_SECONDS_FOR_TIMER if record.agent == "systemd" else 0)
        left = turn - host.clock.monotonic()
        if left <= 0:
            return _at_deadline(guard, host, name, before, record)
        time.sleep(min(left, 0.5))
        # What cannot be read is not over yet.
        with contextlib.suppress(Exception):
            now = guard.pending()
            # Looked at in this order, a record that is removed at any moment is not taken for a change that has ended.
            if now is None and store.is_lost(before):
                store.write(record)
            else:
                record = now
    return dict(outcome="ended"), True


def _at_deadline(guard: Guard, host: Host, name: str, before: str = "", known: Optional[Record] = None) -> Outcome:
    """Roll back, again and again until it works: nothing else will.

    Where the record of the change was removed, and is not known from before, nothing can be undone here; there is another way.

    :param before: the id of the change that had ended last when this one was armed, '' for none.
    :param known: the record as it was seen last, None where it was not.
    """
    store = Store(host.filesystem)
    for _turn in range(_TRIES):
        try:
            with contextlib.ExitStack() as stack:
                _lock_for_rollback(stack, guard, host, name)
                Agent(host).put_back()
                if store.is_lost(before):
                    if known is None:
                        return dict(outcome="error", why="the record of the change was removed"), False
                    store.write(known)
                return guard.undo(name, _why_now(guard, host)), True
        except Exception as error:
            # Whatever it is: to give up would leave the controller cut off.
            with contextlib.suppress(Exception):
                _report(error)
        time.sleep(1)
    return dict(outcome="error", why="it could not be rolled back, see the log"), False


def _lock_for_rollback(stack: contextlib.ExitStack, guard: Guard, host: Host, name: str) -> None:
    """Take the lock; end a process of ours that holds it long after the deadline, and go on without it beside any other."""
    for _turn in range(2):
        try:
            stack.enter_context(host.lock.hold(_STUCK_SECONDS))
            return
        except HostError as error:
            _report(error)
            if not isinstance(error, LockedError) or not _end_stuck_run(guard, host, name):
                return


def _why_now(guard: Guard, host: Host) -> str:
    """Return why a change is undone: by hand, or at its deadline, by its own timer or where that is late by the controller."""
    record = guard.pending()
    early = record is not None and host.clock.monotonic() < record.deadline - 0.5
    return "it was asked for on the host" if early else NOT_CONFIRMED


def _report(error: Exception) -> None:
    import syslog

    sys.stderr.write(f"portknock: {error}\n")
    syslog.openlog("portknock-guard")
    syslog.syslog(syslog.LOG_ERR, f"rolling back does not work yet, trying again: {error}")


def _end_stuck_run(guard: Guard, host: Host, name: str) -> bool:
    """Kill the run that made the change, or a program of ours, if it still holds the lock long after the deadline: it hangs.

    :returns: whether it was killed.
    """
    holder, record = host.lock.holder(), guard.pending()
    pid, started = record.module if record is not None and record.id == name else (0, None)
    if holder is None or holder == os.getpid():
        return False
    is_module = started is not None and holder in (pid, 0) and host.processes.start_of(pid) == started
    is_program = bool(holder) and bool({PROGRAM, SPARE_PROGRAM} & set(host.processes.words_of(holder)))
    if is_module or is_program:
        os.kill(pid if is_module else holder, signal.SIGKILL)
    return is_module or is_program


__all__ = ("main", "sentence_of", "undo_now")
