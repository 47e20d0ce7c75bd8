# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A callback plugin that writes how long every task took, one JSON list a line."""

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_times
type: aggregate
short_description: Write how long every task took
version_added: 1.0.0
description:
  - For the benchmark of this collection. Appends C([name, seconds, changed]) to the file that E(BENCH_TASK_TIMES) names.
requirements:
  - Enabled in the configuration.
"""


class CallbackModule(CallbackBase):
    """Times tasks from their start to their result, with nothing of other tasks between."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task: Any, **_more: Any) -> None:
        """Remember when the task began."""
        self._name, self._start = task.get_name(), time.perf_counter()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Write the task's time; a failed task ends the play, which is noticed there."""
        seconds = time.perf_counter() - self._start
        # core 2.19 names the attribute without the underscore, and keeps the old one.
        values = getattr(result, "result", None) or result._result
        with open(os.environ["BENCH_TASK_TIMES"], "a") as handle:
            handle.write(json.dumps([self._name, seconds, bool(values.get("changed"))]) + "\n")
