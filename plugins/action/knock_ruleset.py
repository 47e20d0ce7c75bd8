# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of knock_ruleset: checks the options, runs the module, and confirms its change over a new connection."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import argument_spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.guarded_run import MODULE, GuardedRun
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.in_short import in_short
from ansible_collections.sesame.portknock.plugins.plugin_utils.task_options import given, read_ruleset_options

display = Display()

_WITHOUT_GUARD = (
    "guard: false: the change was applied without a guard. If it cuts this controller off, only a console helps."
)


class ActionModule(ActionBase):
    """Runs knock_ruleset under guard."""

    TRANSFERS_FILES = False
    _guarded: GuardedRun | None = None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the task; a change that a new connection could not confirm does not stay."""
        result = super().run(tmp, task_vars)
        del tmp
        task_vars = task_vars or {}
        try:
            options = read_ruleset_options(self._task.args, argument_spec())
            spec = spec_from_options(options)
        except SpecError as error:
            return {**result, "failed": True, "changed": False, "msg": str(error)}
        guarded = options["guard"]
        if guarded and not self._task.check_mode:
            self._guarded = GuardedRun(self, options, spec, task_vars, display.warning)
            return _readable({**result, **self._guarded.run()})
        args = given(self._task.args, options)
        result.update(self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars))
        return _readable(result if guarded else _with_warning(result))

    def cleanup(self, force: bool = False) -> None:
        """Remove the module's temporary files, through the door where it has closed since the change was confirmed.

        That they cannot be removed does not make a confirmed change a failed one.
        """
        try:
            super().cleanup(force)
        except AnsibleConnectionFailure as error:
            if self._guarded is None or not self._guarded.knock_again():
                raise
            try:
                super().cleanup(force)
            except AnsibleConnectionFailure:
                display.warning(
                    f"The module's temporary files, which hold the options of the task, are still on the host, in "
                    f"{self._connection._shell.tmpdir}: {error}. Remove this directory."
                )


def _readable(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with a diff that fits a screen or two; with -v it stays as it is, with the texts of all files."""
    if result.get("diff") and not display.verbosity:
        result["diff"] = in_short(result["diff"], result.get("summary") or ())
    return result


def _with_warning(result: dict[str, Any]) -> dict[str, Any]:
    if result.get("changed") and not result.get("failed"):
        result["warnings"] = [*result.get("warnings", []), _WITHOUT_GUARD]
    return result
