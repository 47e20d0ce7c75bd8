# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard on the controller: what to try until a change is confirmed, and what to report if it was not.

No I/O here: HostConnection of confirm_connection.py does that. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    CONFIRMED,
    MARK,
    NOT_CONFIRMED,
    ROLLED_BACK,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._paths import RUN
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS

CONNECT_SECONDS = 1.0
"""What a connect takes at least on any real path: two of them and a knock must fit in the deadline."""

TRY_SECONDS = 8.0
"""The longest a single try may take: a knock can get lost, and then only a new one helps."""

ACCESS_SECONDS = 40.0
"""How long after the deadline the host may take to be back: it may be slow, or wait for a lock."""

OVERDUE_SECONDS = 5.0
"""How long after the deadline the controller asks for the rollback itself, where it can reach the host."""

UNKNOWN, PENDING, STALE, UNHEARD = "unknown", "pending", "stale", "unheard"
ENDED = (CONFIRMED, ROLLED_BACK, UNKNOWN)
_WHY = {
    STALE: "the host took the connection for an old one",
    UNHEARD: "the connection came through, but the host did not receive the knock before it",
}


class TryError(Exception):
    """A try that did not come through; its text is ssh's last message."""


class Attempt(NamedTuple):
    """What the controller knows of a change that waits to be confirmed."""

    id: str
    """The change's token."""
    seconds_left: float
    """Until the host undoes it."""
    door: str = ""
    """The door that opens the connection's port, or nothing."""
    port: int = 0
    """The port of the connection on the host; 0 where the host could not tell."""
    agent: str = ""
    """What would undo the change on the host, ``systemd`` or ``process``."""
    proof_door: str = ""
    """The door to knock at where the connection needs none, to prove that the host receives knocks; or nothing."""
    engine: str = str(DEFAULTS["engine"])
    """What recognises the knocks once the change is made."""

    @property
    def knock_at(self) -> str:
        """The door to knock at before each try, or nothing."""
        return self.door or self.proof_door


class Outcome(NamedTuple):
    """How a change ended, as far as the controller could find out."""

    answer: dict[str, Any]
    """The host's answer; empty where there was none."""
    tries: int
    """How many new connections were tried."""
    seconds: float
    """The time that it took."""
    errors: tuple[str, ...]
    """What went wrong, one message for each try that did not come through."""
    reached: bool
    """Whether the host could be reached in the end."""
    unheard: bool = False
    """Whether a new connection came through, and the host had not received the knock before it."""


def command(verb: str, ident: str) -> str:
    """Return the one command that is run on the host, for a plain sh."""
    script = f"{RUN}/{verb}"
    unknown = MARK + json.dumps({"outcome": UNKNOWN})
    return f"if test -e {script}; then sh {script} --json {ident}; else echo '{unknown}'; fi"


def read_answer(text: str) -> dict[str, Any]:
    """Find the answer among whatever else a login prints.

    :raises TryError: if there is none.
    """
    for line in reversed(text.splitlines()):
        # A shell that echoes what it runs shows the mark too, and a connection may break within the line.
        with contextlib.suppress(ValueError):
            answer = json.loads(line.rpartition(MARK)[2]) if MARK in line else None
            if isinstance(answer, dict) and "outcome" in answer:
                return answer
    raise TryError("the host did not answer the confirmation")


AGE_COMMAND = "cat /proc/uptime /proc/1/stat"
"""Prints from what age_of_host() computes."""

_TICKS = 100
"""Clock ticks a second in /proc/PID/stat, on every architecture (proc(5), USER_HZ)."""


def age_of_host(text: str) -> float | None:
    """Return the seconds since a host, or a container, was started, None where that cannot be read.

    :param text: what AGE_COMMAND prints.
    """
    try:
        uptime, first_process = text.split("\n", 1)
        # The process's name is in parentheses and may hold anything.
        started = int(first_process.rpartition(")")[2].split()[19]) / _TICKS
        return float(uptime.split()[0]) - started
    except (IndexError, ValueError):
        return None


class Host(Protocol):
    """How the guard reaches the host; HostConnection of confirm_connection.py does it."""

    def knock(self, turn: int = 0) -> None:
        """Send the knock, if there is one."""

    def run_over_new(self, command: str, seconds: float) -> str:
        """Run a command over a new connection, and return what it prints."""

    def run_over_shared(self, command: str, seconds: float) -> str:
        """Run a command as the play's tasks do, and return what it prints."""

    def reset(self) -> None:
        """Close the play's connection."""


class GuardClient:
    """Confirms one change."""

    def __init__(
        self, host: Host, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Take how to reach the host, and the clock."""
        self._host, self._clock, self._sleep = host, clock, sleep
        self._begun = clock()
        self._tries = 0
        self._errors: list[str] = []
        self._unheard = False

    def confirm(self, attempt: Attempt) -> Outcome:
        """Confirm a change, or find out how it ended.

        :param attempt: from the host's answer, or the controller's own guess where that was lost.
        """
        answer = self._confirm(attempt)
        reached = answer is not None
        if answer is None or answer["outcome"] == PENDING:
            answer = self._after_deadline(attempt)
            reached = answer is not None
        seconds = self._clock() - self._begun
        return Outcome(answer or {}, self._tries, seconds, tuple(self._errors), reached, self._unheard)

    def _confirm(self, attempt: Attempt) -> dict[str, Any] | None:
        end = self._clock() + attempt.seconds_left
        pause = 0.2
        while True:
            answer = self._try_confirm(attempt, end)
            if answer is not None:
                return answer
            left = end - self._clock()
            if left <= 0:
                return None
            self._sleep(min(pause, left))
            pause = min(pause * 2, 1.0)

    def _try_confirm(self, attempt: Attempt, end: float) -> dict[str, Any] | None:
        self._tries += 1
        self._knock(self._tries - 1)
        try:
            left = max(end - self._clock(), 0.5)
            answer = read_answer(
                self._host.run_over_new(command("confirm", attempt.id), min(TRY_SECONDS, max(left / 2, 1.0)))
            )
        except TryError as error:
            self._errors.append(str(error))
            return None
        if answer["outcome"] in ENDED:
            return answer
        self._errors.append(answer.get("why") or _WHY.get(answer["outcome"], "the host gave no reason"))
        self._unheard = self._unheard or answer["outcome"] == UNHEARD
        if answer["outcome"] == STALE:
            self._host.reset()
        return None

    def _knock(self, turn: int) -> None:
        """Knock; where that is not possible, the connection may come through all the same."""
        try:
            self._host.knock(turn)
        except TryError as error:
            self._errors.append(str(error))

    def _after_deadline(self, attempt: Attempt) -> dict[str, Any] | None:
        """Wait until the host has rolled back and can be reached the old way, and read its answer."""
        begun = self._clock()
        end = begun + ACCESS_SECONDS
        turn = 0
        while self._clock() < end:
            try:
                # The old way in may have been behind a door as well, and its knock may be the same.
                if turn % 2:
                    self._knock(turn)
                # A change that is pending so long has lost its timer: it was stopped.
                verb = "rollback" if self._clock() > begun + OVERDUE_SECONDS else "status"
                answer = read_answer(self._host.run_over_shared(command(verb, attempt.id), TRY_SECONDS))
                if answer["outcome"] in ENDED:
                    return answer
                if answer["outcome"] != PENDING:
                    self._errors.append(answer.get("why") or "the host does not know how the change ended")
            except TryError as error:
                self._errors.append(str(error))
                self._host.reset()
            turn += 1
            self._sleep(0.5)
        return None


def knock_seconds(steps: int, pause: float, settle: float = 0.0) -> float:
    """Return how long a knock of some steps takes, and the host to act on it."""
    return steps * pause + (settle if steps else 0.0)


def too_short(timeout: float, steps: int, pause: float, settle: float = 0.0) -> float:
    """Return the seconds that a knock and two connects need, where they do not fit in the deadline, else 0."""
    needed = knock_seconds(steps, pause, settle) + 2 * CONNECT_SECONDS
    return needed if needed > timeout else 0.0


def guard_result(outcome: Outcome, attempt: Attempt, proof: str) -> dict[str, Any]:
    """Return the value of ``guard`` in the task's result."""
    confirmed = outcome.answer.get("outcome") == CONFIRMED
    return {
        "state": "confirmed" if confirmed else "rolled_back" if outcome.reached else "unknown",
        "proof": proof,
        "seconds": round(outcome.seconds, 3),
        "tries": outcome.tries,
        "knocked": attempt.door,
        "agent": attempt.agent,
        "undo": outcome.answer.get("undo", ""),
    }


def failed_result(outcome: Outcome, guard: dict[str, Any], message: str) -> dict[str, Any]:
    """Return the result of a task whose change was not confirmed."""
    unreachable = {} if outcome.reached else {"unreachable": True}
    return {
        "failed": True,
        "changed": False,
        "rolled_back": outcome.reached,
        "msg": message,
        "guard": guard,
        **unreachable,
    }


def crash_result(result: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a module that ended without an answer, once the host was asked to undo what it had begun."""
    if answer.get("outcome") != ROLLED_BACK:
        return result
    guard = {"state": "rolled_back", "proof": "", "seconds": 0.0, "tries": 0, "knocked": "", "agent": ""}
    guard["undo"] = answer.get("undo", "")
    message = (
        f"The module ended in the midst of its work, and what it had begun was rolled back. {result.get('msg', '')}"
    )
    return {**result, "msg": message, "changed": False, "rolled_back": True, "guard": guard}


def proof_of(outcome: Outcome, connection: str, is_ssh: bool, has_network: bool) -> str:
    """Return what proves a confirmed change, in words for the operator.

    :param connection: the name of the connection plugin.
    """
    if not has_network:
        return f"none: a {connection} connection does not pass the firewall, so it proves nothing"
    if outcome.answer.get("why"):
        return f"none: {outcome.answer['why']}"
    words = outcome.answer.get("connection", "").split()
    if len(words) == 4:
        return f"a new connection from {words[0]} port {words[1]} to port {words[3]}"
    return "a new connection" if is_ssh else f"a new {connection} connection, as far as can be seen"


def explain(outcome: Outcome, attempt: Attempt, where: str, timeout: int) -> str:
    """Return the message about a change that was not confirmed: what, where, what to do now."""
    why = outcome.answer.get("why", "")
    last = f" The last try: {outcome.errors[-1]}." if outcome.errors else ""
    if not outcome.reached:
        return (
            f"The change was not confirmed within guard_timeout ({timeout} s), and {where} cannot be reached since.{last} The host "
            f"undoes the change by itself; where it can be reached some other way, run 'sh {RUN}/status' there."
        )
    state = "Everything is as it was before."
    if outcome.answer.get("undo") == "snapshot":
        state = (
            "The rules could not be undone one by one, so the whole filter table was put back as it was before: "
            "what others changed in it meanwhile is lost."
        )
    if outcome.answer["outcome"] == UNKNOWN:
        state = "The host knows nothing of the change any more: it was restarted, which undoes it too."
    if why and why != NOT_CONFIRMED:
        return f"Rolled back: {why.rstrip('.')}. {state}"
    if outcome.unheard:
        return (
            f"Rolled back: {attempt.engine} receives no knock from this controller. {_unheard(outcome, attempt, where)}{last} "
            f"{state}"
        )
    return f"Rolled back: the change would have cut this controller off. {_cut_off(outcome, attempt, where, timeout)}{last} {state}"


def _unheard(outcome: Outcome, attempt: Attempt, where: str) -> str:
    return (
        f"A new connection to {where} came through, but none of the knocks at door {attempt.knock_at} before it ({outcome.tries}) "
        f"was received: check whether a firewall between passes the knock's ports, and on which interface the knock arrives."
        f"{ENGINES[attempt.engine].advice}"
    )


def _cut_off(outcome: Outcome, attempt: Attempt, where: str, timeout: int) -> str:
    text = f"No new connection to {where} came through within {timeout} s ({outcome.tries} tries)."
    if attempt.door:
        return (
            f"{text} Door {attempt.door} was knocked at before each and did not let it in: check whether a firewall between passes "
            "the knock's ports, whether knock and connection leave from the same address (doors[].sources, NAT), and "
            f"whether the steps are those of this host.{ENGINES[attempt.engine].advice}"
        )
    port = f" port {attempt.port}" if attempt.port else " the connection's port"
    return (
        f"{text} No door opens{port} to a knock: check allow and trusted_sources, and whether a new connection leaves from the same "
        "address and arrives at the same port as the one before."
    )
