# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What knock_ruleset is going to do: reads options and host, and decides. Nothing in here writes."""

import json
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.diff import shortened
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import (
    parts_on,
    takes_part,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import check_no_panic
from ansible_collections.sesame.portknock.plugins.module_utils._change.unchanged import digest_of_code
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    Connection,
    Files,
    Finding,
    Part,
    PartPlan,
    Wanted,
    connection_of,
    differing,
    findings_result,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE, UNIT_NAME
from ansible_collections.sesame.portknock.plugins.module_utils._spec.findings import spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES, IPV4
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import summary

State = Dict[str, Dict[str, Any]]
"""What is remembered from one change to the next."""
ENABLE, DISABLE = "enable", "disable"


class Change(NamedTuple):
    """All that a run is going to do."""

    spec: Any
    """The Spec that was asked for."""
    absent: bool
    """Whether all of ours is taken out."""
    persist: bool
    """Whether it is kept over a reboot."""
    families: Tuple[str, ...]
    """The IP versions that are managed."""
    connection: Optional[Connection]
    """The ssh connection that this runs in, if there is one."""
    parts: Tuple[PartPlan, ...]
    """The plans of all parts, in the order in which they are loaded."""
    files: Files
    """The files that are not as they should be, as they should be."""
    unit: str
    """``enable`` or ``disable`` our unit, or ''."""
    state: State
    """What is remembered now."""
    findings: Tuple[Finding, ...]
    """What an operator should know."""
    diff: Tuple[Dict[str, str], ...]
    """What Ansible's diff shows; no step in it."""
    permissions: Tuple[str, ...]
    """What is said of files of which the permissions alone are not as they should be."""

    @property
    def loads(self) -> bool:
        """Whether something that is running changes, beside files."""
        return any(plan.loads for plan in self.parts)

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.loads or bool(self.files) or self.unit == ENABLE or any(plan.keeps for plan in self.parts)

    @property
    def door(self) -> str:
        """The door that a new connection like this one must knock at, or ''."""
        return next((plan.door for plan in self.parts if plan.door), "")

    @property
    def proof(self) -> Dict[str, Any]:
        """The knock that must be seen to be recognised although the connection needs none, or an empty dictionary."""
        return next((plan.proof for plan in self.parts if plan.proof), {})

    @property
    def early_files(self) -> Files:
        """The files that must be in place before anything is loaded."""
        early = {path for plan in self.parts for path in plan.early}
        return {path: self.files[path] for path in self.files if path in early}

    @property
    def kept_files(self) -> Files:
        """The files that come when the change is to stay."""
        return {path: self.files[path] for path in self.files if path not in self.early_files}

    @property
    def previous(self) -> Tuple[str, ...]:
        """The paths of those of them of which the version before is kept."""
        named = {path for plan in self.parts for path in plan.previous}
        return tuple(path for path in self.kept_files if path in named)


def plan_change(
    options: Dict[str, Any],
    host: Any,
    may_lack: bool = False,
    with_diff: bool = True,
    command: Any = None,
    panic: Optional[bool] = None,
) -> Change:
    """Read the host and plan.

    :param options: the module's options.
    :param host: a Host.
    :param may_lack: plan for a bare host where packages are not installed yet (check mode).
    :param with_diff: whether the diff will be shown; it takes as long as the plan.
    :param command: the Program that is to be there as the host's command, None to leave that as it is.
    :param panic: whether the host is to be in panic; None for a run that must not change that.
    :raises PortknockError: if the options or the host do not allow it.
    """
    absent = options["state"] == "absent"
    spec = spec_from_options(options)._replace(panic=bool(panic))
    families = _managed(spec, host.kernel.families())
    state = json.loads(host.filesystem.read(STATE_FILE) or "{}")
    if panic is None:
        check_no_panic(state)
    connection = None if absent or panic is not None else connection_of(host.processes.ssh_connection())
    wanted = Wanted(
        None if absent else spec, families, bool(options["persist"]), may_lack, connection, "", state,
        options["conflicting_firewall"], command, bool(options["prove"]), digest_of_code(),
    )  # fmt: skip
    parts = parts_on(host)
    plans = _plan_parts(parts, spec.engine, wanted)
    persist = bool(options["persist"]) and not absent
    files = _changed_files(plans, persist, state, host.filesystem)
    unit = _unit(persist, files, host.systemd)
    findings = () if absent else _findings(spec, plans, families, host.kernel.families())
    diff = tuple(_diff(parts, plans, files, host.filesystem)) if with_diff else ()
    return Change(
        spec, absent, persist, families, connection, tuple(plans), files, unit, state, tuple(findings), diff,
        tuple(_permissions(files, host.filesystem)),
    )  # fmt: skip


def result_of(change: Change) -> Dict[str, Any]:
    """Return the module's result."""
    facts = {name: value for plan in taken_out_first(change.parts) for name, value in plan.facts.items()}
    return dict(
        changed=change.changed,
        findings=_acknowledged(change),
        ip_versions=list(change.families),
        engine="" if change.absent else change.spec.engine,
        summary=[] if change.absent else summary(change.spec),
        diff=list(change.diff),
        permissions=list(change.permissions),
        **facts,
    )


def _acknowledged(change: Change) -> List[Dict[str, Any]]:
    known = change.spec.acknowledge
    return [dict(each, acknowledged=each["kind"] in known) for each in findings_result(change.findings)]


def _plan_parts(parts: List[Part], engine: str, wanted: Wanted) -> List[PartPlan]:
    plans: List[PartPlan] = []
    for part in parts:
        spec = wanted.spec if takes_part(engine, part) else None
        door = next((plan.door for plan in plans if plan.door), "")
        plan = part.plan(wanted._replace(spec=spec, door=door))
        if any(before.disturbs for before in plans):
            # They are about rules that will be gone.
            plan = plan._replace(findings=tuple(each for each in plan.findings if not each.is_about_others))
        plans.append(plan)
    return plans


def taken_out_last(plans: Sequence[PartPlan]) -> List[PartPlan]:
    """Return plans in the order in which they are loaded: what goes is there until what comes in its place is."""
    return sorted(plans, key=lambda plan: plan.wanted.spec is None)


def taken_out_first(plans: Sequence[PartPlan]) -> List[PartPlan]:
    """Return plans in an order in which what a part keeps and says counts more than what one does that is taken out."""
    return sorted(plans, key=lambda plan: plan.wanted.spec is not None)


def managed(spec: Any, present: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return the IP versions of a Spec that a host speaks."""
    return tuple(family for family in FAMILIES if family in spec.ip_versions and family in present)


def _managed(spec: Any, present: Tuple[str, ...]) -> Tuple[str, ...]:
    families = managed(spec, present)
    if not families:
        raise SpecError(
            "ip_versions", "names only {}, which this host does not speak.".format(", ".join(spec.ip_versions))
        )
    return families


def _changed_files(plans: List[PartPlan], persist: bool, state: State, filesystem: Any) -> Files:
    """Return the files that are not as they should be; what was there before us gets the permissions that it had."""
    wanted = {path: file for plan in taken_out_first(plans) for path, file in plan.files.items()}
    if not persist:
        modes = state.get("modes", {})
        wanted = {path: (text, modes.get(path, mode)) for path, (text, mode) in wanted.items()}
    return {path: wanted[path] for path in differing(wanted, filesystem.read, filesystem.mode)}


def _permissions(files: Files, filesystem: Any) -> List[str]:
    """Return a line for each file that another program has written anew with permissions of its own, and our text."""
    found = []
    for path, (text, mode) in sorted(files.items()):
        now = filesystem.mode(path)
        if mode is not None and now not in (None, mode) and filesystem.read(path) == text:
            why = ": it may hold steps of knocks, which only root may read" if mode == _SECRET else ""
            found.append(f"{path} has mode {now:04o} instead of {mode:04o}{why}")
    return found


_SECRET = 0o600


def _unit(persist: bool, files: Files, systemd: Any) -> str:
    if not persist:
        return DISABLE
    return ENABLE if files or not systemd.is_ready(UNIT_NAME) else ""


def _findings(spec: Any, plans: List[PartPlan], families: Tuple[str, ...], present: Tuple[str, ...]) -> List[Finding]:
    found = list(spec_findings(spec)) + [finding for plan in plans for finding in plan.findings]
    return found + open_families(families, present)


def open_families(families: Sequence[str], present: Sequence[str]) -> List[Finding]:
    """Return a Finding for each IP version that a host speaks and that is not managed."""
    return [_open_family(family) for family in present if family not in families]


def _open_family(family: str) -> Finding:
    name = "IPv4" if family == IPV4 else "IPv6"
    message = (
        f"ip_versions: this host speaks {name} too, and there the doors' ports are as open as before. Add {family}."
    )
    return Finding("family_open", family, "", message)


def _diff(parts: List[Part], plans: List[PartPlan], files: Files, filesystem: Any) -> List[Dict[str, str]]:
    """Return what a person reads: what runs and files before and after, without a step."""
    shown = [_shortened(each) for part, plan in zip(parts, plans) for each in part.diff(plan)]
    owners = {part.name: part for part in parts}
    owner = {path: owners[plan.part] for plan in taken_out_first(plans) for path in plan.files}
    for path, (text, mode) in sorted(files.items()):
        readable = owner[path].readable
        before, after = readable(path, filesystem.read(path)), readable(path, text or "")
        note = "" if text is None else f" (mode {mode:04o})"
        now = filesystem.mode(path)
        if text is not None and mode is not None and now not in (None, mode):
            # Where the text is the same, it is all that there is to show.
            before, after = f"mode {now:04o}\n{before}", f"mode {mode:04o}\n{after}"
        shown.append(_shortened(dict(before_header=path, after_header=path + note, before=before, after=after)))
    return shown


def _shortened(part: Dict[str, str]) -> Dict[str, str]:
    before, after = shortened(part["before"], part["after"])
    return dict(part, before=before, after=after)


__all__ = (
    "DISABLE",
    "ENABLE",
    "Change",
    "State",
    "managed",
    "open_families",
    "plan_change",
    "result_of",
    "taken_out_first",
    "taken_out_last",
)
