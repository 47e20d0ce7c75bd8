# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of knock_ruleset: runs the module, then confirms its change over a new connection."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import secrets
import socket
import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KNOCKD, PAUSE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import DEFAULTS
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock as knocking
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import client as guard_client
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import Attempt, Client, LineError, Outcome
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.confirm_connection import Line, bounded

display = Display()

MODULE = "sesame.portknock.knock_ruleset"
# Waiting for another run's lock and planning, before the deadline counts. A session that froze is given up then.
_MODULE_SECONDS = 60
_OWNER = re.compile(r"^.* process (\d+) \(([0-9a-f]{8})\)$")
# ssh never got as far as running anything.
_NEVER_RAN = re.compile(
    r"ssh: connect to host|Could not resolve hostname|Permission denied|Host key verification failed|"
    r"kex_exchange_identification|Too many authentication failures|UNPROTECTED PRIVATE KEY|"
    r"command-line:? line \d+:|Bad configuration option|bad configuration options|Bad owner or permissions|"
    r"Can't open user config file|Control(?:Socket|Path) .* too long|Failed to knock",
)


class ActionModule(ActionBase):
    """Runs knock_ruleset under guard."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """Return the result of the task; no change of the ruleset stays that a new connection could not confirm."""
        result = super().run(tmp, task_vars)
        del tmp
        task_vars = task_vars or {}
        # A copy: until, retries and loops come back to the task's own.
        args = dict(self._task.args)
        try:
            guarded = boolean(args.get("guard", True))
        except TypeError:
            guarded = True
        if self._task.check_mode or not guarded:
            result.update(self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars))
            return _with_warning(result) if not guarded else result
        return {**result, **self._guarded(args, task_vars)}

    def _guarded(self, args, task_vars):
        line = Line(self, self._knock_settings(args, task_vars), display.warning)
        refusal = self._refusal(args, line)
        if refusal:
            return {"failed": True, "changed": False, "msg": refusal}
        begun = time.monotonic()
        result, lost = self._run_module(args, task_vars)
        owner = (result.get("pending") or {}).get("owner", "")
        if owner and _is_dead(owner):
            self._undo_of_the_dead(line, result["pending"]["id"])
            result, lost = self._run_module(args, task_vars)
        return self._settle(line, args, result, lost, begun, task_vars)

    def _knock_settings(self, args, task_vars):
        """Return how to knock, as the connection plugin knock_ssh has it, from the same variables; the engine is the new one."""
        values = {name: self._templar.template(task_vars[f"ansible_knock_{name}"]) for name in ("pause", "host", "via")
                  if f"ansible_knock_{name}" in task_vars}  # fmt: skip
        via = values.get("via", knocking.AUTO)
        if via not in knocking.WAYS:
            raise AnsibleError(f"ansible_knock_via: {via} is none of {', '.join(knocking.WAYS)}.")
        try:
            pause = float(values.get("pause", PAUSE))
        except (TypeError, ValueError):
            raise AnsibleError("ansible_knock_pause: must be a number of seconds, such as 0.1.") from None
        return knocking.Knock(pause=pause, host=str(values.get("host") or ""), via=via, engine=_engine_of(args))

    def _refusal(self, args, line):
        """Return why the guard could never confirm, or ''. What of it the host knows, the module says."""
        timeout = _timeout_of(args)
        doors = knocking.doors_of(args.get("doors"))
        slowest = max([len(knocking.listed(door.get("knock"))) for door in doors] or [0])
        if not line.is_ssh or not guard_client.too_short(timeout, slowest, line.pause, line.settle):
            return ""
        port = line.path.port
        steps = len(knocking.listed(_door_for(args, port).get("knock")))
        needed = guard_client.too_short(timeout, steps, line.pause, line.settle)
        if not needed:
            return ""
        return (
            f"guard_timeout: {timeout} s is too short: the knock for port {port} and two connects need {needed:.0f} s. "
            f"Set guard_timeout to {int(needed) + 5} or more. Nothing was changed."
        )

    # The host's half

    def _run_module(self, args, task_vars):
        """Run the module; return its result, and the error where the connection got lost on the way."""
        ident = secrets.token_hex(8)
        args = {**args, "guard_id": ident, "guard_owner": _owner()}
        lost = None
        try:
            with bounded(_timeout_of(args) + _MODULE_SECONDS):
                result = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
        except (AnsibleConnectionFailure, LineError) as error:
            if _NEVER_RAN.search(str(error)):
                raise
            lost, result = error, {}
        return {**result, "guard_id": ident}, lost

    def _tidy(self, line, ident):
        """Take the last of ours from the host: the program that confirmed."""
        with contextlib.suppress(LineError):
            line.usual(guard_client.command("tidy", ident), guard_client.TRY_SECONDS)

    def _undo_of_the_dead(self, line, ident):
        """Roll back what a run of this very machine began that is no more."""
        with contextlib.suppress(LineError):
            line.usual(guard_client.command("rollback", ident), guard_client.TRY_SECONDS)

    # The controller's half

    def _settle(self, line, args, result, lost, begun, task_vars):
        ident = result.pop("guard_id")
        told = result.get("guard") or {}
        if result.get("failed") and "module_stdout" in result:
            return self._after_crash(line, result, ident)
        if not lost and told.get("state") != "pending":
            return result
        attempt = self._attempt(line, args, ident, {} if lost else told)
        line.use_knock(_knock_of(args, attempt.knock_at))
        outcome = Client(line).settle(attempt)
        # Whatever came of it: core goes on over the play's connection, at once, and without a bound in time.
        if outcome.reached:
            line.mend()
        else:
            line.reset()
        if lost and outcome.answer.get("outcome") == guard_client.UNKNOWN:
            raise lost if isinstance(lost, AnsibleError) else AnsibleConnectionFailure(str(lost))
        self._warn_of_old_steps(args, attempt.door, task_vars)
        return self._report(line, args, result, attempt, outcome, time.monotonic() - begun if lost else outcome.seconds)

    def _attempt(self, line, args, ident, told):
        """Return what is known of the change; where the host's word about it got lost, a guess.

        :param told: the host's word, or an empty dictionary.
        """
        # A host that does not see the ssh session cannot tell the port: then what ssh says has to do.
        door = told["door"] if told.get("port") else self._door_of(line, args)
        return Attempt(
            id=ident,
            seconds_left=told.get("seconds_left", float(_timeout_of(args))),
            door=door,
            port=told.get("port", 0),
            agent=told.get("agent", ""),
            proof_door=told.get("proof_door", "") if told else _proof_door(args),
            engine=_engine_of(args),
        )

    def _door_of(self, line, args):
        """Return the door that opens the connection's port, where the host's word about it got lost."""
        if not line.is_ssh:
            return ""
        return str(_door_for(args, line.path.port).get("name", ""))

    def _after_crash(self, line, result, ident):
        """Undo at once what a module began that ended without a word: it was killed, or has an error."""
        answer = {}
        with contextlib.suppress(LineError):
            text = line.usual(guard_client.command("rollback", ident), guard_client.TRY_SECONDS)
            answer = guard_client.read_answer(text)
        line.mend()
        if answer.get("outcome") != guard_client.ROLLED_BACK:
            return result
        guard = {"state": "rolled_back", "proof": "", "seconds": 0.0, "tries": 0, "knocked": "", "agent": ""}
        guard["undo"] = answer.get("undo", "")
        message = (
            f"The module ended in the midst of its work, and what it had begun was rolled back. {result.get('msg', '')}"
        )
        return {**result, "msg": message, "changed": False, "rolled_back": True, "guard": guard}

    def _warn_of_old_steps(self, args, door, task_vars):
        """Say what to change where the inventory has steps of its own, which the host knows no more."""
        if not door or task_vars.get("ansible_knock") is None:
            return
        before = knocking.listed(self._templar.template(task_vars["ansible_knock"]))
        if _normal(before) != _normal(_knock_of(args, door)):
            display.warning(
                f"ansible_knock of {task_vars.get('inventory_hostname', 'this host')} has other steps than door {door}, which opens its "
                "connection's port. Once the change is confirmed they open nothing: set it to the door's steps, or remove it where the "
                "door is in portknock_doors."
            )

    def _report(self, line, args, result, attempt, outcome: Outcome, seconds):
        confirmed = outcome.answer.get("outcome") == guard_client.CONFIRMED
        guard = {
            "state": "confirmed" if confirmed else "rolled_back" if outcome.reached else "unknown",
            "proof": _proof(line, outcome) if confirmed else "",
            "seconds": round(seconds, 3),
            "tries": outcome.tries,
            "knocked": attempt.door,
            "agent": attempt.agent,
            "undo": outcome.answer.get("undo", ""),
        }
        result = {**result, "guard": guard, "changed": True, "rolled_back": False}
        if confirmed:
            if not line.has_network:
                guard["state"] = "unproved"
            if args.get("state") == "absent":
                self._tidy(line, ident=attempt.id)
            return result
        message = guard_client.explain(outcome, attempt, line.where, _timeout_of(args))
        result.update(msg=message, failed=True, changed=False, rolled_back=outcome.reached)
        if not outcome.reached:
            result.update(unreachable=True)
        return result


def _proof(line, outcome):
    if not line.has_network:
        return f"none: a {line.name} connection does not pass the firewall, so it proves nothing"
    if outcome.answer.get("why"):
        return f"none: {outcome.answer['why']}"
    words = outcome.answer.get("connection", "").split()
    if len(words) == 4:
        return f"a new connection from {words[0]} port {words[1]} to port {words[3]}"
    return "a new connection" if line.is_ssh else f"a new {line.name} connection, as far as that can be told"


def _with_warning(result):
    warning = (
        "guard: false: the change was applied without a guard. If it cuts this controller off, only a console helps."
    )
    if result.get("changed") and not result.get("failed"):
        result["warnings"] = [*result.get("warnings", []), warning]
    return result


def _timeout_of(args):
    try:
        return int(args.get("guard_timeout", DEFAULTS["guard_timeout"]))
    except (TypeError, ValueError):
        # The module says what is wrong with it.
        return DEFAULTS["guard_timeout"]


def _engine_of(args):
    # What is no engine, the module refuses.
    return str(args.get("engine", DEFAULTS["engine"]))


def _proof_door(args):
    """Return the door that is knocked at for proof where the host's own choice got lost: knockd hears each of them."""
    doors = knocking.doors_of(args.get("doors")) if _engine_of(args) == KNOCKD else []
    return next((str(door.get("name", "")) for door in doors), "")


def _normal(words):
    """Return steps in one spelling."""
    return [word if "/" in word else f"{word}/tcp" for word in words]


def _door_for(args, port):
    return knocking.door_for_port(args.get("doors"), port)


def _knock_of(args, name):
    doors = knocking.doors_of(args.get("doors"))
    return next((knocking.listed(door.get("knock")) for door in doors if name and door.get("name") == name), [])


def _machine():
    """Return what tells the process ids of this machine, and of this container, from others."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as stream:
            parts.append(stream.read())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _owner():
    """Return who makes a change: words for people, and what tells this machine whether the process still lives."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} process {os.getpid()} ({_machine()})"


def _is_dead(owner):
    """Tell whether a change was begun on this machine by a process that is no more."""
    found = _OWNER.match(owner)
    if not found or found.group(2) != _machine() or int(found.group(1)) == os.getpid():
        return False
    pid = int(found.group(1))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid):
    """Tell whether a process has ended and only waits for somebody to notice; nobody may ever."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        return stream.read().rpartition(")")[2].split()[:1] in (["Z"], ["X"])
    return False
