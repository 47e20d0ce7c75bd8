# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A callback plugin that writes what became of every task, one JSON object a line."""

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_events
type: aggregate
short_description: Write what became of every task
version_added: 1.0.0
description:
  - For the tests of this collection. Appends one JSON object an event to the file that E(WIRE_TASK_EVENTS) names.
requirements:
  - Enabled in the configuration.
"""


def _part(result: Any, name: str) -> Any:
    """Return the host, task or result of an event: core 2.19 dropped the underscore and kept the old name for a while."""
    found = getattr(result, name, None)
    return getattr(result, "_" + name) if found is None else found


class CallbackModule(CallbackBase):
    """Writes as things happen, so that a run that was killed leaves what it saw."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_events"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, kind: str, result: Any) -> None:
        event = {
            "kind": kind,
            "host": _part(result, "host").get_name(),
            "task": _part(result, "task").get_name(),
            "result": _part(result, "result"),
            "at": time.monotonic(),
        }
        with open(os.environ["WIRE_TASK_EVENTS"], "a", encoding="utf-8", errors="surrogateescape") as handle:
            handle.write(json.dumps(event, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Write a task that went well."""
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Write a failed task, also where the play goes on."""
        self._write("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Write a host that could not be reached."""
        self._write("unreachable", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Write a task that was left out."""
        self._write("skipped", result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Write a turn of a loop."""
        self._write("item ok", result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Write a failed turn of a loop."""
        self._write("item failed", result)

    def v2_runner_retry(self, result: Any) -> None:
        """Write a try that is followed by another."""
        self._write("retry", result)
