# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of knock_ruleset under guard: the module, then the confirmation of what it changed.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import CONFIRMED
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, KnockError, Steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Spec
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import answers, client, results
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import Attempt, GuardClient, Outcome
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.confirm_connection import HostConnection, bounded
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.owner import owner_is_dead, owner_of_this_run
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.reasons import explain
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.patience import is_too_short
from ansible_collections.sesame.portknock.plugins.plugin_utils.task_options import given

MODULE = "sesame.portknock.knock_ruleset"
# Waiting for another run's lock and planning, before the deadline counts. A session that froze is given up then.
_MODULE_SECONDS = 60
# For one of the guard's commands on the host, which may need a new connection, and its login is slow on some hosts.
_COMMAND_SECONDS = 30.0
# ssh never got as far as running anything.
_NEVER_RAN = re.compile(
    r"ssh: connect to host|Could not resolve hostname|Permission denied|Host key verification failed|"
    r"kex_exchange_identification|Too many authentication failures|UNPROTECTED PRIVATE KEY|"
    r"command-line:? line \d+:|Bad configuration option|bad configuration options|Bad owner or permissions|"
    r"Can't open user config file|Control(?:Socket|Path) .* too long|Failed to knock",
)


def door_for_port(doors: tuple[Door, ...], port: int) -> Door | None:
    """Return the first door that opens a TCP port of the host itself."""
    return next((door for door in doors if any(send_knock.opens_port(ports, port) for ports in door.here)), None)


def steps_of_door(doors: tuple[Door, ...], name: str) -> Steps:
    """Return the steps of the door with a name; none where there is no such door."""
    return next((door.knock for door in doors if door.name == name), ())


def window_of_door(doors: tuple[Door, ...], name: str) -> float:
    """Return the window in seconds of the door with a name; 0 where there is no such door."""
    return next((float(door.window) for door in doors if door.name == name), 0.0)


class GuardedRun:
    """Runs the module once, and sees to it that its change is confirmed or undone."""

    def __init__(
        self,
        action: ActionBase,
        options: Mapping[str, Any],
        spec: Spec,
        task_vars: Mapping[str, Any],
        warn: Callable[[str], object],
    ) -> None:
        """Take the action plugin, its checked options, the Spec of them, the task's variables and where warnings go."""
        self._action, self._options, self._spec = action, options, spec
        self._task_vars, self._warn = task_vars, warn
        self._timeout = int(options["guard_timeout"])
        # As the connection plugin has it, but for the new engine.
        knock = send_knock.knock_from_variables(task_vars, action._templar.template, spec.engine)
        self._host = HostConnection(action, knock, warn)
        self._knocks = False

    def run(self) -> dict[str, Any]:
        """Return the result of the task."""
        refusal = self._refusal()
        if refusal:
            return {"failed": True, "changed": False, "msg": refusal}
        begun = time.monotonic()
        ident, result, lost = self._run_module()
        owner = (result.get("pending") or {}).get("owner", "")
        if owner and owner_is_dead(owner):
            self._command("rollback", result["pending"]["id"])
            ident, result, lost = self._run_module()
        if result.get("failed") and "module_stdout" in result:
            return self._after_crash(result, ident)
        state = (result.get("guard") or {}).get("state")
        if not lost and state != answers.PENDING:
            return result
        return self._confirm(result, lost, self._attempt(ident, {} if lost else result["guard"]), begun)

    def knock_again(self) -> bool:
        """Knock as for the last confirmation; return whether there was a knock to send and it has left."""
        if self._knocks:
            with contextlib.suppress(TryError):
                self._host.knock()
                return True
        return False

    def _refusal(self) -> str:
        """Return why the guard could never confirm, or ''. What of it only the host knows, the module says."""
        slowest = max([len(door.knock) for door in self._spec.doors] or [0])
        if not self._host.is_ssh or not self._seconds_short(slowest):
            return ""
        port = self._host.path.port
        door = door_for_port(self._spec.doors, port)
        needed = self._seconds_short(len(door.knock) if door else 0)
        if not needed:
            return ""
        return (
            f"guard_timeout: {self._timeout} s is too short: the knock for port {port} and two connects need {needed:.0f} s. "
            f"Set guard_timeout to {int(needed) + 5} or more. Nothing was changed."
        )

    def _seconds_short(self, steps: int) -> float:
        return client.too_short(self._timeout, steps, self._host.pause, self._host.settle)

    # On the host

    def _run_module(self) -> tuple[str, dict[str, Any], Exception | None]:
        """Run the module; return the change's token, its result, and the error where the connection was lost."""
        ident = secrets.token_hex(8)
        # A copy: until, retries and loops come back to the task's own.
        args = {**given(self._action._task.args, self._options), "guard_id": ident, "guard_owner": owner_of_this_run()}
        try:
            with bounded(self._timeout + _MODULE_SECONDS):
                result = self._action._execute_module(module_name=MODULE, module_args=args, task_vars=self._task_vars)
        except (AnsibleConnectionFailure, TryError) as error:
            if _NEVER_RAN.search(str(error)):
                raise
            return ident, {}, error
        return ident, result, None

    def _command(self, verb: str, ident: str) -> str:
        """Run one of the guard's commands on the host; return what it prints, '' if the host cannot be reached."""
        with contextlib.suppress(TryError):
            return self._host.run_over_shared(answers.command(verb, ident), _COMMAND_SECONDS)
        return ""

    def _after_crash(self, result: dict[str, Any], ident: str) -> dict[str, Any]:
        """Undo at once what a module began that ended without an answer: it was killed, or has an error."""
        answer: dict[str, Any] = {}
        with contextlib.suppress(TryError):
            answer = answers.read_answer(self._command("rollback", ident), ident)
        self._host.restore()
        return results.crash_result(result, answer)

    # On the controller

    def _attempt(self, ident: str, guard: Mapping[str, Any]) -> Attempt:
        """Return what is known of the change; where the host's answer about it was lost, a guess.

        :param guard: the host's answer, or an empty dictionary.
        """
        # A host that does not see the ssh session cannot tell the port: then what ssh says has to do.
        door = guard["door"] if guard.get("port") else self._door_of_connection()
        return Attempt(
            id=ident,
            seconds_left=guard.get("seconds_left", float(self._timeout)),
            door=door,
            port=guard.get("port", 0),
            agent=guard.get("agent", ""),
            proof_door=guard.get("proof_door", "") if guard else self._proof_door(),
            engine=self._spec.engine,
            boot=guard.get("boot", ""),
            window=window_of_door(self._spec.doors, door),
            addresses=self._host.addresses,
        )

    def _door_of_connection(self) -> str:
        """Return the name of the door that opens the connection's port, or ''."""
        door = door_for_port(self._spec.doors, self._host.path.port) if self._host.is_ssh else None
        return door.name if door else ""

    def _proof_door(self) -> str:
        """Return the door to knock at for proof where the host's own choice was lost, or ''."""
        doors = self._spec.doors if ENGINES[self._spec.engine].needs_proof else ()
        return doors[0].name if doors else ""

    def _confirm(
        self, result: dict[str, Any], lost: Exception | None, attempt: Attempt, begun: float
    ) -> dict[str, Any]:
        steps = steps_of_door(self._spec.doors, attempt.knock_at)
        self._knocks = bool(steps)
        self._host.use_knock(steps, attempt.window)
        self._warn_of_short_window(attempt)
        outcome = GuardClient(self._host).confirm(attempt)
        # Whatever came of it: core goes on over the play's connection, at once, and without a bound in time.
        if outcome.reached:
            self._host.restore(works="session" not in outcome.answer)
        else:
            self._host.reset()
        nothing_known = outcome.answer.get("outcome") == answers.UNKNOWN
        if nothing_known:
            outcome = outcome._replace(restarted=self._was_restarted(outcome, attempt, time.monotonic() - begun))
        if lost and nothing_known and not outcome.restarted:
            raise lost if isinstance(lost, AnsibleError) else AnsibleConnectionFailure(str(lost))
        self._warn_of_old_steps(attempt.door)
        if lost:
            outcome = outcome._replace(seconds=time.monotonic() - begun)
        return self._report(result, attempt, outcome)

    def _was_restarted(self, outcome: Outcome, attempt: Attempt, seconds: float) -> bool:
        """Return whether the host is of another boot than the change, or where that is not known, started within the last seconds."""
        boot = outcome.answer.get("boot")
        if boot and attempt.boot:
            return bool(boot != attempt.boot)
        with contextlib.suppress(TryError):
            age = answers.age_of_host(self._host.run_over_shared(answers.AGE_COMMAND, _COMMAND_SECONDS))
            return age is not None and age < seconds
        return False

    def _report(self, result: dict[str, Any], attempt: Attempt, outcome: Outcome) -> dict[str, Any]:
        host = self._host
        confirmed = results.state_of(outcome) == CONFIRMED
        proof = results.proof_of(outcome, host.name, host.is_ssh, host.has_network) if confirmed else ""
        guard = results.guard_result(outcome, attempt, proof)
        if not confirmed:
            message = explain(outcome, attempt, host.where, self._timeout, result.get("findings") or ())
            return {**result, **results.failed_result(outcome, guard, message)}
        if not host.has_network:
            guard["state"] = "unproved"
        if self._options["state"] == "absent":
            # The program that confirmed is the last file of the collection on the host.
            self._command("tidy", attempt.id)
        return {**result, "guard": guard, "changed": True, "rolled_back": False}

    def _warn_of_short_window(self, attempt: Attempt) -> None:
        """Warn where the window ends before ssh gets to the host's last address."""
        if is_too_short(attempt.addresses, attempt.window):
            self._warn(
                f"The window of door {attempt.door} is {attempt.window:g} s, and ssh tries {attempt.addresses} addresses of "
                f"{self._host.where}, one after the other, each for a second at least: where the first ones do not answer, the "
                f"window is over before the last one is tried. Set window to {attempt.addresses + 1} or more, or ansible_host to "
                "one address."
            )

    def _warn_of_old_steps(self, door: str) -> None:
        """Warn where the inventory has steps of its own, which the host does not accept any more."""
        if not door or self._task_vars.get("ansible_knock") is None:
            return
        words = self._action._templar.template(self._task_vars["ansible_knock"])
        inventory: Steps = ()
        with contextlib.suppress(KnockError):
            inventory = send_knock.steps_for_port(words, None, 0)
        if tuple(inventory) != tuple(steps_of_door(self._spec.doors, door)):
            self._warn(
                f"ansible_knock of {self._task_vars.get('inventory_hostname', 'this host')} has other steps than door {door}, "
                "which opens its connection's port. Once the change is confirmed they open nothing: set it to the door's "
                "steps, or remove it where the door is in portknock_doors."
            )
