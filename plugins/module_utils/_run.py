# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of knock_ruleset does on the host; the module is its main program.

What only some runs need is imported inside functions: most runs change nothing, and Python compiles anew what it imports from a
module's zip file.
"""

from typing import Any, Dict, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.unchanged import Recorder, known_result, remember
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, PendingError, PortknockError
from ansible_collections.sesame.portknock.plugins.module_utils._host.basic import SecretiveModule
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import Host, require_root, this_host
from ansible_collections.sesame.portknock.plugins.module_utils._paths import PENDING, RUN, SPARE_RECORD
from ansible_collections.sesame.portknock.plugins.module_utils._redact import without_steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import argument_spec


def main() -> None:
    """Be the module: plan, and unless it is check mode, change."""
    module = SecretiveModule(argument_spec=argument_spec(), supports_check_mode=True)
    # The journal has been written with the steps masked. What is returned holds none by construction, and
    # masking every text that looks like a step would spoil the result: a step may be a number as short as 7.
    module.no_log_values = set()
    host = this_host(module)
    try:
        require_root(host, " Nothing was changed.")
        do = check if module.check_mode else run
        result = do(module.params, host, module._diff)
        module.exit_json(invocation={"module_args": without_steps(module.params)}, **result)
    except PendingError as error:
        module.fail_json(msg=str(error), pending=error.pending)
    except AppliedError as error:
        state = dict(state="rolled_back", undo=error.undo)
        module.fail_json(msg=str(error), rolled_back=True, guard=state)
    except PortknockError as error:
        module.fail_json(msg=str(error))


def run(options: Dict[str, Any], host: Host, with_diff: bool) -> Dict[str, Any]:
    """Read, plan and apply; return the module's result."""
    note = _end_other_version(host)
    with host.lock.hold():
        note = _finish_earlier(host) or note
        result, state = known_result(host, options), dict(state="not_needed" if options["guard"] else "off")
        if result is None:
            result, state = _plan_and_apply(host, options, with_diff, state)
    return dict(result, guard=state, rolled_back=False, **(dict(warnings=[note]) if note else {}))


def _end_other_version(host: Host) -> str:
    if not _is_pending(host):
        return ""
    from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import end_other_version

    return end_other_version(host)


def _is_pending(host: Host) -> bool:
    return any(host.filesystem.mode(path) is not None for path in (PENDING, SPARE_RECORD))


def _finish_earlier(host: Host) -> str:
    if not _is_pending(host):
        return ""
    from ansible_collections.sesame.portknock.plugins.module_utils._change.apply import finish_earlier

    return finish_earlier(host)


def _plan_and_apply(
    host: Host, options: Dict[str, Any], with_diff: bool, state: Dict[str, Any]
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the result, and what the controller must know of the guard."""
    recorder = Recorder(host)
    change, result = _plan(options, recorder.host, with_diff=with_diff)
    if change.changed:
        from ansible_collections.sesame.portknock.plugins.module_utils._change.apply import apply_change

        state = apply_change(host, change, options)
    elif not change.absent:
        remember(host, options, recorder, result)
    if change.absent and state["state"] != "pending":
        host.filesystem.remove_directory(RUN)
    return result, state


def _plan(options: Dict[str, Any], host: Any, **more: bool) -> Tuple[Any, Dict[str, Any]]:
    from ansible_collections.sesame.portknock.plugins.module_utils._command.install import plan_with_command

    return plan_with_command(options, host, **more)


def check(options: Dict[str, Any], host: Host, with_diff: bool) -> Dict[str, Any]:
    """Plan, and return the module's result."""
    return _plan(options, host, may_lack=True, with_diff=with_diff)[1]


__all__ = ("check", "main", "run")
