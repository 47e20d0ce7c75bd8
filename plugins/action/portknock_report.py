# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of portknock_report: prints what a run has found. It asks the host nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.utils.display import Display
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.changed import Moment, report
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.fleet import (
    Fleet,
    Outcome,
    after_failure,
    fleet_table,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.show import show
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.verified import table
from ansible_collections.sesame.portknock.plugins.plugin_utils.controller_task import ControllerTask

display = Display()

_KNOCKS = "sesame.portknock.knock_ssh"
_SEEN = "__portknock_seen"
"""What the role registers the result of knock_verify as."""
_CHANGE = "__portknock_result"
"""What it registers that of knock_ruleset as."""
_FAILURE = "__portknock_failed"
"""What the playbook site notes of a host where a task failed."""


class ActionModule(ControllerTask):
    """Prints."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "change": {"type": "dict", "default": {}},
        "fleet": {"type": "bool", "default": False},
        "host": {"type": "dict", "default": {}},
        "verified": {"type": "list", "elements": "str", "default": []},
    }

    def work(self, options: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the lines, in ``msg``, and whether something would be installed."""
        lines = self._table(options["verified"], task_vars) if options["verified"] else []
        lines += self._report(options["change"], options["host"], task_vars)
        lines += self._fleet(task_vars) if options["fleet"] else []
        show(lines, display.display)
        failure = task_vars.get(_FAILURE) if options["fleet"] else None
        if failure:
            return {"failed": True, "changed": False, "msg": after_failure(failure)}
        installs = options["host"].get("installations") or options["host"].get("later")
        return {"changed": bool(self._task.check_mode and installs), "msg": lines}

    def _table(self, hosts: list[str], task_vars: Mapping[str, Any]) -> list[str]:
        seen = {host: task_vars["hostvars"][host].get(_SEEN) or {} for host in hosts}
        return table(seen, bool(self._task.check_mode), _stands(task_vars))

    def _fleet(self, task_vars: Mapping[str, Any]) -> list[str]:
        """Return the table, for the first host of the batch alone."""
        fleet = _stands(task_vars)
        if task_vars["inventory_hostname"] != task_vars["ansible_play_batch"][0]:
            return []
        outcomes = {}
        for host in fleet.hosts:
            known = task_vars["hostvars"][host]
            outcomes[host] = Outcome(known.get(_CHANGE) or {}, known.get(_FAILURE) or {})
        return fleet_table(fleet, outcomes, bool(self._task.check_mode))

    def _report(self, change: Mapping[str, Any], host: Mapping[str, Any], task_vars: Mapping[str, Any]) -> list[str]:
        moment = Moment(
            check=bool(self._task.check_mode),
            diff=bool(self._task.diff),
            plain_ssh=self._connection.ansible_name != _KNOCKS,
        )
        lines = report(change, host, moment)
        name = task_vars.get("inventory_hostname", "this host")
        return [f"{name}: {lines[0]}", *(f"    {line}" for line in lines[1:])] if lines else []


def _stands(task_vars: Mapping[str, Any]) -> Fleet:
    """Return where the play stands."""
    hosts = task_vars["ansible_play_hosts_all"]
    return Fleet(hosts, task_vars["ansible_play_batch"], set(hosts) - set(task_vars["ansible_play_hosts"]))
