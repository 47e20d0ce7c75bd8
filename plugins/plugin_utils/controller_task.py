# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What action plugins share that do their work on the controller and need no connection.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.plugin_utils.task_options import read_options


class ControllerTask(ActionBase):
    """A task of the controller: its options are read, and work() does the rest."""

    TRANSFERS_FILES = False
    _requires_connection = False
    OPTIONS: ClassVar[Mapping[str, Any]] = {}
    """The argument spec of its options."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the task; it fails for an option that is not valid, and shows no value."""
        result = super().run(tmp, task_vars)
        del tmp
        try:
            options = read_options(self, self.OPTIONS)
        except SpecError as error:
            return {**result, "failed": True, "changed": False, "msg": str(error)}
        return {**result, **self.work(options, task_vars or {})}

    def work(self, options: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return what the task adds to its result."""
        raise NotImplementedError
