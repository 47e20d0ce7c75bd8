# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What knock_ruleset_info tells: every part of every engine adds what it finds on the host. Reads only."""

import json
from typing import Any, Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import engine_of, parts_on
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import PANIC
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import OtherVersionError, Store
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Report, findings_result
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.findings import single_step


def inspect(host: Any) -> Dict[str, Any]:
    """Return the result of knock_ruleset_info.

    :param host: a Host.
    :raises HostError: if something cannot be read.
    """
    report = Report(installed={}, doors=[], steps={}, drift=[], findings=[], facts={})
    for part in parts_on(host):
        report = part.inspect(report)
    findings = _door_findings(report) + report.findings
    return dict(
        engine=engine_of(report.installed),
        doors=report.doors,
        drift=report.drift,
        findings=findings_result(findings),
        pending=_pending(host),
        panic=json.loads(host.filesystem.read(STATE_FILE) or "{}").get(PANIC, {}).get("since", 0),
        **report.facts,
    )


def _door_findings(report: Report) -> List[Finding]:
    names = list(dict.fromkeys(door["name"] for door in report.doors))
    return [single_step(index, name) for index, name in enumerate(names) if report.steps.get(name) == 1]


def _pending(host: Any) -> Dict[str, Any]:
    """Return the change that waits to be confirmed, empty where there is none."""
    try:
        record: Any = Store(host.filesystem).read()
    except OtherVersionError as error:
        record = error.record
    if record is None or record.boot != host.processes.boot():
        return {}
    left = max(0, int(record.deadline - host.clock.monotonic()))
    return dict(id=record.id, owner=record.owner, seconds_left=left)


__all__ = ("inspect",)
