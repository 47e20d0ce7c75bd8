# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard on the controller: what to try until a change is confirmed.

No I/O here: HostConnection of confirm_connection.py does that. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import (
    ENDED,
    NO_ANSWER,
    PENDING,
    STALE,
    UNHEARD,
    NoAnswerError,
    TryError,
    command,
    read_answer,
)

CONNECT_SECONDS = 1.0
"""What a connect takes at least on any real path: two of them and a knock must fit in the deadline."""

LEAST_SECONDS = 0.5
"""What a try gets at least, however little of the deadline is left."""

OLD_WAY_SECONDS = 8.0
"""How long the play's own connection, which may be dead, may take to answer before it is closed and a new one is made."""

ACCESS_SECONDS = 40.0
"""How long after the deadline the host may take to be back: it may be slow, or wait for a lock."""

OVERDUE_SECONDS = 5.0
"""How long after the deadline the controller asks for the rollback itself, where it can reach the host."""

_WHY = {
    STALE: "the host took the connection for an old one",
    UNHEARD: "the connection came through, but the host did not receive the knock before it",
}


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
    """What recognises the knock once the change is made."""
    boot: str = ""
    """Of which boot of the host the change is; nothing where the host's answer was lost."""
    window: float = 0.0
    """The seconds for which the door is open, 0 where no door is in the way."""
    addresses: int = 1
    """How many addresses of the host ssh tries, one after the other."""

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
    """What went wrong, one message for each try that did not come through; where the host could not be reached any more either,
    those of the old way in as well."""
    reached: bool
    """Whether the host could be reached in the end, be it that it did not say how the change ended."""
    unheard: bool = False
    """Whether a new connection came through, and the host had not received the knock before it."""
    late: float = 0.0
    """The longest time in seconds from a knock to the end of the connection after it that was not let in."""
    restarted: bool = False
    """Whether the host was seen to be of another boot than the change."""


class Host(Protocol):
    """How the guard reaches the host; HostConnection of confirm_connection.py does it."""

    def knock(self, turn: int = 0) -> None:
        """Send the knock, if there is one."""

    def run_over_new(self, command: str, seconds: float, turn: int = 0) -> str:
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
        self._late = 0.0

    def confirm(self, attempt: Attempt) -> Outcome:
        """Confirm a change, or find out how it ended.

        :param attempt: from the host's answer, or the controller's own guess where that was lost.
        """
        answer = self._confirm(attempt)
        errors = tuple(self._errors)
        if answer is None or answer["outcome"] == PENDING:
            answer = self._after_deadline(attempt)
        if answer is None:
            errors = tuple(self._errors)
        seconds = self._clock() - self._begun
        return Outcome(
            answer or {}, self._tries, seconds, errors, answer is not None, self._unheard, round(self._late, 1)
        )

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
        """Try once. A login may take all that is left of the deadline, so what a longer one allows a shorter one cannot do better."""
        turn = self._tries
        self._tries += 1
        self._knock(turn)
        knocked = self._clock()
        try:
            left = max(end - knocked, LEAST_SECONDS)
            answer = read_answer(self._host.run_over_new(command("confirm", attempt.id), left, turn), attempt.id)
        except TryError as error:
            self._errors.append(str(error))
            self._late = max(self._late, self._clock() - knocked)
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
        """Wait until the host has rolled back and can be reached the old way, and return its answer.

        Where it does not say in time how the change ended, that is what it said last, None where it could not be reached any more.
        """
        begun = self._clock()
        end = begun + ACCESS_SECONDS
        turn = 0
        last: dict[str, Any] | None = None
        while self._clock() < end:
            try:
                # The old way in may have been behind a door as well, and its knock may be the same.
                if turn % 2:
                    self._knock(turn)
                # A change that is pending so long has lost its timer: it was stopped.
                verb = "rollback" if self._clock() > begun + OVERDUE_SECONDS else "status"
                text = self._host.run_over_shared(command(verb, attempt.id), self._bound(turn, end))
                answer = read_answer(text, attempt.id)
                if answer["outcome"] in ENDED:
                    return answer
                if answer["outcome"] != PENDING:
                    self._errors.append(answer.get("why") or "the host does not know how the change ended")
                last = answer
            except TryError as error:
                self._errors.append(str(error))
                self._host.reset()
                last = {"outcome": NO_ANSWER, "why": str(error)} if isinstance(error, NoAnswerError) else None
            turn += 1
            self._sleep(0.5)
        return last

    def _bound(self, turn: int, end: float) -> float:
        """Return the seconds for a command over the play's connection: a dead one is soon given up, a login may be slow."""
        return max(OLD_WAY_SECONDS, end - self._clock()) if turn else OLD_WAY_SECONDS


def knock_seconds(steps: int, pause: float, settle: float = 0.0) -> float:
    """Return how long a knock of some steps takes, and the host to act on it."""
    return steps * pause + (settle if steps else 0.0)


def too_short(timeout: float, steps: int, pause: float, settle: float = 0.0) -> float:
    """Return the seconds that a knock and two connects need, where they do not fit in the deadline, else 0."""
    needed = knock_seconds(steps, pause, settle) + 2 * CONNECT_SECONDS
    return needed if needed > timeout else 0.0
