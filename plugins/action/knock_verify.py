# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of knock_verify: asks the host about itself, and tries its doors from the controller."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._redact import without_steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import (
    argument_spec as ruleset_spec,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import DAY, read_number
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.run import verify
from ansible_collections.sesame.portknock.plugins.plugin_utils.task_options import read_ruleset_options

RULESET = ("doors", "policy", "reject_with", "allow", "trusted_sources", "trusted_interfaces", "ip_versions", "engine")
LONGEST_WAIT = 30


def argument_spec() -> dict[str, Any]:
    """Return the options; those of the ruleset are the same as knock_ruleset's."""
    ruleset = ruleset_spec()
    return {**{name: ruleset[name] for name in RULESET}, "longest_wait": {"type": "int", "default": LONGEST_WAIT}}


class ActionModule(ActionBase):
    """Tries the doors of a host."""

    TRANSFERS_FILES = False
    # It would have to knock.
    _supports_check_mode = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the task; what is wrong with the doors does not make it fail."""
        result = super().run(tmp, task_vars)
        del tmp
        try:
            options = read_ruleset_options(self._task.args, argument_spec())
            longest_wait = read_number(self._task.args.get("longest_wait", LONGEST_WAIT), "longest_wait", 0, DAY)
            options = dict({name: options[name] for name in RULESET}, longest_wait=longest_wait)
            spec = spec_from_options({name: options[name] for name in RULESET})
            result.update(verify(self, spec, longest_wait, task_vars or {}))
            result["invocation"] = {"module_args": without_steps(options)}
        except (SpecError, KnockError) as error:
            result.update(failed=True, msg=str(error))
        return result
