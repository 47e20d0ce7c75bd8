# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What knock_ruleset does once there is something to do. It is imported only then: a run that changes nothing is quicker for it."""

from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program
from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import import_late
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import Change
from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import end_other_version


def finish_earlier(host: Any) -> str:
    """Finish under the lock of the host what a run before left unfinished, and return a sentence about it, or ''.

    :raises PendingError: if a change waits to be confirmed and still can be.
    """
    return _guard(host).finish_earlier()


def apply_change(host: Any, change: Change, options: Dict[str, Any]) -> Dict[str, Any]:
    """Apply a Change under the lock of the host, and return what the controller must know: it waits to be confirmed, or is kept.

    :param options: the module's options.
    :raises AppliedError: with what failed; the host is then as it was.
    """
    import_late(host)
    guard = _guard(host)
    record = guard.apply(change, options)
    if record.agent:
        return guard.answer(record, change.door)
    guard.keep(record)
    return dict(state="not_needed" if options["guard"] else "off")


def _guard(host: Any) -> Guard:
    return Guard(host, Agent(host, agent_program.__name__))


__all__ = ("apply_change", "end_other_version", "finish_earlier")
