# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What knock_ruleset_info tells: every part of every engine adds what it finds on the host. Reads only."""

import json
from typing import Any, Dict, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import engine_of, parts_on
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import PANIC, kept_options
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import managed, open_families
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import OtherVersionError, Store
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Report, Wanted, findings_result
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.findings import single_step, spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options


def inspect(host: Any) -> Dict[str, Any]:
    """Return the result of knock_ruleset_info.

    :param host: a Host.
    :raises HostError: if something cannot be read.
    """
    wanted = _wanted(host)
    report = Report(installed={}, doors=[], steps={}, drift=[], findings=[], facts={}, wanted=wanted)
    for part in parts_on(host):
        report = part.inspect(report)
    findings = _wanted_findings(wanted, host) if wanted else _door_findings(report)
    findings += report.findings
    return dict(
        engine=engine_of(report.installed),
        doors=report.doors,
        drift=report.drift,
        findings=findings_result(findings),
        pending=_pending(host),
        panic=json.loads(host.filesystem.read(STATE_FILE) or "{}").get(PANIC, {}).get("since", 0),
        **report.facts,
    )


def wanted_spec(host: Any) -> Optional[Spec]:
    """Return what was asked for by the change in force, None where that is not kept, or is no valid Spec any more."""
    options = kept_options(host)
    try:
        return spec_from_options(dict(options, state="present")) if options else None
    except SpecError:
        return None


def _wanted(host: Any) -> Optional[Wanted]:
    spec = wanted_spec(host)
    if spec is None:
        return None
    families = managed(spec, host.kernel.families())
    return Wanted(
        spec, families, bool(kept_options(host)["persist"]), may_lack=False, connection=None, door="", state={}
    )


def _wanted_findings(wanted: Wanted, host: Any) -> List[Finding]:
    return spec_findings(wanted.spec) + open_families(wanted.families, host.kernel.families())


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


__all__ = ("inspect", "wanted_spec")
