# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The values that a task under guard returns. Nothing is called undone that was not seen on the host. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import CONFIRMED, ROLLED_BACK
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import answers
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import Attempt, Outcome


def state_of(outcome: Outcome) -> str:
    """Return ``confirmed``, ``rolled_back`` or ``unknown``: the last where it could not be seen how the change ended."""
    said = outcome.answer.get("outcome")
    if said in (CONFIRMED, ROLLED_BACK):
        return str(said)
    # What is loaded goes with the boot, and only a confirmation keeps files.
    return ROLLED_BACK if said == answers.UNKNOWN and outcome.restarted else answers.UNKNOWN


def guard_result(outcome: Outcome, attempt: Attempt, proof: str) -> dict[str, Any]:
    """Return the value of ``guard`` in the task's result."""
    return {
        "state": state_of(outcome),
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
        "rolled_back": state_of(outcome) == ROLLED_BACK,
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
    untold = "; this kernel does not say whether it tracks it" if outcome.answer.get("tracked") else ""
    words = outcome.answer.get("connection", "").split()
    if len(words) == 4:
        return f"a new connection from {words[0]} port {words[1]} to port {words[3]}{untold}"
    return "a new connection" if is_ssh else f"a new {connection} connection, as far as can be seen"
