# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of an engine that is a ruleset of iptables: planned, loaded and undone for all IP versions as one.

It lets in who is on a door's list. Where it recognises knocks as well, its rules also put sources on the lists.

What only a change, an undo or a look needs is imported there: most runs change nothing, and Python compiles anew what it
imports from a module's zip file.
"""

import hashlib
import re
from typing import Any, Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    EXACT,
    SNAPSHOT,
    Connection,
    Files,
    Finding,
    Loaded,
    Part,
    PartPlan,
    Report,
    Wanted,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.access import (
    check_tracked,
    check_trusted_interfaces,
    door_for,
    lets_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import NFT, Iptables, own_lines
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import readable_file
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import position_of, same_ids
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import (
    layout_of,
    list_size_finding,
    modprobe_text,
    saving_services,
    wanted_files,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import (
    Plan,
    emptying_command,
    plan_family,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.recent_lists import network_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import (
    UNKNOWN,
    LocalNetwork,
    read_local_network,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    IPTABLES_SERVICE_CONFIGS,
    MODPROBE,
    OS_RELEASE,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, family_of

SPELLING = "spelling"
"""Under which key it is remembered how some iptables-save spells our rules."""


class Details(NamedTuple):
    """What a plan of the ruleset holds for itself."""

    plans: Tuple[Plan, ...]
    """The plan of each IP version."""
    owns: Dict[str, Any]
    """IP version to the rules that are to be there."""


class Ruleset(Part):
    """The ruleset of this host."""

    name = "ruleset"

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self._iptables = Iptables(host.command.run, host.command.find, host.filesystem.read)

    def import_late(self) -> None:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables import inspect, load, undo  # noqa: F401

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        installed = self._iptables.installed(IPV4)
        if not installed and not wanted.may_lack and wanted.spec is not None:
            raise HostError(
                "iptables is not installed on this host. Install it first, the role does that: tag portknock_install."
            )
        owns = {} if wanted.spec is None else {family: build_rules(wanted.spec, family) for family in wanted.families}
        saves = self._saves(installed)
        backend = self._backend(saves, wanted) if installed else NFT
        local = read_local_network(self._host.filesystem.read)
        if wanted.spec is not None:
            check_trusted_interfaces(wanted.spec, local)
        plans = tuple(_known_spelling(_plan(wanted, owns, *item, local), wanted.state) for item in saves.items())
        door = _door_of(wanted, plans, local)
        files, rules_files = self._files(wanted, owns)
        return PartPlan(
            part=self.name,
            wanted=wanted,
            loads=any(plan.change for plan in plans),
            files=files,
            early=(MODPROBE,),
            previous=tuple(rules_files.values()) if wanted.persist and wanted.spec is not None else (),
            saved_to=tuple(rules_files.values()),
            last_way=tuple(
                emptying_command(plan, self._iptables.concrete(plan.family, "-restore", backend))
                for plan in plans
                if plan.change
            ),
            door=door,
            findings=self._findings(wanted, plans),
            facts={"backend": backend},
            before={
                "saves": saves,
                "changed": [plan.family for plan in plans if plan.change],
                "rules_files": rules_files,
            },
            details=Details(plans, owns),
        )

    def _saves(self, installed: bool) -> Dict[str, str]:
        present = self._host.kernel.families()
        if not installed:
            return dict.fromkeys(present, "")
        return {family: self._iptables.save(family) for family in present if self._iptables.installed(family)}

    def _backend(self, saves: Dict[str, str], wanted: Wanted) -> str:
        backend = self._iptables.backend(saves[IPV4])
        for family in saves if wanted.spec is not None else ():
            found = self._iptables.other_backend_rules(family, backend)
            if found:
                command = found.split(" ", 1)[0].replace("-save", "")
                raise HostError(
                    "both backends of iptables hold rules, and a packet must pass both: the commands here use "
                    f"{backend}, but {found}. Remove those rules ({command} -F after a look at them) or switch the "
                    "alternative, then run this again. Nothing was changed."
                )
        return backend

    def _files(self, wanted: Wanted, owns: Dict[str, Any]) -> Tuple[Files, Dict[str, str]]:
        """Return the files as they should be, and IP version to the distribution's own rules file, whether it is kept or not."""
        read = self._host.filesystem.read
        try:
            layout = layout_of(read(OS_RELEASE))
        except HostError:
            if wanted.persist and wanted.spec is not None:
                raise
            return {}, {}
        spec = wanted.spec if wanted.persist else None
        files = wanted_files(spec, owns if spec else {}, layout, read)
        if spec is None or self._host.kernel.is_module("xt_recent"):
            files[MODPROBE] = (modprobe_text(spec) if spec else None, 0o644)
        return files, dict(layout.rules)

    def _findings(self, wanted: Wanted, plans: Tuple[Plan, ...]) -> Tuple[Finding, ...]:
        if wanted.spec is None:
            return ()
        found = [finding for plan in plans for finding in plan.findings]
        found += saving_services({path: self._host.filesystem.read(path) for path in IPTABLES_SERVICE_CONFIGS})
        kernel = self._host.kernel
        found += list_size_finding(
            wanted.spec.list_size, kernel.parameter("xt_recent", "ip_list_tot"), kernel.is_module("xt_recent")
        )
        return tuple(found)

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:
        parts = []
        for each in plan.details.plans:
            if each.change:
                header = f"{each.family} ruleset in the kernel"
                parts.append(dict(before_header=header, after_header=header, before=each.before(), after=each.after()))
        return parts

    def readable(self, path: str, text: str) -> str:  # noqa: ARG002
        return readable_file(text)

    # Changing

    def load(self, plan: PartPlan) -> Loaded:
        wanted, details = plan.wanted, plan.details

        def replan(family: str, save: str) -> Plan:
            return _plan(wanted, details.owns, family, save)

        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.load import apply_plans

        loaded = apply_plans(self._iptables, details.plans, replan)
        if wanted.spec is not None:
            self._host.recent_lists.hide()
        expected = {family: own_lines(one.save) for family, one in loaded.items()}
        return Loaded(expected, {SPELLING: _spelling(wanted.state, loaded)})

    def forget(self, plan: PartPlan, door: str, source: Any) -> None:
        spec = plan.wanted.spec
        lists = Lists(family_of(source), spec.ipv6_prefix)
        named = next(each for each in spec.doors if each.name == door)
        self._host.recent_lists.forget(lists.door(named), network_of(source, spec.ipv6_prefix))

    def problem(self, before: Dict[str, Any], expected: Dict[str, Any]) -> str:  # noqa: ARG002
        for family, lines in expected.items():
            if own_lines(self._iptables.save(family)) != lines:
                return f"something else changed the knock rules of {family} before it was confirmed"
        return ""

    def undo(self, before: Dict[str, Any]) -> str:
        """Undo every IP version that can be: the controller may come over just that one."""
        undone, failed = [], []
        for family in reversed(before["changed"]):
            try:
                undone.append(self._undo_family(family, before["saves"][family]))
            except HostError as error:
                failed.append(f"{family}: {error}")
        if failed:
            raise HostError(" ".join(failed))
        return SNAPSHOT if SNAPSHOT in undone else EXACT

    def _undo_family(self, family: str, before: str) -> str:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import (
            is_undone,
            snapshot_text,
            undo_text,
        )

        try:
            text = undo_text(before, self._iptables.save(family))
            if text:
                self._iptables.restore(family, text)
            if is_undone(before, self._iptables.save(family)):
                return EXACT
        except Exception:
            # Whatever it was: access comes first, and the snapshot needs no understanding of the rules.
            pass
        self._iptables.restore(family, snapshot_text(before), flush=True)
        return SNAPSHOT

    def undo_after_boot(self, before: Dict[str, Any]) -> None:
        """Have our rules as they are in the rules file: that is what the boot would have loaded."""
        failed = []
        for family in reversed(list(before["saves"])):
            try:
                path = before["rules_files"].get(family, "")
                self._undo_family(family, self._host.filesystem.read(path) if path else "")
            except HostError as error:
                failed.append(f"{family}: {error}")
        if failed:
            raise HostError(" ".join(failed))

    def is_loaded_in(self, before: str, now: str) -> bool:
        return own_lines(now) != own_lines(before)

    def without_loaded(self, path: str, before: str, now: str) -> str:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rules_file import file_before

        try:
            text = file_before(now, before, path)
        except HostError:
            return before
        return text if before or re.search("^-A", text, re.M) else ""

    def inspect(self, report: Report) -> Report:
        from ansible_collections.sesame.portknock.plugins.module_utils._iptables.inspect import inspect_ruleset

        return inspect_ruleset(self._host, self._iptables, report)


def _plan(wanted: Wanted, owns: Dict[str, Any], family: str, save: str, local: LocalNetwork = UNKNOWN) -> Plan:
    spec = wanted.spec if family in wanted.families else None
    return plan_family(save, spec, family, owns.get(family), local)


def _known_spelling(plan: Plan, state: Dict[str, Dict[str, Any]]) -> Plan:
    """Leave out a change that is only in how this version of iptables-save spells our rules."""
    if plan.change and same_ids(plan.now, plan.then) and state.get(SPELLING, {}).get(plan.family) == _digest(plan):
        return plan._replace(change="", undo="")
    return plan


def _spelling(state: Dict[str, Dict[str, Any]], loaded: Dict[str, Any]) -> Dict[str, str]:
    """Return what is to be remembered of spellings that are not ours."""
    spelling = dict(state.get(SPELLING, {}))
    for family, one in loaded.items():
        spelling.pop(family, None)
        if one.plan.change:
            spelling[family] = _digest(one.plan)
    return spelling


def _digest(plan: Plan) -> str:
    texts = [text for name in sorted(plan.now.chains) for text in plan.now.chains[name]]
    texts += [hook.text for hook in plan.now.hooks]
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


def _door_of(wanted: Wanted, plans: Tuple[Plan, ...], local: LocalNetwork) -> str:
    """Return the door that a new connection like this one must knock at, '' for none.

    :raises SpecError: if no such connection would get in, or go on.
    """
    connection = wanted.connection
    if wanted.spec is None or connection is None:
        return ""
    for plan in plans:
        if plan.family == family_of(connection.source) and plan.family in wanted.families:
            _check_lets_in(plan, wanted.spec, connection)
            door = door_for(wanted.spec, connection.port, connection.source)
            if door:
                check_tracked(plan.document, wanted.spec, connection, local)
            return door
    return ""


def _check_lets_in(plan: Plan, spec: Any, connection: Connection) -> None:
    table, tail = plan.document.table("filter"), position_of(plan.then, TAIL)
    if not lets_in(table, spec, tail, connection.port, connection.source):
        raise SpecError(
            "doors" if not spec.doors else "policy",
            f"policy {spec.policy} would shut out this connection: nothing would let {connection.source} in to port "
            f"{connection.port} again. Open the port with a door (if there is one, look at its sources), name it in "
            "allow, or name the address in trusted_sources.",
        )


__all__ = ("Ruleset",)
