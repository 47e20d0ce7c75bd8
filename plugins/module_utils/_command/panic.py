# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Closes all doors and allowed ports except to trusted sources, and opens them again: a change like any other, under the guard."""

import json
import os
from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._change import apply as _apply
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import PANIC, kept_options
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._command.in_panic import NOT_OURS
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import OPTIONS, STATE_FILE

SECONDS = 60
"""How long a panic over ssh waits to be confirmed."""


def panic(host: Any) -> str:
    """Close everything except to trusted sources, and return what to do now.

    :raises PortknockError: if that cannot be done.
    """
    session = host.processes.ssh_connection()
    with host.lock.hold():
        _apply.finish_earlier(host)
        options = _options(host, "panic", guard=bool(session), guard_timeout=SECONDS)
        if _is_in_panic(host):
            return "This host is in panic already. To open the doors and allowed ports again: portknock resume"
        pending = _change(host, options, True)
    trusted = ", ".join(map(_shown, options["trusted_sources"])) or "none, so only the console gets in"
    if pending:
        return (
            f"Panic: all doors and allowed ports are closed, for now. Trusted sources: {trusted}.\n"
            f"This is undone in {SECONDS} s, unless you confirm it: log in again, from a trusted source, and run: portknock confirm\n"
            + NOT_OURS
        )
    return (
        f"Panic: all doors and allowed ports are closed, also after a reboot. Trusted sources: {trusted}.\n"
        "To open them again: portknock resume\n" + NOT_OURS
    )


def _shown(network: str) -> str:
    """Return a network for a person: a single address without its length."""
    address, _slash, length = network.partition("/")
    return address if length in ("32" if "." in address else "128", "") else network


def resume(host: Any) -> str:
    """End the panic, and return a sentence about it.

    :raises PortknockError: if that cannot be done.
    """
    with host.lock.hold():
        _apply.finish_earlier(host)
        if not _is_in_panic(host):
            return "This host is not in panic."
        # It closes nothing, so it can cut off no connection.
        options = _options(host, "resume", guard=False, guard_timeout=SECONDS)
        _change(host, options, False)
    return "The doors and allowed ports are as they were before the panic."


def _options(host: Any, verb: str, **more: Any) -> Dict[str, Any]:
    """Return the options of the change that is in force.

    :raises HostError: if there is none, or if it was made by a release that does not write them down.
    """
    kept = kept_options(host)
    if not kept:
        raise HostError(f"{OPTIONS} is not there, so what was asked for is not known. Run the role again first.")
    session = host.processes.ssh_connection()
    owner = f"portknock {verb}" + (f" from {session[0]}" if session else "")
    # A hole that a foreign rule makes is no reason not to close the rest.
    more.update(state="present", prove=False, guard_id=os.urandom(8).hex(), guard_owner=owner)
    return dict(kept, **more)


def _is_in_panic(host: Any) -> bool:
    return bool(json.loads(host.filesystem.read(STATE_FILE) or "{}").get(PANIC))


def _change(host: Any, options: Dict[str, Any], wanted: bool) -> bool:
    """Change it, and return whether that waits to be confirmed."""
    change = plan_change(options, host, with_diff=False, panic=wanted)
    if not change.loads:
        raise HostError("there are no doors or allowed ports in force on this host. See: portknock status")
    return _apply.apply_change(host, change, options)["state"] == "pending"


__all__ = ("SECONDS", "panic", "resume")
